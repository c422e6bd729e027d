"""Random changes of workbooks and tables. Each result is read without loss, or rejected."""

from __future__ import annotations

import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.examples import build_examples
from pipeline.data.problems import errors
from pipeline.data.workbook import Workbook, read_workbook
from tests.odd_workbooks import CLOCK, DATE, DURATION, LINES, PLAIN, TOPICS, Cell, Row, book, number

_ODD_TEXTS = (
    "",
    " ",
    "\u00a0",
    "\u200b",
    "\x1c",
    "_x0000_",
    "=1+1",
    "'x",
    "#N/A",
    "1:75",
    "-0:05",
    "1e400",
    "inf",
    "²",
)
_ODD_BYTES = (b"<", b'"', b"\x00", b"&#0;", b"\xff", b"9" * 40, b",,,,,", b"\r", b"\n\n")
_TEXTS = st.text(max_size=30) | st.sampled_from(_ODD_TEXTS)
_NUMBERS = st.builds(
    number,
    st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 2),
    st.sampled_from([PLAIN, DATE, DURATION, CLOCK]),
)
_CELLS = st.one_of(
    st.none(),
    _TEXTS,
    _NUMBERS,
    st.builds(Cell, st.just("b"), st.sampled_from(["0", "1"])),
    st.builds(Cell, st.just("e"), st.sampled_from(["#N/A", "#REF!", "#DIV/0!"])),
    st.builds(lambda text: Cell("str", text, formula="A1"), _TEXTS),
    st.just(Cell("n", "", formula="A1")),
)


class Counts(NamedTuple):
    """Numbers of workbooks that were read and rejected, and the longest time for one of them."""

    read: int
    rejected: int
    seconds: float


def lines_and_topics(read: Workbook) -> tuple[int, int]:
    """Return the numbers of lines and topics that are in examples or set aside."""
    built = build_examples(read.topics, read.lines)
    aside = built.set_aside["what"].value_counts()
    lines = built.examples["lines"].map(len).sum() + aside.get("line", 0)
    return int(lines), int(len(built.examples) + aside.get("topic", 0))


def nothing_is_lost(read: Workbook) -> bool:
    """Return whether each line and each topic is in an example or set aside."""
    return lines_and_topics(read) == (len(read.lines), len(read.topics))


def changed_cells(folder: Path, count: int) -> Counts:
    """Change cells, and move, duplicate or remove rows and columns."""

    def judge(tables: tuple[list[Row], list[Row]]) -> bool:
        topics, lines = tables
        read = read_workbook(book(folder / "mutated.xlsx", topics, lines))
        if is_rejected(read):
            return False
        seen = tuple(sum(map(_shows_something, rows)) - 1 for rows in (lines, topics))  # without the header
        assert lines_and_topics(read) == seen
        return True

    return _count_outcomes(_books(), judge, count)


def changed_bytes(folder: Path, count: int) -> Counts:
    """Change bytes of a part of the archive, with a valid checksum."""
    with zipfile.ZipFile(book(folder / "valid.xlsx")) as archive:
        valid = {name: archive.read(name) for name in archive.namelist()}

    def judge(change: tuple[str, Callable[[bytes], bytes]]) -> bool:
        part, mutate = change
        path = book(folder / "mutated.xlsx", change=lambda parts: parts.update({part: mutate(parts[part])}))
        return is_read_whole(read_workbook(path))

    return _count_outcomes(st.tuples(st.sampled_from(sorted(valid)), _mutations()), judge, count)


def changed_tables(folder: Path, count: int) -> Counts:
    """Change bytes of CSV files in a folder."""
    valid = {
        "lesson_topics.csv": "\n".join(",".join(map(str, row)) for row in TOPICS).encode(),
        "lesson_transcripts.csv": "\n".join(",".join(map(str, row)) for row in LINES).encode(),
    }

    def judge(change: tuple[str, Callable[[bytes], bytes]]) -> bool:
        changed, mutate = change
        for name, content in valid.items():
            (folder / name).write_bytes(mutate(content) if name == changed else content)
        return is_read_whole(read_workbook(folder))

    return _count_outcomes(st.tuples(st.sampled_from(sorted(valid)), _mutations()), judge, count)


def is_read_whole(read: Workbook) -> bool:
    """Return whether a workbook was read, and check that nothing was lost; false if it was rejected."""
    if is_rejected(read):
        return False
    assert nothing_is_lost(read)
    return True


def is_rejected(read: Workbook) -> bool:
    found = errors(read.problems)
    assert all(problem.message and problem.remedy and problem.place for problem in found)
    return bool(found)


def _count_outcomes(examples: st.SearchStrategy, judge: Callable[..., bool], count: int) -> Counts:
    outcomes, longest = Counter(), 0.0

    @settings(max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck])
    @given(examples)
    def hold(example: object) -> None:
        nonlocal longest
        start = time.monotonic()
        outcomes[judge(example)] += 1
        longest = max(longest, time.monotonic() - start)

    hold()
    return Counts(outcomes[True], outcomes[False], round(longest, 1))


@st.composite
def _books(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    tables = [[list(row) for row in rows] for rows in (TOPICS, LINES)]
    for _ in range(draw(st.integers(0, 3))):
        rows = tables[draw(st.integers(0, 1))]
        at = draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, max(1, len(rows) - 1)))
        if at >= len(rows):
            continue
        match draw(st.sampled_from(["cell"] * 6 + ["double", "drop", "swap", "blank", "column"])):
            case "cell":
                rows[at][draw(st.integers(0, 3))] = draw(_CELLS)
            case "double":
                rows.insert(at, list(rows[at]))
            case "drop":
                del rows[at]
            case "swap":
                rows[at], rows[-1] = rows[-1], rows[at]
            case "blank":
                rows.insert(at, [draw(st.sampled_from([None, " ", "\u00a0"]))] * 4)
            case "column":
                for row in rows:
                    row.append(draw(_CELLS))
    return tables[0], tables[1]


def _mutations() -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Insert, remove or replace bytes at a random position."""

    def mutation(share: float, length: int, new: bytes, *, keep: bool) -> Callable[[bytes], bytes]:
        def mutate(content: bytes) -> bytes:
            at = int(share * len(content))
            return content[:at] + new + content[at if keep else at + length :]

        return mutate

    new = st.binary(max_size=8) | st.sampled_from(_ODD_BYTES)
    return st.builds(mutation, st.floats(0, 1), st.integers(0, 40), new, keep=st.booleans())


def _shows_something(row: Row) -> bool:
    return any(_shown(cell).strip() for cell in row[:4])


def _shown(cell: Cell | str | float | None) -> str:
    if isinstance(cell, Cell):
        return cell.value
    return "" if cell is None else str(cell)
