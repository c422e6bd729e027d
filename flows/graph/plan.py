"""What is to be done, read from DVC's graph. With cache.py and mend.py, the one place that knows DVC's internals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.stage import PipelineStage

from flows.graph.repair import mend
from pipeline.errors import UsageError

# A workbook that came from elsewhere is frozen, on purpose: `watch` fetches it, not the graph.
logging.getLogger("dvc.repo.status").addFilter(lambda record: "is frozen" not in record.getMessage())


class Busy(Exception):
    """Another DVC process is at work in this work tree. The message names it."""


@dataclass(frozen=True)
class Stage:
    """One stage of `dvc.yaml`, `train@t5-tiny` for one of a foreach, with the stages that it directly depends on."""

    name: str
    upstream: tuple[str, ...]
    slot: str | None
    stale: bool
    restorable: bool
    """Whether DVC's run cache can bring its outputs to another work tree."""
    before_plan: bool = False
    """True for a stage that runs before the plan is made, because its output decides which other stages are stale."""


@dataclass(frozen=True)
class Plan:
    """All stages, each after those that it depends on."""

    stages: tuple[Stage, ...]

    def to_run_first(self) -> list[Stage]:
        """The stale stages to run before the rest is planned, in order."""
        return [stage for stage in self.stages if stage.before_plan and stage.stale]

    def to_run(self) -> list[Stage]:
        """The stale stages and everything downstream of them, in order."""
        chosen: dict[str, Stage] = {}
        for stage in self.stages:
            if stage.stale or not chosen.keys().isdisjoint(stage.upstream):
                chosen[stage.name] = stage
        return list(chosen.values())


def read_plan(root: Path) -> Plan:
    """The plan of the DVC project at `root`.

    Raises:
        Busy: another DVC process runs a stage of it.
        UsageError: DVC cannot read the project; its own words say why.
    """
    try:
        with Repo(str(root), _wait_for_lock=True) as repo:
            mend(repo)
            status = repo.status(check_updates=False)
            graph = repo.index.graph
            # DVC's edges point from a stage to what it depends on; ties are broken as dvc.yaml has them.
            order = [stage for stage in nx.topological_sort(graph.reverse()) if isinstance(stage, PipelineStage)]
            return Plan(tuple(_stage(stage, graph, status) for stage in order))
    except LockError as error:
        raise Busy(str(error)) from error
    except DvcException as error:
        raise UsageError("\n".join(_words(error))) from error


def _stage(stage: PipelineStage, graph: nx.DiGraph, status: dict[str, object]) -> Stage:
    upstream = [other.addressing for other in graph.successors(stage) if isinstance(other, PipelineStage)]
    return Stage(
        name=stage.addressing,
        upstream=tuple(sorted(upstream)),
        slot=(stage.meta or {}).get("slot"),
        stale=stage.addressing in status,
        restorable=_restorable(stage),
        before_plan=bool((stage.meta or {}).get("before_plan")),
    )


def _restorable(stage: PipelineStage) -> bool:
    # As dvc.stage.cache decides it, who also asks for the hashes of dependencies that are not there yet.
    return bool(stage.deps) and not stage.always_changed and not any(out.persist for out in stage.outs)


def _words(error: BaseException | None) -> Iterator[str]:
    while error:
        yield str(error)
        error = error.__cause__
