"""The plan of a run: the stages of DVC's graph, in order, and which of them are stale."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.stage import PipelineStage

from flows.graph.dvc_internals import is_restorable, open_repo
from flows.graph.repair import repair
from pipeline.errors import UsageError
from pipeline.paths import REGISTERED

# An imported workbook is frozen on purpose: the flow `watch` updates it, not the graph.
logging.getLogger("dvc.repo.status").addFilter(lambda record: "is frozen" not in record.getMessage())


class Busy(Exception):
    """Another DVC process is running in this work tree. The message names it."""


@dataclass(frozen=True)
class Stage:
    """One stage of `dvc.yaml`; a stage of a foreach has a name such as `train@t5`."""

    name: str
    upstream: tuple[str, ...]
    """The stages that this one directly depends on."""
    inputs: tuple[str, ...]
    """The local files and folders that this one reads, relative to the project."""
    slot: str | None
    stale: bool
    restorable: bool
    """True if DVC's run cache can restore its outputs in another work tree."""
    before_plan: bool = False
    """True for a stage that runs before the plan is made, because its output decides which other stages are stale."""
    depth: int = 0
    """Stages on the longest path from this one to the end of the graph. Those on a long path should start early."""


@dataclass(frozen=True)
class Plan:
    """All stages, each after the stages that it depends on."""

    stages: tuple[Stage, ...]

    def to_run_first(self) -> list[Stage]:
        """Return the stale stages to run before the rest is planned, in order."""
        return [stage for stage in self.stages if stage.before_plan and stage.stale]

    def to_run(self) -> list[Stage]:
        """Return the stale stages and everything downstream of them, in order."""
        chosen: dict[str, Stage] = {}
        for stage in self.stages:
            if stage.stale or not chosen.keys().isdisjoint(stage.upstream):
                chosen[stage.name] = stage
        return list(chosen.values())


def is_up_to_date(root: Path) -> bool:
    """Return whether a run of the DVC project at `root` has nothing to do. While another DVC process runs, it may have.

    Raises:
        UsageError: DVC cannot read the project; the message quotes DVC.
    """
    register_after_experiment()
    try:
        return not read_plan(root).to_run()
    except Busy:
        return False


def register_after_experiment() -> None:
    """Make the register stage stale if a DVC experiment, which registers nothing, was the last to run it."""
    if REGISTERED.exists() and "experiment" in json.loads(REGISTERED.read_text(encoding="utf-8")):
        REGISTERED.unlink()


def read_plan(root: Path) -> Plan:
    """Read the plan of the DVC project at `root`.

    Raises:
        Busy: another DVC process runs one of its stages.
        UsageError: DVC cannot read the project; the message quotes DVC.
    """
    try:
        with open_repo(root, wait_for_lock=True) as repo:
            repair(repo)
            status = repo.status(check_updates=False)
            graph = repo.index.graph
            # DVC's edges point from a stage to what it depends on. Ties keep the order of dvc.yaml.
            order = [stage for stage in nx.topological_sort(graph.reverse()) if isinstance(stage, PipelineStage)]
            depths: dict[PipelineStage, int] = {}
            for stage in reversed(order):
                downstream = [depths[other] for other in graph.predecessors(stage) if other in depths]
                depths[stage] = max(downstream, default=-1) + 1
            return Plan(tuple(_stage(stage, graph, status, depths[stage]) for stage in order))
    except LockError as error:
        raise Busy(str(error)) from error
    except DvcException as error:
        raise UsageError("\n".join(_messages(error))) from error


def _stage(stage: PipelineStage, graph: nx.DiGraph, status: dict[str, object], depth: int) -> Stage:
    upstream = [other.addressing for other in graph.successors(stage) if isinstance(other, PipelineStage)]
    meta = stage.meta or {}
    return Stage(
        name=stage.addressing,
        upstream=tuple(sorted(upstream)),
        inputs=tuple(
            os.path.relpath(dep.fs_path, stage.repo.root_dir) for dep in stage.deps if dep.protocol == "local"
        ),
        slot=meta.get("slot"),
        stale=stage.addressing in status,
        restorable=is_restorable(stage),
        before_plan=bool(meta.get("before_plan")),
        depth=depth,
    )


def _messages(error: BaseException | None) -> Iterator[str]:
    while error:
        yield str(error)
        error = error.__cause__
