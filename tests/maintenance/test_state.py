"""Files of Lectern's own state that `lectern clean` removes."""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from pipeline.files import file_aside
from pipeline.maintenance.state import removable_state
from pipeline.paths import STATE

DAY = 24 * 60 * 60.0


def _write(path: Path, *, days_ago: float = 40) -> Path:
    """A file, last written so long ago, as its folder was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x" * 10, encoding="utf-8")
    for touched in (path, *(folder for folder in path.parents if folder.is_relative_to(STATE))):
        os.utime(touched, (time.time() - days_ago * DAY,) * 2)
    return path


def _going() -> dict[str, tuple[int, int]]:
    """Return the count and the bytes of each kind of file."""
    piles = removable_state(time.time() - 30 * DAY)
    return {pile.what: (pile.count, pile.bytes) for pile in piles if pile.count}


def _clean() -> None:
    for pile in removable_state(time.time() - 30 * DAY):
        pile.remove()


def test_a_fresh_project_has_nothing_to_remove(project: Path) -> None:
    assert _going() == {}


@pytest.mark.parametrize(
    ("what", "file"),
    [
        ("features of frozen layers", "features/0a1b/1.safetensors"),
        ("checkpoints of killed trainings", "checkpoints/t5-tiny-0123456789ab/checkpoint-1/model.safetensors"),
        ("copies of killed runs", "runs/0a1b2c/checkpoints/t5-tiny-0123456789ab/checkpoint-1/model.safetensors"),
        ("reports of runs with parameters", "../reports/runs/0a1b2c/report.html"),
        ("titles of killed runs", "titles/0a1b2c/00000000.json"),
        ("searches", "search/t5-tiny-0123456789ab/study.db"),
        ("logs", "logs/mlflow.log"),
    ],
)
def test_files_not_used_recently_are_removed(what: str, file: str, project: Path) -> None:
    old, recent = STATE / file, STATE / file.replace("0", "1").replace("mlflow.", "prefect.")
    _write(recent, days_ago=20)
    _write(old)
    assert _going() == {what: (1, 10)}
    _clean()
    assert (old.exists(), recent.exists()) == (False, True)
    assert _going() == {}


def test_recently_used_features_stay(project: Path) -> None:
    folder = _write(STATE / "features/0a1b/1.safetensors").parent
    os.utime(folder)
    assert _going() == {}


def test_a_running_search_stays(project: Path) -> None:
    _write(STATE / "search/t5-tiny-0123456789ab/study.db")
    lock = _write(STATE / "search/t5-tiny-0123456789ab/trial-3/lock")
    with FileLock(lock):
        _write(lock)
        assert _going() == {}
    for _ in range(2):  # asking whether it is at work does not make it look so
        assert _going().keys() == {"searches"}


def test_logs_of_running_servers_stay(project: Path) -> None:
    _write(STATE / "logs/mlflow.log")
    with FileLock(STATE / "up.lock"):
        assert _going() == {}


def test_a_converted_checkpoint_without_a_model_or_of_other_transformers_is_removed(project: Path) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    stem = Path(params["models"]["smollm2"]["checkpoint"]).stem
    used = _write(STATE / f"converted/{stem}-0123456789abcdef-{version('transformers')}/model.safetensors")
    _write(STATE / f"converted/{stem}-0123456789abcdef-4.0.0/model.safetensors")
    _write(STATE / f"converted/other-0123456789abcdef-{version('transformers')}/model.safetensors")
    assert _going() == {"converted checkpoints": (2, 20)}
    _clean()
    assert used.exists()


@pytest.mark.parametrize("place", ["models/t5-tiny/model.safetensors", "mlflow.db", ".lectern/params_asked.yaml"])
def test_old_half_written_files_are_removed(place: str, project: Path) -> None:
    with file_aside(Path(place)) as aside:
        aside.write_text("x" * 10, encoding="utf-8")
        assert _going() == {}
        for touched in (aside, aside.parent):
            os.utime(touched, (0, 0))
        assert _going() == {"half-written files": (1, 10)}
        _clean()
        assert not aside.exists()
        aside.parent.mkdir()
        aside.touch()


@pytest.mark.parametrize("beside", ["mlflow.db-journal", "mlflow.db-before", ".tmpchR6km"])  # SQLite, safetensors
def test_temporary_files_of_libraries_are_removed_with_them(beside: str, project: Path) -> None:
    with file_aside(Path("mlflow.db")) as aside:
        for path in (aside, aside.with_name(beside)):
            path.write_text("x" * 10, encoding="utf-8")
        for touched in (*aside.parent.iterdir(), aside.parent):
            os.utime(touched, (0, 0))
        assert _going() == {"half-written files": (1, 20)}


@pytest.mark.parametrize(
    "own", [".env.template", ".prefect.20261101", ".venv.previous/bin/python", ".prefect.20261101/prefect.db"]
)
@pytest.mark.parametrize("folder", [Path(), Path("data"), STATE])
def test_a_users_file_with_a_similar_name_stays(folder: Path, own: str, project: Path) -> None:
    path = _write(folder / own)
    for touched in (path, *path.parents[:2]):
        os.utime(touched, (0, 0))
    assert _going() == {}
