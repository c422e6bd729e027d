"""Groups of things that `lectern clean` can remove, and their table for the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table


@dataclass(frozen=True)
class Removable:
    """A group of things of one kind that nothing needs."""

    what: str
    why: str  # nothing needs them
    count: int
    bytes: int
    remove: Callable[[], None]  # removes all of them; after an interruption, the next clean-up removes the rest


def removable_table(groups: Sequence[Removable]) -> Table:
    """Format the groups and their total for a terminal."""
    table = Table(title="Can be removed", title_justify="left", show_footer=True)
    table.add_column("what", footer="total")
    table.add_column("count", justify="right", footer=str(sum(group.count for group in groups)))
    table.add_column("size", justify="right", footer=decimal(sum(group.bytes for group in groups)))
    table.add_column("why")
    for group in groups:
        table.add_row(group.what, str(group.count), decimal(group.bytes), group.why)
    return table


def size(paths: Iterable[Path]) -> int:
    """Return the total size in bytes of files and of all files in folders."""
    return sum(file.lstat().st_size for path in paths for file in (path, *path.rglob("*")) if not file.is_dir())


def last_touched(path: Path) -> float:
    """Return the time of the last change of a file, or of anything in a folder: seconds since 1970."""
    return max(file.lstat().st_mtime for file in (path, *path.rglob("*")))
