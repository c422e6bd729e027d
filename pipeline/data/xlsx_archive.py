"""The archive that an .xlsx is, looked through before anything in it is believed.

Its reader makes a grid as wide and as long as a sheet's outermost cells, and writes out each shared text as often as it
is used: a few kilobytes can ask for more memory than there is, of which a process dies without a word.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import basename, dirname, join, normpath
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from openpyxl.utils import column_index_from_string, get_column_letter

from pipeline.data.problems import Problem

UNPACKED = 1 << 30  # bytes; two sheets as long as Excel has them, of lines as they are spoken, have a third of it
CELLS = 17_000_000  # of a sheet's grid: 16 columns down to Excel's last row
TEXT = 250_000_000  # bytes of all texts, a shared one as often as it is used; reading takes six times as many
LONGEST = 100_000_000  # bytes of one text, of which Excel's longest has a thousandth
PARTS = 10_000

_BLOCK = 1 << 20
_LONGEST_TAG = 1 << 16
_LETTERS = 3  # of a column: XFD is Excel's last
# A cell that is not, as nearly all are, written <c r="D17" ...>, its column of one or two letters, its row of Excel.
_UNCOMMON_CELL = re.compile(rb'<c(?: (?!r="[A-Z]{1,2}(?:\d{1,6}|10[0-4]\d{4})")|[\t\r\n>/])|<\w+:c[\s/>]')
# Of those, ones that reach too far where a sheet has both: right of P and below 99,999, or right of AZ and below 9,999.
_WIDE, _LOWEST = re.compile(rb'<c r="(?:[Q-Z]|[A-Z]{2})\d'), re.compile(rb'<c r="[A-Z]{1,2}\d{6}')
_WIDER, _LOW = re.compile(rb'<c r="[B-Z][A-Z]\d'), re.compile(rb'<c r="[A-Z]{1,2}\d{5}')
_SHARED = re.compile(rb"<(?:\w+:)?c(?=\s)(?=[^<>]*\st=[\"']s[\"'])[^<>]*+>\s*+<(?:\w+:)?v(?=[\s>])[^<>]*+>(\d{1,9})<")
_SHARED_TEXT, _PREFIXED_SHARED_TEXT = re.compile(rb"<si[\s/>]"), re.compile(rb"<(?:\w+:)?si[\s/>]")
# A cell's attributes and content, which ends at the next cell at the latest, so that nothing is looked through twice.
_CELL = re.compile(rb"<(?:\w+:)?c(\s[^<>]*+)>((?:[^<]++|<(?!/?(?:\w+:)?c[\s/>]))*+)</(?:\w+:)?c>")
_OF_AN_ERROR = re.compile(rb"\st=[\"']e[\"']")
_TAG = re.compile(rb"<[^<>]*>")
_VALUE = re.compile(rb"<(?:\w+:)?v[^<>]*>([^<]*)<")
_ADDRESS = re.compile(r"([A-Za-z]+)(\d+)")
_PLACE = re.compile(rb"\sr=[\"']([A-Za-z]{1,3})(\d+)[\"']")
_OWN_TEXT = (b"inlineStr", b't="str"', b"t='str'")
_OF_OTHERS = {"xl/workbook.bin", "content.xml"}
_XML = (".xml", ".rels", ".vml")


class Unfit(Exception):
    """The archive is not to be read; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True)
class ErrorCell:
    """A cell that shows an error, such as #N/A; row and column are counted from 1."""

    row: int
    column: int
    shows: str


@dataclass(frozen=True)
class Archive:
    """What calamine leaves out. `below_zero`: whether some cell holds a number below zero."""

    errors: dict[str, list[ErrorCell]]  # by the sheet's name
    below_zero: bool


@dataclass
class _Part:
    """What was seen in one part of the archive."""

    info: zipfile.ZipInfo
    uncommon: bool = False  # whether it has cells that may reach too far, each by itself,
    far: set[re.Pattern[bytes]] = field(default_factory=set)  # or two together: the kinds of those that it has
    shared: int = 0  # cells with a shared text
    own_texts: bool = False  # whether it has texts that stand in their cells
    written: int = 0  # bytes of these
    below_zero: bool = False
    errors: bool = False
    texts: list[int] = field(default_factory=list)  # where each shared text begins

    @property
    def may_reach_too_far(self) -> bool:
        return self.uncommon or {_WIDE, _LOWEST} <= self.far or {_WIDER, _LOW} <= self.far


def look_through(path: Path) -> Archive:
    """Reads all of the archive at `path` once, and keeps nothing of it.

    Raises:
        Unfit: it is too large for its purpose, or declares XML entities, as no spreadsheet does.
        zipfile.BadZipFile, and what else the standard library raises for an archive that is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > UNPACKED or len(archive.infolist()) > PARTS:
            what = f"is {unpacked / 1e9:,.1f} GB in {len(archive.infolist()):,} parts once it is unpacked"
            raise Unfit(_problem(path, "too large", what, "Save both tables as CSV or Parquet, in a folder."))
        if not _OF_OTHERS.isdisjoint(archive.namelist()):
            raise Unfit(_problem(path, "not a workbook", "is an .xlsb or .ods workbook", "Save it as .xlsx."))
        if not archive.infolist():
            raise zipfile.BadZipFile("there is nothing in it")
        parts = [_seen(archive, info, path) for info in archive.infolist()]
        names = _sheet_names(archive)
        for part in parts:
            rows, columns = _reach(archive, part.info) if part.may_reach_too_far else (0, 0)
            if rows * columns > CELLS:
                raise Unfit(_too_far(names.get(part.info.filename, part.info.filename), rows, columns))
        texts = _texts_written_out(archive, parts)
        if texts > TEXT:
            what = f"has {texts / 1e6:,.0f} MB of texts, with those that it repeats"
            raise Unfit(_problem(path, "too large", what, "Save both tables as CSV or Parquet, in a folder."))
        errors = {
            names[part.info.filename]: list(_errors(archive.read(part.info)))
            for part in parts
            if part.errors and part.info.filename in names
        }
        return Archive(errors, any(part.below_zero for part in parts))


def _problem(path: Path, kind: str, what: str, remedy: str) -> Problem:
    return Problem("error", kind, None, None, None, f"{path.name} {what}.", remedy)


def _too_far(sheet: str, rows: int, columns: int) -> Problem:
    reach = f"row {rows:,}" + (f", column {get_column_letter(columns)}" if columns < CELLS else "")
    message = f"Its cells reach as far as {reach}, which is more than a table of topics or lines can have."
    remedy = "In Excel, delete the rows and columns beyond your own (Ctrl-End goes to the last one), and save."
    return Problem("error", "too large", sheet, None, None, message, remedy)


def _seen(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> _Part:
    part = _Part(info)
    is_xml = info.filename.lower().endswith(_XML)
    with archive.open(info) as file:  # which also holds the part against its check sum
        at = tag = 0
        for block in _blocks(file):
            if is_xml:
                tag = at + last if (last := block.rfind(b"<")) >= 0 else tag
                if at + len(block) - tag > LONGEST:
                    what = f"holds a text of more than {LONGEST / 1e6:.0f} MB ({info.filename})"
                    raise Unfit(_problem(path, "too large", what, "Save it anew from Excel as .xlsx."))
                if b"<!DOCTYPE" in block or b"<!ENTITY" in block:
                    what = f"declares XML entities ({info.filename}), as no spreadsheet does"
                    raise Unfit(_problem(path, "not a workbook", what, "Save it anew from Excel as .xlsx."))
                _look_at(part, block, at)
            at += len(block)
    part.texts.append(at)
    return part


def _look_at(part: _Part, block: bytes, at: int) -> None:
    shared_text = _PREFIXED_SHARED_TEXT if b":si" in block else _SHARED_TEXT
    part.texts += [at + found.start() for found in shared_text.finditer(block)]
    part.below_zero = part.below_zero or b"v>-" in block
    part.own_texts = part.own_texts or any(mark in block for mark in _OWN_TEXT)
    if part.own_texts:
        part.written += len(_TAG.sub(b"", block))
    if b"<c" not in block and b":c" not in block:
        return  # no cell begins in it
    part.uncommon = part.uncommon or _UNCOMMON_CELL.search(block) is not None
    part.far |= {kind for kind in {_WIDE, _LOWEST, _WIDER, _LOW} - part.far if kind.search(block)}
    part.shared += block.count(b't="s"') + block.count(b"t='s'")
    part.errors = part.errors or b't="e"' in block or b"t='e'" in block


def _number(letters: str) -> int:
    """The column's; beyond three letters, only that it is too far."""
    return column_index_from_string(letters.upper()) if len(letters) <= _LETTERS else CELLS + 1


def _blocks(file: zipfile.ZipExtFile, before: bytes = b"<") -> Iterator[bytes]:
    """The content in blocks that end ahead of a tag, so that none is cut in two."""
    rest = b""
    while block := file.read(_BLOCK):
        block = rest + block
        cut = block.rfind(before)
        if cut < 0 or len(block) - cut > _LONGEST_TAG:
            cut = len(block)
        yield block[:cut]
        rest = block[cut:]
    yield rest


def _reach(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, int]:
    """The last row and column of a sheet that hold something; a cell that does not say where it is stands right of the
    one before."""
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
                    row, column = int(placed[2]), _number(placed[1])
            case "v" | "is" | "t":
                last_row, last_column = max(last_row, row), max(last_column, column)

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    with archive.open(info) as file:
        try:
            parser.ParseFile(file)
        except expat.ExpatError as error:
            raise zipfile.BadZipFile(f"{info.filename} in it is damaged: {error}") from None
    return last_row, last_column


def _texts_written_out(archive: zipfile.ZipFile, parts: list[_Part]) -> int:
    """Bytes of all texts, a shared one as often as it is used; at most so many, where even this is little enough."""
    written = sum(part.written for part in parts)
    lengths = np.diff(max((part.texts for part in parts), key=len))
    most = written + int(lengths.max(initial=0)) * sum(part.shared for part in parts)
    if most <= TEXT:
        return most
    for part in parts:
        if part.shared:
            with archive.open(part.info) as file:
                for block in _blocks(file, before=b"<c "):
                    used = np.array(_SHARED.findall(block), dtype="S9").astype(np.int64)
                    written += int(lengths[used[used < len(lengths)]].sum())
    return written


def _sheet_names(archive: zipfile.ZipFile) -> dict[str, str]:
    """The sheet's name by the name of its part; none where the workbook does not say it as it should."""
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


def _errors(sheet: bytes) -> Iterator[ErrorCell]:
    for cell in _CELL.finditer(sheet):
        attributes, content = cell.groups()
        if not _OF_AN_ERROR.search(attributes):
            continue
        place, value = _PLACE.search(attributes), _VALUE.search(content)
        if place and value:
            yield ErrorCell(int(place[2]), _number(place[1].decode()), value[1].decode("utf-8", errors="replace"))
