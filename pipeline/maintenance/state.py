"""Find files of Lectern's own state that nothing needs any more."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable
from importlib.metadata import version
from pathlib import Path

from pipeline.files import is_locked
from pipeline.maintenance.removable import Removable, last_touched, size
from pipeline.paths import EXPORTS, MODELS, RUN_REPORTS, STATE
from pipeline.settings import read_params

_ASIDE = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
"""The name that `pipeline.files` gives a folder in which it writes a file before the rename."""
_SUFFIX = re.compile(r"-(journal|wal|shm)|-before\d?|\.tmp\w{6}")
"""Suffixes of SQLite's journals, of the old content during a replacement, and of files that safetensors is writing."""
_WRITTEN_ASIDE_IN = (
    Path("data"),
    MODELS,
    Path("reports"),
    *(STATE / name for name in ("batches", "converted", "features", "fetched")),
)


def removable_state(before: float) -> list[Removable]:
    """Return one group per kind of file that was last used before a time in seconds since 1970."""
    # Each use of a folder of features updates its time.
    features = [path for path in STATE.glob("features/*") if path.stat().st_mtime < before]
    return [
        _group("features of frozen layers", "not used recently; computed again when needed", features),
        _group("converted checkpoints", "of no model in params.yaml, or for another transformers", _converted()),
        _group("versions used as checkpoints", "not used recently; fetched again when needed", _fetched(before)),
        _group("checkpoints of killed trainings", "not resumed recently", _old("checkpoints/*", before)),
        _group("copies of killed runs", "of runs with parameters, not resumed recently", _old("runs/*", before)),
        _group("reports of runs with parameters", "old", _old_reports(before)),
        _group("titles of killed runs", "not resumed recently", _old("titles/*", before)),
        _group("searches", "not resumed recently; reports/search keeps the results", _searches(before)),
        _group("curves of other trackers", "of old trainings", _curves(before)),
        _group("logs", "of servers that have ended", _logs(before)),
        _group("half-written files", "left by killed processes", _asides(before, features)),
    ]


def removable_exports(used: Collection[Path], before: float) -> Removable:
    """Return the old exports, except those in the folders `used`."""
    old = [folder for folder in EXPORTS.glob("*/*") if folder not in used and last_touched(folder) < before]
    return _group("exports", "of versions that are not in use; `lectern export` makes them again", old)


def _group(what: str, why: str, paths: list[Path]) -> Removable:
    return Removable(what, why, len(paths), size(paths), lambda: _remove(paths))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _old(pattern: str, before: float) -> list[Path]:
    return [path for path in STATE.glob(pattern) if last_touched(path) < before]


def _old_reports(before: float) -> list[Path]:
    return [path for path in RUN_REPORTS.glob("*") if last_touched(path) < before]


def _converted() -> list[Path]:
    """Find folders whose GGUF file no model uses, or that another version of transformers made."""
    stems = {Path(model["checkpoint"]).stem for model in read_params()["models"].values()}
    wanted = re.compile(rf"({'|'.join(map(re.escape, stems))})-[0-9a-f]{{16}}-{re.escape(version('transformers'))}")
    folders = [path for path in STATE.glob("converted/*") if path.is_dir() and not _is_aside(path)]
    return [path for path in folders if not wanted.fullmatch(path.name)]


def _fetched(before: float) -> list[Path]:
    return [path for path in _old("fetched/*", before) if not _is_aside(path)]


def _curves(before: float) -> list[Path]:
    """Find old curves for TensorBoard and Weights & Biases (`train.report_to`)."""
    return [*_old("tensorboard/*", before), *_old("wandb/*", before)]


def _searches(before: float) -> list[Path]:
    return [study for study in _old("search/*", before) if not any(map(is_locked, study.rglob("*lock")))]


def _logs(before: float) -> list[Path]:
    up = STATE / "up.lock"
    return [] if up.exists() and is_locked(up) else _old("logs/*", before)


def _asides(before: float, removed: list[Path]) -> list[Path]:
    # In these two folders only at the top level, where params.yaml, dvc.lock and the tracking database are written.
    found = [*Path().glob(".*.*"), *STATE.glob(".*.*")]
    found += [path for folder in _WRITTEN_ASIDE_IN for path in folder.rglob(".*.*")]
    return [path for path in found if path.parent not in removed and _is_aside(path) and last_touched(path) < before]


def _is_aside(path: Path) -> bool:
    """Return whether `pipeline.files` made the folder: a user's `.prefect.20261101` only has a similar name."""
    named = _ASIDE.fullmatch(path.name)
    if not named or not path.is_dir() or path.is_symlink():
        return False
    within = (child.name.removeprefix(named[1]) for child in path.iterdir())
    return all(not name or _SUFFIX.fullmatch(name) for name in within)
