"""Things of one kind that may go, as an operator sees them before they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table


@dataclass(frozen=True)
class Pile:
    """So many things of one kind, and how they go: all of them or, where that is cut off, the rest the next time."""

    what: str
    why: str  # they may go
    count: int
    bytes: int
    remove: Callable[[], None]


def piles_table(piles: Sequence[Pile]) -> Table:
    """A row a pile, and one for all of them."""
    table = Table(title="What may go", title_justify="left", show_footer=True)
    table.add_column("what", footer="in all")
    table.add_column("how many", justify="right", footer=str(sum(pile.count for pile in piles)))
    table.add_column("size", justify="right", footer=decimal(sum(pile.bytes for pile in piles)))
    table.add_column("why it may go")
    for pile in piles:
        table.add_row(pile.what, str(pile.count), decimal(pile.bytes), pile.why)
    return table


def size(paths: Iterable[Path]) -> int:
    """The bytes of files, and of all files in folders."""
    return sum(file.lstat().st_size for path in paths for file in (path, *path.rglob("*")) if not file.is_dir())


def last_touched(path: Path) -> float:
    """When the file, or anything in the folder, was written last: seconds since 1970."""
    return max(file.lstat().st_mtime for file in (path, *path.rglob("*")))
