"""Files that must survive a power loss: the content reaches the disk before the name, and the name before its use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pandas as pd
import pytest
from transformers import TrainerControl, TrainerState

from pipeline.files import folder_aside, made_once, write_json
from pipeline.paths import PARAMS, STATE
from pipeline.settings import set_params
from pipeline.stages import ingest, merge
from pipeline.training.resume import SaveWithinEpochs
from tests.titles.small import register, write_book

Event = tuple[str, Path]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Record what reaches the disk, in order: ("sync", path) and ("name", new path)."""
    seen: list[Event] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))

    def note_name(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        synced = {path for what, path in seen if what == "sync"}
        within = [Path(source), *Path(source).rglob("*")]
        whole = all(path.resolve() in synced for path in within if not path.is_symlink())
        replace(source, target)
        seen.append(("name" if whole else "name of what is not yet there", Path(target).absolute()))

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_name)
    return seen


def survives(path: Path, events: list[Event]) -> bool:
    """Return whether the content of `path` was synced before its name, and the folder after it."""
    path = path.absolute()
    return ("name", path) in events and ("sync", path.parent) in events[events.index(("name", path)) :]


def _fill(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep/weights").write_bytes(b"weights")
    (folder / "config").write_text("{}", encoding="utf-8")


def _replace_folder() -> None:
    Path("models/t5-tiny").mkdir(parents=True)
    (Path("models/t5-tiny") / "old").touch()
    with folder_aside(Path("models/t5-tiny")) as aside:
        _fill(aside)


@pytest.mark.parametrize(
    ("act", "paths"),
    [
        (lambda: set_params(["split"], {"seed": 2}), [PARAMS]),
        (_replace_folder, [Path("models/t5-tiny")]),
        (lambda: made_once(STATE / "converted/c", _fill), [STATE / "converted/c"]),
        (lambda: write_json(Path("reports/registered.json"), {"version": 1}), [Path("reports/registered.json")]),
    ],
    ids=["params.yaml", "model folder", "converted checkpoint", "registered version"],
)
def test_a_durable_file_is_synced_before_it_gets_its_name(
    act: Callable[[], object], paths: list[Path], project: Path, events: list[Event]
) -> None:
    act()
    assert [path for path in paths if not survives(path, events)] == []


def test_the_name_of_a_new_folder_is_synced(project: Path, events: list[Event]) -> None:
    write_json(Path("a/b/state.json"), {})
    assert {("sync", project / "a/b"), ("sync", project / "a"), ("sync", project)} <= {*events}


def test_a_version_is_registered_after_its_model_is_synced(
    project: Path, examples: pd.DataFrame, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    when_registered: list[Event] = []
    register_model = mlflow.register_model

    def note(*words: object, **options: object) -> object:
        when_registered.extend(events)
        return register_model(*words, **options)

    monkeypatch.setattr(mlflow, "register_model", note)
    register(project / "models/small", examples)
    [weights] = (project / "mlartifacts").rglob("model.safetensors")
    assert {("sync", weights), ("sync", weights.parent)} <= {*when_registered}


def test_a_checkpoint_is_synced_before_the_training_continues(project: Path, events: list[Event]) -> None:
    checkpoint = project / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    arguments = SimpleNamespace(output_dir=str(project))
    SaveWithinEpochs(10).on_save(arguments, TrainerState(global_step=3), TrainerControl())
    assert {("sync", checkpoint / "model.safetensors"), ("sync", checkpoint), ("sync", project)} <= {*events}


def test_outputs_of_stages_are_not_synced(project: Path, events: list[Event]) -> None:
    book = write_book(project / "lessons.xlsx", [("C", "1", "0:00:00", "Old")], [("C", "1", "0:00:01", "so we begin")])
    set_params(["ingest"], {"workbook": str(book)})
    events.clear()
    ingest.run()
    merge.run()
    assert [path for what, path in events if what == "sync"] == []
