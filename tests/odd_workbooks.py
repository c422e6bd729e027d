"""Write unusual and damaged workbooks part by part, because a library would correct them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

Parts = dict[str, bytes]
Row = Sequence["Cell | str | float | None"]

TOPICS: list[Row] = [
    ["course_title", "lesson_num", "timestamp", "topic"],
    ["Clouds", 1, "0:00:00", "What clouds are"],
    ["Clouds", 1, "0:01:00", "How clouds form"],
    ["Clouds", "2A", "0:00:00", "Rain"],
]
LINES: list[Row] = [
    ["course_title", "lesson_num", "timestamp", "transcript"],
    ["Clouds", 1, "0:00:05", "look up"],
    ["Clouds", 1, "0:01:05", "air rises"],
    ["Clouds", "2A", "0:00:10", "it falls"],
]

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"

PLAIN, DATE, DURATION, CLOCK = range(4)
"""Styles of a number."""
_FORMATS = (0, 14, 46, 21)  # Excel's own: General, mm-dd-yy, [h]:mm:ss, h:mm:ss


@dataclass(frozen=True)
class Cell:
    """A cell of Excel. Without a value it shows nothing, even if it has a formula."""

    kind: str  # n, b, e, str, d, shared, inlineStr
    value: str
    style: int = PLAIN
    formula: str = ""


def number(value: float, style: int = PLAIN) -> Cell:
    return Cell("n", repr(value), style)


def sheet(rows: Sequence[Row], *, shared: list[str] | None = None, extra: str = "") -> bytes:
    """Return the XML of a sheet. With `shared`, texts are appended to that list of shared strings, as Excel does."""
    lines = []
    for n, row in enumerate(rows, start=1):
        cells = [_cell(f"{_letters(i)}{n}", cell, shared) for i, cell in enumerate(row) if cell is not None]
        lines.append(f'<row r="{n}">{"".join(cells)}</row>')
    return f'<worksheet xmlns="{_MAIN}"><sheetData>{"".join(lines)}</sheetData>{extra}</worksheet>'.encode()


def book(
    path: Path,
    topics: Sequence[Row] = TOPICS,
    lines: Sequence[Row] = LINES,
    *,
    names: Sequence[str] = ("lesson_topics", "lesson_transcripts"),
    more: dict[str, bytes] | None = None,
    date1904: bool = False,
    change: Callable[[Parts], object] = lambda parts: None,
) -> Path:
    """Write both sheets, and `more` sheets by name, to `path`; `change` edits the parts first."""
    shared: list[str] = []
    sheets = [sheet(topics, shared=shared), sheet(lines, shared=shared), *(more or {}).values()]
    parts = _parts([*names, *(more or {})], sheets, shared, date1904=date1904)
    change(parts)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def within(part: str, old: str, new: str) -> Callable[[Parts], None]:
    """Replace the first `old` in a part by `new`."""

    def change(parts: Parts) -> None:
        assert old.encode() in parts[part]
        parts[part] = parts[part].replace(old.encode(), new.encode(), 1)

    return change


def without(part: str) -> Callable[[Parts], object]:
    return lambda parts: parts.pop(part)


FIRST, SECOND, STRINGS, BOOK = (
    "xl/worksheets/sheet1.xml",
    "xl/worksheets/sheet2.xml",
    "xl/sharedStrings.xml",
    "xl/workbook.xml",
)


def _parts(names: Sequence[str], sheets: Sequence[bytes], shared: Sequence[str], *, date1904: bool) -> Parts:
    numbered = list(enumerate(names, start=1))
    listed = "".join(f'<sheet name={quoteattr(name)} sheetId="{n}" r:id="rId{n}"/>' for n, name in numbered)
    related = "".join(_relation(f"rId{n}", "worksheet", f"worksheets/sheet{n}.xml") for n, _ in numbered)
    related += _relation("strings", "sharedStrings", "sharedStrings.xml") + _relation("styles", "styles", "styles.xml")
    kinds = {f"/xl/worksheets/sheet{n}.xml": "worksheet" for n, _ in numbered}
    kinds |= {"/xl/workbook.xml": "sheet.main", "/xl/sharedStrings.xml": "sharedStrings", "/xl/styles.xml": "styles"}
    overrides = "".join(f'<Override PartName="{at}" ContentType="{_TYPE}.{kind}+xml"/>' for at, kind in kinds.items())
    formats = "".join(f'<xf numFmtId="{number}" applyNumberFormat="1"/>' for number in _FORMATS)
    return {
        "[Content_Types].xml": (
            f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
            f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Default Extension="xml" ContentType="application/xml"/>{overrides}</Types>'
        ).encode(),
        "_rels/.rels": _relations(_relation("rId1", "officeDocument", BOOK)),
        BOOK: (
            f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><workbookPr date1904="{int(date1904)}"/>'
            f"<sheets>{listed}</sheets></workbook>"
        ).encode(),
        "xl/_rels/workbook.xml.rels": _relations(related),
        "xl/styles.xml": (
            f'<styleSheet xmlns="{_MAIN}"><fonts count="1"><font/></fonts>'
            f'<fills count="1"><fill><patternFill/></fill></fills>'
            f'<borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs>'
            f'<cellXfs count="{len(_FORMATS)}">{formats}</cellXfs></styleSheet>'
        ).encode(),
        **{f"xl/worksheets/sheet{n}.xml": content for n, content in enumerate(sheets, start=1)},
        STRINGS: f'<sst xmlns="{_MAIN}">{"".join(map(_shared_text, shared))}</sst>'.encode(),
    }


def _relation(name: str, kind: str, target: str) -> str:
    return f'<Relationship Id="{name}" Type="{_OFFICE}/{kind}" Target="{target}"/>'


def _relations(listed: str) -> bytes:
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{listed}</Relationships>'.encode()


def _shared_text(text: str) -> str:
    return f'<si><t xml:space="preserve">{_xml(text)}</t></si>'


def _cell(at: str, cell: Cell | str | float, shared: list[str] | None) -> str:
    if isinstance(cell, str):
        cell = Cell("shared" if shared is not None else "inlineStr", cell)
    elif not isinstance(cell, Cell):
        cell = number(cell)
    if cell.kind == "inlineStr":
        return f'<c r="{at}" t="inlineStr"><is><t xml:space="preserve">{_xml(cell.value)}</t></is></c>'
    value = cell.value
    kind = cell.kind
    if kind == "shared":
        shared.append(value)
        kind, value = "s", str(len(shared) - 1)
    formula = f"<f>{_xml(cell.formula)}</f>" if cell.formula else ""
    shown = f"<v>{_xml(value)}</v>" if value or kind == "str" else ""
    return f'<c r="{at}" s="{cell.style}" t="{kind}">{formula}{shown}</c>'


def _xml(text: str) -> str:
    """Escape a text for XML; characters that XML cannot hold are written as Excel does: _x0001_."""
    text = re.sub(r"(?=_x[0-9A-Fa-f]{4}_)", "_x005F", text)
    odd = r"[\x00-\x08\x0b-\x1f\ufffe\uffff\ud800-\udfff]"
    return escape(re.sub(odd, lambda found: f"_x{ord(found[0]):04X}_", text))


def _letters(position: int) -> str:
    letters = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
