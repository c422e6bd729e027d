"""Whatever is handed in for a workbook: right examples with nothing lost, or a refusal that names the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.problems import errors
from pipeline.data.workbook import read_workbook
from pipeline.data.xlsx_archive import inspect_archive
from pipeline.errors import UsageError
from tests.data.mutations import Law, changed_bytes, changed_cells, changed_tables, nothing_is_lost
from tests.data.oddities import NO_FILE, ODDITIES, Odd
from tests.odd_workbooks import FIRST, Parts, book


@pytest.mark.parametrize("odd", ODDITIES.values(), ids=ODDITIES)
def test_a_workbook_as_none_should_be_is_right_or_named(odd: Odd, tmp_path: Path) -> None:
    read = read_workbook(odd.make(tmp_path))
    found = errors(read.problems)
    assert sorted((p.kind, p.sheet or "", p.row or 0) for p in found) == sorted(
        (kind, sheet or "", row or 0) for kind, sheet, row in odd.kinds
    )
    assert all(p.message and p.remedy and len(p.message) + len(p.remedy) < 2000 for p in read.problems)
    assert found or (nothing_is_lost(read) and len(read.lines) and len(read.topics))


@pytest.mark.parametrize("make", NO_FILE.values(), ids=NO_FILE)
def test_what_is_no_file_is_misuse(make: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not exist|is neither a file nor a folder"):
        read_workbook(make(tmp_path))


@pytest.mark.parametrize("law", [changed_cells, changed_bytes, changed_tables])
def test_of_what_is_changed_at_random_nothing_is_lost(law: Callable[[Path, int], Law], tmp_path: Path) -> None:
    found = law(tmp_path, 20)
    assert min(found.read, found.refused) > 0


def test_a_number_below_zero_is_seen_where_the_archive_is_read_in_two_pieces(tmp_path: Path) -> None:
    cell, piece = b'<row r="9"><c r="C9"><v>-1</v></c></row></sheetData>', 1 << 20

    def push_to_the_edge(parts: Parts) -> None:
        head, _, tail = parts[FIRST].partition(b"</sheetData>")
        spaces = b" " * (piece - len(head) - cell.index(b"<v>-") - 2)
        parts[FIRST] = head + spaces + cell + tail

    assert inspect_archive(book(tmp_path / "book.xlsx", change=push_to_the_edge)).below_zero
    assert not inspect_archive(book(tmp_path / "book.xlsx")).below_zero
