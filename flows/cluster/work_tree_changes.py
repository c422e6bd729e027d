"""What a run changes in the work tree, for machines that clone the commit: they are sent it, and write it into theirs.

A run is asked for models, epochs or a workbook, and a workbook becomes newer where it came from. `params.yaml` and
DVC's own files say so, and nobody commits them for one run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.paths import PARAMS
from pipeline.registry.lineage import git

Changes = dict[str, bytes | None]
"""What a file holds, by its path; None where there is none any more."""


def changed() -> list[Path]:
    """The files of this work tree that differ from the commit, but for `dvc.lock`, which every run writes."""
    where = ("--", ".", ":!dvc.lock")
    tracked = git("diff", "--name-only", "--no-renames", "--relative", "-z", "HEAD", *where)
    new = git("ls-files", "--others", "--exclude-standard", "-z", *where)
    return sorted({Path(name) for name in f"{tracked}\0{new}".split("\0") if name})


def travels(path: Path) -> bool:
    """Whether `path` is for a run to change: the settings, or what DVC writes of a workbook that it takes in."""
    return path == PARAMS or path.suffix == ".dvc" or path.name == ".gitignore"


def read(paths: Iterable[Path]) -> Changes:
    return {path.as_posix(): path.read_bytes() if path.exists() else None for path in paths}


def write(changes: Changes, tree: Path) -> None:
    """Makes the work tree at `tree` differ from its commit by `changes`."""
    for name, content in changes.items():
        path = tree / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
