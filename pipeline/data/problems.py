"""Problems of a workbook: place, message and remedy, and their forms for a person and for a program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table
from rich.text import Text

from pipeline.data.single_values import show_invisible
from pipeline.errors import Rejected

Severity = Literal["error", "warning"]

MAX_LISTED = 1000  # problems of one kind in one column; the others become one entry with a count
MAX_SHOWN = 5  # of the listed problems, in a text for a person


@dataclass(frozen=True)
class Problem:
    """A problem in a workbook: where Excel shows it, and what to do about it."""

    severity: Severity
    kind: str  # the same words for the same problem everywhere: "bad timestamp"
    sheet: str | None  # the sheet, or the file in a folder of tables; None: the whole workbook
    row: int | None  # Excel's number
    column: str | None  # letter and header: "D (timestamp)"
    message: str
    remedy: str
    cells: int = 1  # number of cells with this problem

    @property
    def place(self) -> str:
        """The known parts of the place: `lesson_topics, row 17, column D (timestamp)`."""
        parts = [self.sheet, self.row and f"row {self.row:,}", self.column and f"column {self.column}"]
        return ", ".join(part for part in parts if part) or "the workbook"


def shorten(text: str, length: int = 60) -> str:
    """Cut a long text for use in a message, and name its invisible characters."""
    text = show_invisible(text[: length + 1])
    return text if len(text) <= length else f"{text[: length - 1]}…"


def problems_at_rows(
    pattern: Problem,
    rows: Sequence[int] | np.ndarray,
    message: Callable[[int], str],
    cells: Sequence[int] | np.ndarray | None = None,
) -> list[Problem]:
    """Repeat a problem at several rows.

    Beyond `MAX_LISTED` rows, one last entry counts the others, so that a column of bad cells does not take all memory.

    Args:
        pattern: the problem, without row and message.
        rows: Excel's numbers of the rows.
        message: returns the message for a position in `rows`.
        cells: the number of cells for each row; 1 by default.
    """
    counts = np.ones(len(rows), dtype=int) if cells is None else np.asarray(cells)
    problems = [
        replace(pattern, row=int(row), message=message(i), cells=int(counts[i]))
        for i, row in enumerate(rows[:MAX_LISTED])
    ]
    if len(rows) > MAX_LISTED:
        rest = f"The same in {len(rows) - MAX_LISTED:,} more places, down to row {int(np.max(rows)):,}."
        count = int(counts[MAX_LISTED:].sum())
        problems.append(replace(pattern, row=int(rows[MAX_LISTED]), message=rest, cells=count))
    return problems


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sort problems: errors before warnings, then by sheet, column, kind and row."""
    return sorted(problems, key=lambda p: (p.severity, p.sheet or "", p.column or "", p.kind, p.row or 0))


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Return the errors, which stop the pipeline."""
    return [p for p in problems if p.severity == "error"]


def warnings(problems: Iterable[Problem]) -> list[Problem]:
    """Return the warnings, which do not stop the pipeline."""
    return [p for p in problems if p.severity == "warning"]


def summary(problems: Iterable[Problem]) -> str:
    """Count the cells with problems: `2 errors, 1 warning`."""
    problems = list(problems)
    return f"{_count(errors(problems), 'error')}, {_count(warnings(problems), 'warning')}"


def by_kind(problems: Iterable[Problem]) -> list[str]:
    """Return one line per kind and column: `12 x bad timestamp (first: lesson_topics, row 3, column C (timestamp))`."""
    return [f"{_cells(alike):,} x {alike[0].kind} (first: {alike[0].place})" for alike in _grouped(problems)]


def as_json(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Return all problems as dictionaries for `json.dumps`."""
    return [asdict(p) for p in in_order(problems)]


def as_table(problems: Iterable[Problem]) -> Table:
    """Return a table for a terminal, with at most `MAX_SHOWN` problems of one kind in one column."""
    table = Table("", "sheet", "row", "column", "what is wrong", "what to do")
    for problem, more in _shown(problems):
        severity = Text(problem.severity, style="red" if problem.severity == "error" else "yellow")
        where = (problem.sheet or "", f"{problem.row:,}" if problem.row else "", problem.column or "")
        # `Text`, because rich would read square brackets in a title as markup.
        table.add_row(severity, *map(Text, where), Text(problem.message), Text(problem.remedy))
        if more:
            table.add_row("", "", "", "", Text(f"and {more:,} more: {problem.kind}", style="dim"), "")
    return table


def as_block(problems: Iterable[Problem]) -> str:
    """Return lines of plain text, with at most `MAX_SHOWN` problems of one kind in one column."""
    lines = []
    for problem, more in _shown(problems):
        lines.append(f"  {problem.place}: {problem.message} {problem.remedy}")
        if more:
            lines.append(f"    and {more:,} more: {problem.kind}")
    return "\n".join(lines)


class WorkbookRejected(Rejected):
    """The workbook has errors. `problems` holds errors and warnings; the message names the errors."""

    def __init__(self, path: Path, problems: Iterable[Problem], hint: str = "") -> None:
        self.problems = in_order(problems)
        found = errors(self.problems)
        text = f"{path} has {_count(found, 'error')}, so nothing was read from it:\n{as_block(found)}"
        if hidden := sum(more for _, more in _shown(found)):
            text += f"\n{hidden:,} more errors: `lectern check {path} --json` lists all."
        if hint:
            text += f"\n{hint}"
        super().__init__(text)


def _grouped(problems: Iterable[Problem]) -> Iterator[list[Problem]]:
    """Group problems of one kind in one column."""
    groups = groupby(in_order(problems), key=lambda p: (p.severity, p.sheet, p.column, p.kind))
    return (list(group) for _, group in groups)


def _shown(problems: Iterable[Problem]) -> Iterator[tuple[Problem, int]]:
    """Yield the problems to show; the last of each group comes with the number of cells that are not shown."""
    for alike in _grouped(problems):
        *shown, last = alike[:MAX_SHOWN]
        yield from ((problem, 0) for problem in shown)
        yield last, _cells(alike[MAX_SHOWN:])


def _cells(problems: Iterable[Problem]) -> int:
    return sum(p.cells for p in problems)


def _count(problems: list[Problem], word: str) -> str:
    number = _cells(problems)
    return f"{number:,} {word}{'' if number == 1 else 's'}"
