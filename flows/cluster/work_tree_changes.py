"""Changes of the work tree that a run brings: they are sent to the machines that clone the commit.

A run with parameters, and a workbook that was updated from its source, change `params.yaml` and DVC's own files. Nobody
commits these changes for one run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.paths import PARAMS
from pipeline.registry.lineage import git

Changes = dict[str, bytes | None]
"""The content of each changed file, by its path; None for a deleted file."""


def changed() -> list[Path]:
    """Return the files of this work tree that differ from the commit, except `dvc.lock`, which every run writes."""
    where = ("--", ".", ":!dvc.lock")
    tracked = git("diff", "--name-only", "--no-renames", "--relative", "-z", "HEAD", *where)
    new = git("ls-files", "--others", "--exclude-standard", "-z", *where)
    return sorted({Path(name) for name in f"{tracked}\0{new}".split("\0") if name})


def can_travel(path: Path) -> bool:
    """Return whether a run may change `path`: the settings, or a file that DVC writes for a new workbook."""
    return path == PARAMS or path.suffix == ".dvc" or path.name == ".gitignore"


def read(paths: Iterable[Path]) -> Changes:
    """Read the content of changed files."""
    return {path.as_posix(): path.read_bytes() if path.exists() else None for path in paths}


def write(changes: Changes, tree: Path) -> None:
    """Apply `changes` to the work tree at `tree`."""
    for name, content in changes.items():
        path = tree / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
