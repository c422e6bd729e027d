"""Unusual and damaged workbooks: how to make each, and the errors that it must give."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.odd_workbooks import (
    BOOK,
    CLOCK,
    DATE,
    DURATION,
    FIRST,
    LINES,
    SECOND,
    STRINGS,
    TOPICS,
    Cell,
    Parts,
    book,
    number,
    sheet,
    within,
    without,
)


class Odd(NamedTuple):
    """An unusual workbook.

    Attributes:
        make: writes the workbook to a folder and returns its path.
        kinds: the expected errors: kind, sheet and row of each; empty for a valid workbook.
        fits_a_sheet: whether cells of Excel can hold its content, so that it can be written as a titled workbook.
    """

    make: Callable[[Path], Path]
    kinds: list[tuple[str, str | None, int | None]] = []
    fits_a_sheet: bool = True


def _with_topic(*row: Cell | str | float | None) -> Callable[[Path], Path]:
    """Add a fourth topic, on row 5, and a line for it."""
    lines = [*LINES, ["Clouds", "2A", "1:40:00", "and snow"]]
    return lambda folder: book(folder / "odd.xlsx", [*TOPICS, list(row)], lines)


def _topic(title: Cell | str | float) -> Callable[[Path], Path]:
    return _with_topic("Clouds", "2A", "1:30:00", title)


def _at(time: Cell | str | float) -> Callable[[Path], Path]:
    return _with_topic("Clouds", "2A", time, "Snow")


def _changed(*changes: Callable[[Parts], object], **how: object) -> Callable[[Path], Path]:
    def change(parts: Parts) -> None:
        for each in changes:
            each(parts)

    return lambda folder: book(folder / "odd.xlsx", change=change, **how)


def _raw(part: str, old: bytes, new: bytes) -> Callable[[Parts], object]:
    return lambda parts: parts.update({part: re.sub(old, new, parts[part])})


def _bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _cut(share: float) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        content = book(folder / "odd.xlsx").read_bytes()
        (folder / "odd.xlsx").write_bytes(content[: int(len(content) * share)])
        return folder / "odd.xlsx"

    return make


def _zip(**parts: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "odd.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        return folder / "odd.xlsx"

    return make


def _claiming(part: str, size: int) -> Callable[[Path], Path]:
    """Add a part for which the archive's directory states a false size."""

    def make(folder: Path) -> Path:
        path = book(folder / "odd.xlsx")
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(part, b"x")
            archive.getinfo(part).file_size = size
        return path

    return make


def _repeated_text(folder: Path) -> Path:
    """Use a text of a million letters in 100,000 cells: a small file, but 100 GB of text."""
    text = within(STRINGS, ">look up<", f">{'x' * 1_000_000}<")
    cell = '<row r="{0}"><c r="A{0}" t="s"><v>0</v></c><c r="D{0}" t="s"><v>20</v></c></row>'
    rows = "".join(cell.format(n) for n in range(5, 100_005))
    return book(
        folder / "odd.xlsx",
        change=lambda parts: (text(parts), within(SECOND, "</sheetData>", f"{rows}</sheetData>")(parts)),
    )


def _encrypted_entry(folder: Path) -> Path:
    """Set the flag of an encrypted entry, which Excel never sets."""
    path = book(folder / "odd.xlsx")
    content = bytearray(path.read_bytes())
    for mark, flag in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = -1
        while (at := content.find(mark, at + 1)) >= 0:
            content[at + flag] |= 1
    path.write_bytes(content)
    return path


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "odd.xlsx")
    return folder / "odd.xlsx"


def _csv(topics: bytes, lines: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "tables").mkdir()
        (folder / "tables" / "lesson_topics.csv").write_bytes(topics)
        (folder / "tables" / "lesson_transcripts.csv").write_bytes(lines)
        return folder / "tables"

    return make


_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
_HEAD_T, _HEAD_L = b"course_title,lesson_num,timestamp,topic\n", b"course_title,lesson_num,timestamp,transcript\n"
_FAR = '<c r="XFD1048576"><v>1</v></c>'
_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def _declaring(part: str, declared: str) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts[part] = f"<!DOCTYPE x [{declared}]>".encode() + parts[part].replace(b">look up<", b">&e;<")

    return change


T, L = "lesson_topics", "lesson_transcripts"
FILE = [("not a workbook", None, None)]

ODDITIES: dict[str, Odd] = {
    # Cells of every type.
    "a title that is a number": Odd(_topic(42)),
    "a title that is a date": Odd(_topic(number(45000, DATE))),
    "a title that is a duration": Odd(_topic(number(0.25, DURATION))),
    "a title that is true": Odd(_topic(Cell("b", "1"))),
    "a title of emoji": Odd(_topic("🎉👩‍👩‍👧‍👦 \U0001f1e9\U0001f1ea")),
    "a title from right to left": Odd(_topic("\u202eמה הם עננים\u202c و أمطار")),
    "a title of combining marks": Odd(_topic("e\u0301" + "\u0335" * 500)),
    "a title with control characters": Odd(_topic("a\x00b\x07c\x1b[2Jd\x7fe")),
    "a title with half a surrogate pair": Odd(_topic("a\ud83db")),
    "a title that looks escaped": Odd(_topic("_x0041_ _xZZZZ_")),
    "a title of markup": Odd(_topic("<script>alert(1)</script> & [bold]x[/bold] {{7*7}} $(touch x) `x` ; rm -rf x")),
    "a title that is a formula": Odd(_topic("=cmd|' /C calc'!A0")),
    "a title of 32,767 characters": Odd(_topic("x" * 32_767)),
    "a title of unusual spaces": Odd(_topic("\u00a0\u2003\u200a"), [("empty title", T, 5)]),
    "a title of zero-width characters": Odd(_topic("\u200b\ufeff")),
    "a title with the result of a formula": Odd(_topic(Cell("str", "Snow", formula='"Sn"&"ow"'))),
    "a formula without its result": Odd(_topic(Cell("n", "", formula="A1")), [("empty title", T, 5)]),
    "a formula with an empty result": Odd(_topic(Cell("str", "", formula="A1")), [("empty title", T, 5)]),
    "a title that is #N/A": Odd(_topic(Cell("e", "#N/A", formula="NA()")), [("error cell", T, 5)]),
    "a title that is #REF!": Odd(_topic(Cell("e", "#REF!")), [("error cell", T, 5)]),
    "a course that is #NAME?": Odd(_with_topic(Cell("e", "#NAME?"), "2A", "1:30:00", "x"), [("error cell", T, 5)]),
    "a time that is #VALUE!": Odd(_at(Cell("e", "#VALUE!")), [("bad timestamp", T, 5)]),
    "a lesson of 300 digits": Odd(_with_topic("Clouds", number(1e300), "1:30:00", "x")),
    "a course of 32,767 characters": Odd(_with_topic("y" * 32_767, 1, "1:30:00", "x")),
    # Times.
    "a duration": Odd(_at(number(1 / 16, DURATION))),
    "a time of day": Odd(_at(number(1 / 16, CLOCK))),
    "a duration over a day": Odd(_at(number(1.5, DURATION))),
    "a time in 1904 mode": Odd(
        lambda folder: book(
            folder / "odd.xlsx", TOPICS, [*LINES, ["Clouds", "2A", number(1 / 16, CLOCK), "x"]], date1904=True
        )
    ),
    "a duration in 1904 mode": Odd(
        lambda folder: book(
            folder / "odd.xlsx", TOPICS, [*LINES, ["Clouds", "2A", number(1.5, DURATION), "x"]], date1904=True
        )
    ),
    "a time below zero": Odd(_at(number(-5 / 86400, CLOCK)), [("negative time", T, 5)]),
    "a date": Odd(_at(number(45000, DATE)), [("bad timestamp", T, 5)]),
    "a date in ISO format": Odd(_at(Cell("d", "2024-05-01T10:00:00")), [("bad timestamp", T, 5)]),
    "a time that is too long": Odd(_at(number(1e300)), [("bad timestamp", T, 5)]),
    "a duration out of range": Odd(_at(number(1e300, DURATION)), [("damaged row", T, 5)]),
    "a time that is true": Odd(_at(Cell("b", "1")), [("bad timestamp", T, 5)]),
    "a blank time": Odd(_at(" "), [("empty timestamp", T, 5)]),
    # Shape.
    "sheet names in another case": Odd(_changed(names=("LESSON_topics ", " Lesson_Transcripts"))),
    "hidden rows, columns and sheets, and a filter": Odd(
        _changed(
            within(BOOK, 'sheetId="2"', 'sheetId="2" state="veryHidden"'),
            within(FIRST, '<row r="3"', '<row r="3" hidden="1"'),
            within(FIRST, "<sheetData>", '<cols><col min="4" max="4" hidden="1"/></cols><sheetData>'),
            within(FIRST, "</sheetData>", '</sheetData><autoFilter ref="A1:D4"/>'),
        )
    ),
    "merged cells": Odd(
        lambda folder: book(
            folder / "odd.xlsx",
            [*TOPICS, [None, None, "1:30:00", "Snow"]],
            change=within(
                FIRST, "</sheetData>", '</sheetData><mergeCells count="1"><mergeCell ref="A4:B5"/></mergeCells>'
            ),
        ),
        [("empty course", T, 5), ("empty lesson", T, 5)],
    ),
    "a link to another workbook": Odd(
        _changed(
            within(
                "xl/_rels/workbook.xml.rels",
                "</Relationships>",
                (
                    '<Relationship Id="x" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
                    'externalLink" Target="file:///etc/passwd" TargetMode="External"/></Relationships>'
                ),
            ),
        )
    ),
    "two sheets with one name": Odd(
        lambda folder: book(folder / "odd.xlsx", more={"Lesson_Topics": sheet(TOPICS)}), [("duplicate sheet", T, None)]
    ),
    "a thousand other sheets": Odd(
        lambda folder: book(folder / "odd.xlsx", more={f"notes {n}": sheet([["x"]]) for n in range(1000)})
    ),
    "a duplicate header": Odd(
        lambda folder: book(folder / "odd.xlsx", [[*TOPICS[0], "Topic "], *TOPICS[1:]]), [("duplicate column", T, 1)]
    ),
    "blank and unused headers in between": Odd(
        lambda folder: book(folder / "odd.xlsx", [[r[0], None, r[1], " ", *r[2:], None, "notes"] for r in TOPICS])
    ),
    "no header": Odd(lambda folder: book(folder / "odd.xlsx", TOPICS[1:]), [("missing column", T, 1)] * 4),
    "only a header": Odd(lambda folder: book(folder / "odd.xlsx", TOPICS[:1]), [("no rows", T, None)]),
    "sheets without a cell": Odd(
        lambda folder: book(folder / "odd.xlsx", [], []),
        [
            *[("missing column", T, 1)] * 4,
            *[("missing column", L, 1)] * 4,
        ],
    ),
    "cells without addresses": Odd(_changed(_raw(FIRST, rb' r="[A-Z]*\d+"', b""))),
    "a header in 16,384 columns": Odd(
        lambda folder: book(folder / "odd.xlsx", [[*TOPICS[0], *(f"note {n}" for n in range(16_380))], *TOPICS[1:]])
    ),
    # Too large, or malicious.
    "a cell in the last column of the last row": Odd(
        _changed(within(FIRST, "</sheetData>", f'<row r="1048576">{_FAR}</row></sheetData>')), [("too large", T, None)]
    ),
    "a far cell in unusual XML": Odd(
        _changed(
            within(FIRST, "</sheetData>", "<row r='1048576'><c t='n' r='XFD1048576'><v>1</v></c></row></sheetData>")
        ),
        [("too large", T, None)],
    ),
    "a cell in column Z, and one in the last row": Odd(
        _changed(
            within(FIRST, '<row r="4">', '<row r="3"><c r="Z3"><v>1</v></c></row><row r="4">'),
            within(FIRST, "</sheetData>", '<row r="1048576"><c r="A1048576"><v>1</v></c></row></sheetData>'),
        ),
        [("too large", T, None)],
    ),
    "a cell in column BA, and one in row 400,000": Odd(
        _changed(
            within(FIRST, '<row r="4">', '<row r="3"><c r="BA3"><v>1</v></c></row><row r="4">'),
            within(FIRST, "</sheetData>", '<row r="400000"><c r="A400000"><v>1</v></c></row></sheetData>'),
        ),
        [("too large", T, None)],
    ),
    "a cell beyond Excel's last row": Odd(
        _changed(within(FIRST, '<row r="4">', '<row r="4294967294"><c r="A4294967294"><v>1</v></c></row><row r="4">')),
        [("too large", T, None)],
    ),
    "a cell beyond all columns": Odd(
        _changed(within(FIRST, "</sheetData>", '<row r="9"><c r="ZZZZZZZ9"><v>1</v></c></row></sheetData>')),
        [("too large", T, None)],
    ),
    "a styled empty cell in the last column of the last row": Odd(
        _changed(within(FIRST, "</sheetData>", '<row r="1048576"><c r="XFD1048576" s="1"/></row></sheetData>'))
    ),
    "a text of a million letters, a hundred thousand times": Odd(_repeated_text, [("too large", None, None)]),
    "an archive that is larger than memory": Odd(
        _claiming("xl/media/image1.png", 3 << 30), [("too large", None, None)]
    ),
    "a part with a false size": Odd(_claiming("xl/theme.xml", 0), FILE),
    "ten thousand parts": Odd(_zip(**{f"a{n}": b"" for n in range(10_001)}), [("too large", None, None)]),
    "a billion laughs": Odd(_changed(_declaring(STRINGS, f'<!ENTITY l0 "ha">{_LAUGHS}<!ENTITY e "&l9;">')), FILE),
    "an entity that names a file": Odd(_changed(_declaring(STRINGS, '<!ENTITY e SYSTEM "file:///etc/passwd">')), FILE),
    "an entity in the workbook's part": Odd(_changed(_declaring(BOOK, '<!ENTITY e "x">')), FILE),
    # Damaged.
    "an encrypted entry": Odd(_encrypted_entry, FILE),
    "cut at a tenth": Odd(_cut(0.1), FILE),
    "cut at a half": Odd(_cut(0.5), FILE),
    "cut by a byte": Odd(_cut(0.999), FILE),
    "an empty archive": Odd(_zip(), FILE),
    "an archive of a text document": Odd(_zip(**{"word/document.xml": b"<x/>"}), FILE),
    "a missing sheet part": Odd(_changed(without(SECOND)), [("damaged sheet", L, None)]),
    "a missing workbook part": Odd(_changed(without(BOOK)), [("missing sheet", T, None), ("missing sheet", L, None)]),
    "missing shared strings": Odd(_changed(without(STRINGS)), [("damaged sheet", T, None), ("damaged sheet", L, None)]),
    "a missing shared string": Odd(_changed(within(FIRST, "<v>0</v>", "<v>99999</v>")), [("damaged sheet", T, None)]),
    "truncated XML": Odd(_changed(within(SECOND, "</sheetData>", "<row r=")), [("damaged sheet", L, None)]),
    "text that is not UTF-8": Odd(
        _changed(lambda parts: parts.update({STRINGS: parts[STRINGS].replace(b"look", b"\xff\xfe")})), FILE
    ),
    "XML in UTF-16": Odd(
        _changed(lambda parts: parts.update({FIRST: parts[FIRST].decode().encode("utf-16")})),
        [*[("missing column", T, 1)] * 4],
    ),
    # Other formats.
    "an empty file": Odd(_bytes("odd.xlsx", b""), [("empty file", None, None)]),
    "a CSV with the suffix .xlsx": Odd(_bytes("odd.xlsx", _HEAD_T + b"A,1,0,x\n"), FILE),
    "an .xls": Odd(_bytes("odd.xls", bytes.fromhex("D0CF11E0A1B11AE1") + bytes(4096)), FILE),
    "an .xls with the suffix .xlsx": Odd(_bytes("odd.xlsx", bytes.fromhex("D0CF11E0A1B11AE1") + bytes(4096)), FILE),
    "an .xlsb": Odd(_zip(**{"xl/workbook.bin": b"x"}), FILE),
    "an .ods": Odd(_zip(**{"mimetype": b"x", "content.xml": b"<x/>"}), FILE),
    "a password": Odd(
        _bytes("odd.xlsx", bytes.fromhex("D0CF11E0A1B11AE1") + bytes(600) + "EncryptedPackage".encode("utf-16-le")),
        [("password", None, None)],
    ),
    "an .xlsm": Odd(
        lambda folder: book(folder / "odd.xlsm", change=lambda parts: parts.update({"xl/vbaProject.bin": b"x"}))
    ),
    "a file name with shell commands": Odd(
        lambda folder: book(folder / "; rm -rf x $(touch y) `z` 'q\" \u202e🎉.xlsx")
    ),
    "an image": Odd(_bytes("odd.xlsx", b"\x89PNG\r\n\x1a\n" + bytes(1000)), FILE),
    # Folders of tables.
    "a CSV of formulas and control characters": Odd(
        _csv(_HEAD_T + b"=1+1,1,0,@x\n", _HEAD_L + b"=1+1,1,1,-cmd\x00\x1b[2J\n")
    ),
    "a CSV of Excel's errors": Odd(
        _csv(_HEAD_T + b"A,1,0,#N/A\n", _HEAD_L + b"A,1,1,x\n"), [("error cell", "lesson_topics.csv", 2)]
    ),
    "a CSV in UTF-16": Odd(
        _csv((_HEAD_T + b"A,1,0,x\n").decode().encode("utf-16"), _HEAD_L + b"A,1,1,x\n"),
    ),
    "a CSV with an open quotation mark": Odd(
        _csv(_HEAD_T + b'A,1,0,"x\n', _HEAD_L + b"A,1,1,x\n"), [("not a table", "lesson_topics.csv", None)]
    ),
    "a CSV of one line of ten million letters": Odd(
        _csv(_HEAD_T + b"A,1,0,x\n", _HEAD_L + b"A,1,1," + b"x" * 10_000_000), fits_a_sheet=False
    ),
    "a CSV with old line ends": Odd(
        _csv((_HEAD_T + b"A,1,0,x\n").replace(b"\n", b"\r"), (_HEAD_L + b"A,1,1,x\n").replace(b"\n", b"\r\n"))
    ),
    "a CSV with more columns than Excel can name": Odd(
        _csv(
            _HEAD_T.strip()
            + b","
            + b",".join(b"n%d" % n for n in range(18_300))
            + b"\nA,1,0,x"
            + b"," * 18_300
            + b"\n",
            _HEAD_L + b"A,1,1,x\n",
        )
    ),
    "a CSV with a row that is too long": Odd(
        _csv(_HEAD_T + b"A,1,0,x\n", _HEAD_L + b"A,1,1,x,y,z\nA,1,2,w\n"),
        [("too many cells", "lesson_transcripts.csv", 2)],
    ),
    "a CSV of zero bytes": Odd(
        _csv(bytes(5000), _HEAD_L + b"A,1,1,x\n"), [("missing column", "lesson_topics.csv", 1)] * 4
    ),
}

NO_FILE: dict[str, Callable[[Path], Path]] = {
    "a pipe": _pipe,
    "a device": lambda _: Path("/dev/zero"),
    "a name that is too long": lambda folder: folder / ("x" * 5000),
    "a name with a zero byte": lambda folder: folder / "x\0y.xlsx",
    "a name that is not Unicode": lambda folder: folder / "\udcff.xlsx",
}
