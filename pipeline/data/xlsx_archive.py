"""Inspect the archive of an .xlsx file before any library opens it.

The library that reads cells makes a grid up to the outermost cell of a sheet, and writes out each shared text as often
as it is used. So a file of a few kilobytes can take all memory, and the process dies without a message.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import basename, dirname, join, normpath
from typing import IO
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from openpyxl.utils import column_index_from_string, get_column_letter

from pipeline.data.problems import Problem

MAX_UNPACKED = 1 << 30  # bytes; three times the size of two full sheets of spoken lines
MAX_CELLS = 17_000_000  # of a sheet's grid: 16 columns with all rows of Excel
MAX_TEXT = 250_000_000  # bytes of all texts with all uses of shared texts; reading takes six times as much memory
MAX_TEXT_LENGTH = 100_000_000  # bytes of one text; thousands of times the longest text of Excel
MAX_PARTS = 10_000

_BLOCK = 1 << 20
_LONGEST_TAG = 1 << 16
_MAX_COLUMN_LETTERS = 3  # the last column of Excel is XFD
# Nearly all cells are written <c r="D17" ...>, with a column of one or two letters and a valid row. This finds others.
_UNCOMMON_CELL = re.compile(rb'<c(?: (?!r="[A-Z]{1,2}(?:\d{1,6}|10[0-4]\d{4})")|[\t\r\n>/])|<\w+:c[\s/>]')
# Far cells. A grid may be too large with a cell right of P and one below row 99,999, or right of AZ and below 9,999.
_RIGHT_OF_P, _BELOW_99999 = re.compile(rb'<c r="(?:[Q-Z]|[A-Z]{2})\d'), re.compile(rb'<c r="[A-Z]{1,2}\d{6}')
_RIGHT_OF_AZ, _BELOW_9999 = re.compile(rb'<c r="[B-Z][A-Z]\d'), re.compile(rb'<c r="[A-Z]{1,2}\d{5}')
_SHARED_TEXT_INDEX = re.compile(
    rb"<(?:\w+:)?c(?=\s)(?=[^<>]*\st=[\"']s[\"'])[^<>]*+>\s*+<(?:\w+:)?v(?=[\s>])[^<>]*+>(\d{1,9})<"
)
_SHARED_TEXT_START, _PREFIXED_SHARED_TEXT_START = re.compile(rb"<si[\s/>]"), re.compile(rb"<(?:\w+:)?si[\s/>]")
# A cell's attributes and content. The content ends at the next cell, so the search takes linear time.
_CELL = re.compile(rb"<(?:\w+:)?c(\s[^<>]*+)>((?:[^<]++|<(?!/?(?:\w+:)?c[\s/>]))*+)</(?:\w+:)?c>")
_ERROR_TYPE = re.compile(rb"\st=[\"']e[\"']")
_TAG = re.compile(rb"<[^<>]*>")
_VALUE = re.compile(rb"<(?:\w+:)?v[^<>]*>([^<]*)<")
_ADDRESS = re.compile(r"([A-Za-z]+)(\d+)")
_CELL_ADDRESS = re.compile(rb"\sr=[\"']([A-Za-z]{1,3})(\d+)[\"']")
_INLINE_TEXT = (b"inlineStr", b't="str"', b"t='str'")
_OTHER_FORMATS = {"xl/workbook.bin": "an .xlsb workbook", "content.xml": "an OpenDocument file, such as .ods"}
_XML = (".xml", ".rels", ".vml")

_SAVE_AS_TABLES = "Save both tables as CSV or Parquet in one folder."
_SAVE_AGAIN = "Save it again from Excel as .xlsx."


class UnsafeArchive(Exception):
    """The archive is unsafe to read; `problem` gives the reason."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True)
class ErrorCell:
    """A cell that shows an error, such as #N/A. Row and column start at 1."""

    row: int
    column: int
    shows: str


@dataclass(frozen=True)
class Archive:
    """Facts about the cells that calamine does not report.

    Attributes:
        errors: the cells with errors, by the name of the sheet.
        has_negative_numbers: whether any cell holds a negative number.
    """

    errors: dict[str, list[ErrorCell]]
    has_negative_numbers: bool


@dataclass
class _Part:
    """Findings about one file of the archive.

    Attributes:
        info: its entry in the archive.
        has_uncommon_cells: whether a cell with an unusual address may be far away.
        far: the patterns of far cells that match.
        shared_uses: the number of cells with a shared text.
        has_inline_texts: whether cells hold their text themselves.
        inline_bytes: the size of these texts.
        has_negative_numbers: whether a cell holds a negative number.
        has_errors: whether a cell shows an error.
        shared_starts: the position of each shared text, and the end of the part.
    """

    info: zipfile.ZipInfo
    has_uncommon_cells: bool = False
    far: set[re.Pattern[bytes]] = field(default_factory=set)
    shared_uses: int = 0
    has_inline_texts: bool = False
    inline_bytes: int = 0
    has_negative_numbers: bool = False
    has_errors: bool = False
    shared_starts: list[int] = field(default_factory=list)

    @property
    def may_be_too_large(self) -> bool:
        """Return whether the grid of the sheet may have too many cells."""
        pairs = ({_RIGHT_OF_P, _BELOW_99999}, {_RIGHT_OF_AZ, _BELOW_9999})
        return self.has_uncommon_cells or any(pair <= self.far for pair in pairs)


def inspect_archive(path: Path) -> Archive:
    """Read an archive once in blocks, and check its size and content.

    Raises:
        UnsafeArchive: the archive is too large, declares XML entities, or has another format than .xlsx.
        Exception: the archive is damaged, such as zipfile.BadZipFile.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > MAX_UNPACKED or len(archive.infolist()) > MAX_PARTS:
            what = f"unpacks to {unpacked / 1e9:,.1f} GB in {len(archive.infolist()):,} parts"
            raise UnsafeArchive(_problem(path, "too large", what, _SAVE_AS_TABLES))
        if other := next((kind for name, kind in _OTHER_FORMATS.items() if name in archive.namelist()), None):
            remedy = "Open it in Excel or LibreOffice, and save it as .xlsx (Excel 2007-365)."
            raise UnsafeArchive(_problem(path, "not a workbook", f"is {other}", remedy))
        if not archive.infolist():
            raise zipfile.BadZipFile("the archive is empty")
        parts = [_inspect_part(archive, info, path) for info in archive.infolist()]
        names = _sheet_names(archive)
        for part in parts:
            rows, columns = _last_cell(archive, part.info) if part.may_be_too_large else (0, 0)
            if rows * columns > MAX_CELLS:
                raise UnsafeArchive(_too_many_cells(names.get(part.info.filename, part.info.filename), rows, columns))
        texts = _total_text(archive, parts)
        if texts > MAX_TEXT:
            what = f"has {texts / 1e6:,.0f} MB of text, including repeated text"
            raise UnsafeArchive(_problem(path, "too large", what, _SAVE_AS_TABLES))
        errors = {
            names[part.info.filename]: list(_error_cells(archive.read(part.info)))
            for part in parts
            if part.has_errors and part.info.filename in names
        }
        return Archive(errors, any(part.has_negative_numbers for part in parts))


def _problem(path: Path, kind: str, what: str, remedy: str) -> Problem:
    return Problem("error", kind, None, None, None, f"{path.name} {what}.", remedy)


def _too_many_cells(sheet: str, rows: int, columns: int) -> Problem:
    reach = f"row {rows:,}" + (f", column {get_column_letter(columns)}" if columns < MAX_CELLS else "")
    message = f"Its cells reach {reach}, far beyond a table of topics or lines."
    remedy = "In Excel, delete the rows and columns after your data (Ctrl-End shows the last cell), and save."
    return Problem("error", "too large", sheet, None, None, message, remedy)


def _inspect_part(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> _Part:
    """Read one file of the archive in blocks.

    Raises:
        UnsafeArchive: it declares XML entities or holds a very long text.
    """
    part = _Part(info)
    is_xml = info.filename.lower().endswith(_XML)
    with archive.open(info) as file:  # reading to the end also verifies the checksum
        offset = last_tag = 0
        for block in _blocks(file):
            if is_xml:
                last_tag = offset + found if (found := block.rfind(b"<")) >= 0 else last_tag
                if offset + len(block) - last_tag > MAX_TEXT_LENGTH:
                    what = f"holds a text of over {MAX_TEXT_LENGTH / 1e6:.0f} MB ({info.filename})"
                    raise UnsafeArchive(_problem(path, "too large", what, _SAVE_AGAIN))
                if b"<!DOCTYPE" in block or b"<!ENTITY" in block:
                    what = f"declares XML entities ({info.filename}), which no spreadsheet needs"
                    raise UnsafeArchive(_problem(path, "not a workbook", what, _SAVE_AGAIN))
                _inspect_block(part, block, offset)
            offset += len(block)
    part.shared_starts.append(offset)
    return part


def _inspect_block(part: _Part, block: bytes, offset: int) -> None:
    """Add the findings about a block of XML, which starts at `offset`, to `part`."""
    shared_text = _PREFIXED_SHARED_TEXT_START if b":si" in block else _SHARED_TEXT_START
    part.shared_starts += [offset + found.start() for found in shared_text.finditer(block)]
    part.has_negative_numbers = part.has_negative_numbers or b"v>-" in block
    part.has_inline_texts = part.has_inline_texts or any(mark in block for mark in _INLINE_TEXT)
    if part.has_inline_texts:
        part.inline_bytes += len(_TAG.sub(b"", block))
    if b"<c" not in block and b":c" not in block:
        return  # no cell begins in this block
    part.has_uncommon_cells = part.has_uncommon_cells or _UNCOMMON_CELL.search(block) is not None
    missing = {_RIGHT_OF_P, _BELOW_99999, _RIGHT_OF_AZ, _BELOW_9999} - part.far
    part.far |= {pattern for pattern in missing if pattern.search(block)}
    part.shared_uses += block.count(b't="s"') + block.count(b"t='s'")
    part.has_errors = part.has_errors or b't="e"' in block or b"t='e'" in block


def _column_number(letters: str) -> int:
    """Return the number of a column; more than three letters give a number beyond the limit."""
    return column_index_from_string(letters.upper()) if len(letters) <= _MAX_COLUMN_LETTERS else MAX_CELLS + 1


def _blocks(file: IO[bytes], before: bytes = b"<") -> Iterator[bytes]:
    """Yield the content in blocks that end before a tag, so that no tag is cut in two."""
    rest = b""
    while block := file.read(_BLOCK):
        block = rest + block
        cut = block.rfind(before)
        if cut < 0 or len(block) - cut > _LONGEST_TAG:
            cut = len(block)
        yield block[:cut]
        rest = block[cut:]
    yield rest


def _last_cell(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Return the last row and the last column that hold something.

    A cell without an address is one to the right of the cell before.
    """
    row = column = last_row = last_column = 0

    def begin(tag: str, attributes: dict[str, str]) -> None:
        nonlocal row, column, last_row, last_column
        match tag.rpartition(":")[2]:
            case "row":
                given = attributes.get("r", "")
                row, column = int(given) if given.isdecimal() else row + 1, 0
            case "c":
                column += 1
                if placed := _ADDRESS.fullmatch(attributes.get("r", "")):
                    row, column = int(placed[2]), _column_number(placed[1])
            case "v" | "is" | "t":
                last_row, last_column = max(last_row, row), max(last_column, column)

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    with archive.open(info) as file:
        try:
            parser.ParseFile(file)
        except expat.ExpatError as error:
            raise zipfile.BadZipFile(f"{info.filename} is damaged: {error}") from None
    return last_row, last_column


def _total_text(archive: zipfile.ZipFile, parts: list[_Part]) -> int:
    """Return the bytes of all texts, counting each use of a shared text.

    If a quick upper bound is below the limit, return the bound.
    """
    written = sum(part.inline_bytes for part in parts)
    lengths = np.diff(max((part.shared_starts for part in parts), key=len))
    bound = written + int(lengths.max(initial=0)) * sum(part.shared_uses for part in parts)
    if bound <= MAX_TEXT:
        return bound
    for part in parts:
        if part.shared_uses:
            with archive.open(part.info) as file:
                for block in _blocks(file, before=b"<c "):
                    used = np.array(_SHARED_TEXT_INDEX.findall(block), dtype="S9").astype(np.int64)
                    written += int(lengths[used[used < len(lengths)]].sum())
    return written


def _sheet_names(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the name of each sheet by the name of its part; empty if the workbook's own list is damaged."""
    try:
        [rels] = [name for name in archive.namelist() if basename(name) == "workbook.xml.rels"]
        folder = dirname(dirname(rels))
        parts = {
            each.get("Id"): normpath(join("/", folder, each.get("Target", ""))).lstrip("/")
            for each in ElementTree.fromstring(archive.read(rels))
        }
        sheets = ElementTree.fromstring(archive.read(f"{folder}/workbook.xml")).iter()
        return {
            parts[value]: each.get("name", "")
            for each in sheets
            if each.tag.rpartition("}")[2] == "sheet"
            for name, value in each.attrib.items()
            if name.rpartition("}")[2] == "id" and value in parts
        }
    except (ElementTree.ParseError, KeyError, ValueError):
        return {}


def _error_cells(sheet: bytes) -> Iterator[ErrorCell]:
    for cell in _CELL.finditer(sheet):
        attributes, content = cell.groups()
        if not _ERROR_TYPE.search(attributes):
            continue
        place, value = _CELL_ADDRESS.search(attributes), _VALUE.search(content)
        if place and value:
            yield ErrorCell(
                int(place[2]), _column_number(place[1].decode()), value[1].decode("utf-8", errors="replace")
            )
