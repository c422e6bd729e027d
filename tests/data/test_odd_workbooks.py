"""Unusual workbooks: they give examples without loss, or errors that name the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.problems import errors
from pipeline.data.workbook import read_workbook
from pipeline.data.xlsx_archive import inspect_archive
from pipeline.errors import UsageError
from tests.data.mutations import Counts, changed_bytes, changed_cells, changed_tables, nothing_is_lost
from tests.data.oddities import NO_FILE, ODDITIES, Odd
from tests.odd_workbooks import FIRST, Parts, book


@pytest.mark.parametrize("odd", ODDITIES.values(), ids=ODDITIES)
def test_an_unusual_workbook_is_read_without_loss_or_reported(odd: Odd, tmp_path: Path) -> None:
    read = read_workbook(odd.make(tmp_path))
    found = errors(read.problems)
    assert sorted((p.kind, p.sheet or "", p.row or 0) for p in found) == sorted(
        (kind, sheet or "", row or 0) for kind, sheet, row in odd.kinds
    )
    assert all(p.message and p.remedy and len(p.message) + len(p.remedy) < 2000 for p in read.problems)
    assert found or (nothing_is_lost(read) and len(read.lines) and len(read.topics))


@pytest.mark.parametrize("make", NO_FILE.values(), ids=NO_FILE)
def test_a_path_that_is_no_file_is_a_usage_error(make: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not exist|is neither a file nor a folder"):
        read_workbook(make(tmp_path))


@pytest.mark.parametrize("law", [changed_cells, changed_bytes, changed_tables])
def test_a_randomly_changed_workbook_is_read_without_loss_or_rejected(
    law: Callable[[Path, int], Counts], tmp_path: Path
) -> None:
    found = law(tmp_path, 15)
    assert min(found.read, found.rejected) > 0


def test_a_negative_number_on_the_edge_of_two_blocks_is_found(tmp_path: Path) -> None:
    cell, piece = b'<row r="9"><c r="C9"><v>-1</v></c></row></sheetData>', 1 << 20

    def push_to_the_edge(parts: Parts) -> None:
        head, _, tail = parts[FIRST].partition(b"</sheetData>")
        spaces = b" " * (piece - len(head) - cell.index(b"<v>-") - 2)
        parts[FIRST] = head + spaces + cell + tail

    assert inspect_archive(book(tmp_path / "book.xlsx", change=push_to_the_edge)).has_negative_numbers
    assert not inspect_archive(book(tmp_path / "book.xlsx")).has_negative_numbers
