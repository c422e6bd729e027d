"""What is wrong with a workbook, cell by cell, and how a person or a program gets to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table
from rich.text import Text

from pipeline.errors import Rejected

LISTED = 1000  # problems of one kind in one column that are kept one by one; the rest become one entry with a count
SHOWN = 5  # of these, how many a person is shown


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where Excel shows it, and what to do about it."""

    severity: Literal["error", "warning"]
    kind: str  # the same words for the same problem everywhere: "bad timestamp"
    sheet: str | None  # the sheet, or the file in a folder of tables; None: the workbook as a whole
    row: int | None  # as Excel numbers it
    column: str | None  # its letter and its header: "D (timestamp)"
    message: str
    remedy: str
    cells: int = 1  # how many cells this entry stands for

    @property
    def place(self) -> str:
        """`lesson_topics, row 17, column D (timestamp)`, as far as it is known."""
        parts = [self.sheet, self.row and f"row {self.row:,}", self.column and f"column {self.column}"]
        return ", ".join(part for part in parts if part) or "the workbook"


def short(text: str, length: int = 60) -> str:
    """`text` as a message quotes it: its beginning, if it is long."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def one_by_one(
    pattern: Problem,
    rows: Sequence[int] | np.ndarray,
    message: Callable[[int], str],
    cells: Sequence[int] | np.ndarray | None = None,
) -> list[Problem]:
    """`pattern` at each of `rows`, saying `message(position in rows)`.

    `cells` says how many cells each row stands for (1 where it is not given). Beyond `LISTED` rows one last entry
    counts what is left, so that a column without a single good cell costs no more than one with a thousand bad ones.
    """
    counts = np.ones(len(rows), dtype=int) if cells is None else np.asarray(cells)
    problems = [
        replace(pattern, row=int(row), message=message(i), cells=int(counts[i])) for i, row in enumerate(rows[:LISTED])
    ]
    if len(rows) > LISTED:
        rest = f"The same in {len(rows) - LISTED:,} more places, down to row {int(np.max(rows)):,}."
        problems.append(replace(pattern, row=int(rows[LISTED]), message=rest, cells=int(counts[LISTED:].sum())))
    return problems


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Errors before warnings, then by sheet and column, each kind from the top down."""
    return sorted(problems, key=lambda p: (p.severity, p.sheet or "", p.column or "", p.kind, p.row or 0))


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Those that stop."""
    return [p for p in problems if p.severity == "error"]


def warnings(problems: Iterable[Problem]) -> list[Problem]:
    """Those that do not stop."""
    return [p for p in problems if p.severity == "warning"]


def summary(problems: Iterable[Problem]) -> str:
    """`2 errors, 1 warning`, counting cells."""
    problems = list(problems)
    return f"{_count(errors(problems), 'error')}, {_count(warnings(problems), 'warning')}"


def by_kind(problems: Iterable[Problem]) -> list[str]:
    """One line a kind and column: `12 x line before the first topic (first: lesson_transcripts, row 3, ...)`."""
    return [f"{_cells(alike):,} x {alike[0].kind} (first: {alike[0].place})" for alike in _alike(problems)]


def as_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Every problem as a plain dictionary, ready for `json.dumps`."""
    return [asdict(p) for p in in_order(problems)]


def as_table(problems: Iterable[Problem]) -> Table:
    """The problems as a table for a terminal; of one kind in one column at most `SHOWN`, and how many more."""
    table = Table("", "sheet", "row", "column", "what is wrong", "what to do")
    for problem, more in _shortened(problems):
        severity = Text(problem.severity, style="red" if problem.severity == "error" else "yellow")
        where = (problem.sheet or "", f"{problem.row:,}" if problem.row else "", problem.column or "")
        # `Text`, since a title may hold square brackets, which rich would read as markup.
        table.add_row(severity, *map(Text, where), Text(problem.message), Text(problem.remedy))
        if more:
            table.add_row("", "", "", "", Text(f"and {more:,} more: {problem.kind}", style="dim"), "")
    return table


def as_block(problems: Iterable[Problem]) -> str:
    """The problems as lines of plain text; of one kind in one column at most `SHOWN`, and how many more."""
    lines = []
    for problem, more in _shortened(problems):
        lines.append(f"  {problem.place}: {problem.message} {problem.remedy}")
        if more:
            lines.append(f"    and {more:,} more: {problem.kind}")
    return "\n".join(lines)


class WorkbookRejected(Rejected):
    """The workbook has errors. `problems` holds them and the warnings; the text names the errors."""

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
        self.problems = in_order(problems)
        found = errors(self.problems)
        text = f"{path} has {_count(found, 'error')}, so nothing was taken from it:\n{as_block(found)}"
        if left_out := sum(more for _, more in _shortened(found)):
            text += f"\nand {left_out:,} more: `lectern check {path} --json`"
        super().__init__(text)


def _alike(problems: Iterable[Problem]) -> Iterator[list[Problem]]:
    groups = groupby(in_order(problems), key=lambda p: (p.severity, p.sheet, p.column, p.kind))
    return (list(group) for _, group in groups)


def _shortened(problems: Iterable[Problem]) -> Iterator[tuple[Problem, int]]:
    """The problems to show, the last one of each kind with the number of cells that are left out."""
    for alike in _alike(problems):
        *shown, last = alike[:SHOWN]
        yield from ((problem, 0) for problem in shown)
        yield last, _cells(alike[SHOWN:])


def _cells(problems: Iterable[Problem]) -> int:
    return sum(p.cells for p in problems)


def _count(problems: list[Problem], word: str) -> str:
    number = _cells(problems)
    return f"{number:,} {word}{'' if number == 1 else 's'}"
