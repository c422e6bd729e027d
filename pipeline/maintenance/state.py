"""What the running system keeps for itself, as far as it has outlived its use."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from pipeline.locks import is_held
from pipeline.maintenance.removable import Pile, last_touched, size
from pipeline.paths import MODELS, RUN_REPORTS, STATE
from pipeline.settings import read_params

_ASIDE = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
"""How `pipeline.files` names the folder in which something is written before it is moved into its place."""
_BESIDE = re.compile(r"-(journal|wal|shm)|-before\d?|\.tmp\w{6}")
"""Suffixes that SQLite adds to the name of its database, a replacement to the old file, and safetensors to a file
that it is still writing."""
_WRITTEN_ASIDE_IN = (
    Path("data"),
    MODELS,
    Path("reports"),
    *(STATE / name for name in ("batches", "converted", "features", "fetched")),
)


def state_piles(before: float) -> list[Pile]:
    """A pile a kind, of what was last used before that time: seconds since 1970."""
    # Whoever uses a folder of features touches it.
    features = [path for path in STATE.glob("features/*") if path.stat().st_mtime < before]
    return [
        _pile("features of frozen layers", "not used of late; computed anew when wanted", features),
        _pile("converted checkpoints", "of no model in params.yaml, or for another transformers", _converted()),
        _pile("versions to go on from", "not used of late; fetched anew when wanted", _fetched(before)),
        _pile("checkpoints of killed trainings", "not gone on with of late", _old("checkpoints/*", before)),
        _pile("copies of killed runs", "of runs with parameters, not resumed lately", _old("runs/*", before)),
        _pile("reports of runs with parameters", "old", _old_reports(before)),
        _pile("titles of killed runs", "not gone on with of late", _old("titles/*", before)),
        _pile("searches", "not gone on with of late; reports/search keeps what they found", _searches(before)),
        _pile("curves of other trackers", "of trainings long ago", _curves(before)),
        _pile("logs", "of servers that are gone", _logs(before)),
        _pile("half-written files", "left by what was killed", _asides(before, features)),
    ]


def _pile(what: str, why: str, paths: list[Path]) -> Pile:
    return Pile(what, why, len(paths), size(paths), lambda: _remove(paths))


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
    """A folder bears the name of the GGUF file that it was made of, and the version of transformers that made it."""
    stems = {Path(model["checkpoint"]).stem for model in read_params()["models"].values()}
    wanted = re.compile(rf"({'|'.join(map(re.escape, stems))})-[0-9a-f]{{16}}-{re.escape(version('transformers'))}")
    folders = [path for path in STATE.glob("converted/*") if path.is_dir() and not _is_aside(path)]
    return [path for path in folders if not wanted.fullmatch(path.name)]


def _fetched(before: float) -> list[Path]:
    return [path for path in _old("fetched/*", before) if not _is_aside(path)]


def _curves(before: float) -> list[Path]:
    """Curves for TensorBoard and Weights & Biases (`train.report_to`)."""
    return [*_old("tensorboard/*", before), *_old("wandb/*", before)]


def _searches(before: float) -> list[Path]:
    return [study for study in _old("search/*", before) if not any(map(is_held, study.rglob("*lock")))]


def _logs(before: float) -> list[Path]:
    up = STATE / "up.lock"
    return [] if up.exists() and is_held(up) else _old("logs/*", before)


def _asides(before: float, going: list[Path]) -> list[Path]:
    # Of these two folders, only what lies right in them: params.yaml, dvc.lock, the tracking database.
    found = [*Path().glob(".*.*"), *STATE.glob(".*.*")]
    found += [path for folder in _WRITTEN_ASIDE_IN for path in folder.rglob(".*.*")]
    return [path for path in found if path.parent not in going and _is_aside(path) and last_touched(path) < before]


def _is_aside(path: Path) -> bool:
    """Whether `pipeline.files` made it: somebody's `.prefect.20261101` or `.env.template` only bears such a name."""
    named = _ASIDE.fullmatch(path.name)
    if not named or not path.is_dir() or path.is_symlink():
        return False
    within = (child.name.removeprefix(named[1]) for child in path.iterdir())
    return all(not name or _BESIDE.fullmatch(name) for name in within)
