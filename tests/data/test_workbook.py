"""Read workbooks, and report everything that is wrong with them."""

from __future__ import annotations

import datetime as dt
import os
import zipfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl.worksheet.worksheet import Worksheet
from rich.console import Console

from pipeline.data.problems import (
    MAX_LISTED,
    MAX_SHOWN,
    Problem,
    WorkbookRejected,
    as_block,
    as_json,
    as_table,
    by_kind,
    summary,
)
from pipeline.data.workbook import SET_ASIDE_HINT, Workbook, ingest, read_workbook
from pipeline.data.workbook_files import write_workbook
from pipeline.errors import UsageError

TOPICS = [
    ["course_title", "lesson_num", "timestamp", "topic"],
    ["Clouds", 1, "0:00:00", "What clouds are"],
    ["Clouds", 1, "0:01:00", "How clouds form"],
    ["Clouds", "2A", "0:00:00", "Rain"],
]
LINES = [
    ["course_title", "lesson_num", "timestamp", "transcript"],
    ["Clouds", 1, "0:00:05", "look up"],
    ["Clouds", 1, "0:01:05", "air rises"],
    ["Clouds", "2A", "0:00:10", "it falls"],
]
Break = Callable[[Worksheet, Worksheet], None]


def nothing(topics: Worksheet, lines: Worksheet) -> None:
    """Leave the workbook unchanged."""


def workbook(folder: Path, change: Break = nothing) -> Path:
    """Write a small valid workbook, changed by `change`."""
    book = openpyxl.Workbook()
    topics, lines = book.active, book.create_sheet("lesson_transcripts")
    topics.title = "lesson_topics"
    for sheet, rows in ((topics, TOPICS), (lines, LINES)):
        for row in rows:
            sheet.append(row)
    change(topics, lines)
    book.save(folder / "talks.xlsx")
    return folder / "talks.xlsx"


def problems(path: Path) -> list[tuple[str, str, str | None, int | None, str | None]]:
    """Return the problems of a workbook without messages and remedies."""
    return [(p.severity, p.kind, p.sheet, p.row, p.column) for p in read_workbook(path).problems]


def frames(read: Workbook) -> tuple[list[list[object]], list[list[object]]]:
    return read.topics.to_numpy().tolist(), read.lines.to_numpy().tolist()


def set_cell(sheet: str, cell: str, value: object, number_format: str | None = None) -> Break:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        target = {"topics": topics, "lines": lines}[sheet][cell]
        target.value = value
        if number_format:
            target.number_format = number_format

    return change


def test_a_valid_workbook_becomes_two_tables_without_problems(tmp_path: Path) -> None:
    read = read_workbook(workbook(tmp_path))
    assert frames(read) == (
        [
            ["Clouds", "1", 0.0, "What clouds are", 2],
            ["Clouds", "1", 60.0, "How clouds form", 3],
            ["Clouds", "2A", 0.0, "Rain", 4],
        ],
        [
            ["Clouds", "1", 5.0, "look up", 2],
            ["Clouds", "1", 65.0, "air rises", 3],
            ["Clouds", "2A", 10.0, "it falls", 4],
        ],
    )
    assert read.problems == []


@pytest.mark.parametrize("kind", ["csv", "csv with a byte order mark", "csv with semicolons", "parquet", "both"])
def test_a_folder_of_tables_gives_the_same_tables_as_a_workbook(tmp_path: Path, kind: str) -> None:
    expected = frames(read_workbook(workbook(tmp_path)))
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, rows in (("lesson_topics", TOPICS), ("lesson_transcripts", LINES)):
        table = pd.DataFrame(rows[1:], columns=rows[0]).astype({"lesson_num": "str"})
        if kind == "parquet" or (kind == "both" and name == "lesson_topics"):
            table.to_parquet(folder / f"{name}.parquet")
        else:
            separator = ";" if kind == "csv with semicolons" else ","
            encoding = "utf-8-sig" if kind == "csv with a byte order mark" else "utf-8"
            table.to_csv(folder / f"{name}.csv", index=False, sep=separator, encoding=encoding)
    assert frames(read_workbook(folder)) == expected


@pytest.mark.parametrize(
    "times",
    [
        pa.array([5000, 65000, 10000], pa.duration("ms")),
        pa.array([5, 65, 10], pa.time32("s")),
        pa.array([5.0, 65.0, 10.0]),
        pa.array(["0:00:05", "0:01:05", "10"]).dictionary_encode(),
        pa.array([5, 65, 10], pa.int16()),
        pa.array(["5", "65", "10"]).cast(pa.decimal128(5, 1)),
    ],
    ids=lambda times: str(times.type),
)
def test_times_in_parquet_can_have_any_type(tmp_path: Path, times: pa.Array) -> None:
    topics, lines = (pd.DataFrame(t[1:], columns=t[0]).astype({"lesson_num": "str"}) for t in (TOPICS, LINES))
    topics.to_parquet(tmp_path / "lesson_topics.parquet")
    table = pa.Table.from_pandas(lines.drop(columns="timestamp")).append_column("timestamp", times)
    pq.write_table(table, tmp_path / "lesson_transcripts.parquet")
    assert read_workbook(tmp_path).lines["seconds"].tolist() == [5, 65, 10]


def test_the_order_and_the_case_of_sheets_and_columns_do_not_matter(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = " Lesson_Transcripts "
    for row in LINES:
        book.active.append(row[::-1])
    sheet = book.create_sheet("LESSON_TOPICS")
    for row in [[f" {name.upper()} " for name in TOPICS[0]], *TOPICS[1:]]:
        sheet.append(row)
    book.save(tmp_path / "other.xlsx")
    assert frames(read_workbook(tmp_path / "other.xlsx")) == frames(read_workbook(workbook(tmp_path)))


def test_unused_sheets_and_columns_are_reported(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        topics["E1"], topics["F1"] = "video_url", "Notes"
        topics.parent.create_sheet("scratch")

    messages = [p.message for p in read_workbook(workbook(tmp_path, change)).problems]
    assert messages == ["Not used: scratch.", "Not used: F (notes)."]


def test_rows_are_numbered_as_excel_shows_them(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        topics.insert_rows(3, 2)
        topics.insert_rows(1, 4)
        topics.insert_cols(1)
        topics["D9"] = "soon"

    assert ("error", "bad timestamp", "lesson_topics", 9, "D (timestamp)") in problems(workbook(tmp_path, change))


def test_blank_rows_are_skipped(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        lines.insert_rows(3)
        lines["A3"] = "  "
        lines["A9"] = " "

    read = read_workbook(workbook(tmp_path, change))
    assert (read.problems, read.lines["row"].tolist()) == ([], [2, 4, 5])


def test_rows_of_a_csv_file_are_numbered_as_excel_shows_them(tmp_path: Path) -> None:
    topics = ["", ",".join(TOPICS[0]), "A,1,0:00:00,One", "", '"A",1,0:01:00,"Two\nlines"', "A,1,x,Three"]
    lines = [",".join(LINES[0]), "A,1,0:00:00,more cells, than columns", "A,1,?,c"]
    (tmp_path / "lesson_topics.csv").write_text("\n".join(topics))
    (tmp_path / "lesson_transcripts.csv").write_text("\n".join(lines))
    places = [(sheet, row) for severity, _, sheet, row, _ in problems(tmp_path) if severity == "error"]
    assert places == [("lesson_topics.csv", 6), ("lesson_transcripts.csv", 2), ("lesson_transcripts.csv", 3)]


ERRORS = {
    "a text instead of a time": (set_cell("topics", "C3", "soon"), "bad timestamp", "C (timestamp)"),
    "a date": (set_cell("topics", "C3", dt.datetime(2023, 3, 15)), "bad timestamp", "C (timestamp)"),
    "a time below zero": (set_cell("topics", "C3", dt.timedelta(seconds=-5)), "negative time", "C (timestamp)"),
    "a number below zero": (set_cell("topics", "C3", -5), "negative time", "C (timestamp)"),
    # Excel shows ##### here; the library that reads cells makes 23:45 of it.
    "a clock below zero": (set_cell("topics", "C3", -15 / 1440, "h:mm:ss"), "negative time", "C (timestamp)"),
    "no time": (set_cell("topics", "C3", None), "empty timestamp", "C (timestamp)"),
    "no title": (set_cell("topics", "D3", "\u00a0 "), "empty title", "D (topic)"),
    "no course": (set_cell("topics", "A3", None), "empty course", "A (course_title)"),
    "no lesson": (set_cell("topics", "B3", None), "empty lesson", "B (lesson_num)"),
    "two topics at once": (set_cell("topics", "C3", "0:00"), "duplicate topic start", "C (timestamp)"),
}


@pytest.mark.parametrize(("change", "kind", "column"), ERRORS.values(), ids=ERRORS)
def test_an_error_in_a_cell_is_reported_with_its_place(tmp_path: Path, change: Break, kind: str, column: str) -> None:
    found = [p for p in problems(workbook(tmp_path, change)) if p[0] == "error"]
    assert found == [("error", kind, "lesson_topics", 3, column)]


WARNINGS = {
    "a line before the first topic": (
        set_cell("topics", "C4", "0:00:30"),
        [("topic without lines", "lesson_topics", 4), ("line before the first topic", "lesson_transcripts", 4)],
    ),
    "a topic without lines": (set_cell("topics", "C3", "0:09:00"), [("topic without lines", "lesson_topics", 3)]),
    "a lesson on one sheet": (
        set_cell("topics", "B4", "2B"),
        [("lesson on one sheet only", "lesson_topics", 4), ("lesson on one sheet only", "lesson_transcripts", 4)],
    ),
    "times out of order": (
        set_cell("lines", "C2", "0:01:30"),
        [("topic without lines", "lesson_topics", 2), ("times out of order", "lesson_transcripts", 3)],
    ),
    "a title used twice": (set_cell("topics", "D3", "What  clouds are "), [("title used twice", "lesson_topics", 3)]),
    "a line without words": (
        set_cell("lines", "D4", " "),
        [("topic without lines", "lesson_topics", 4), ("line without words", "lesson_transcripts", 4)],
    ),
    "a number as text": (set_cell("lines", "C3", "75"), [("number as text", "lesson_transcripts", 3)]),
    "a lesson number as text": (set_cell("lines", "B3", "1"), [("number as text", "lesson_transcripts", 3)]),
}


@pytest.mark.parametrize(("change", "expected"), WARNINGS.values(), ids=WARNINGS)
def test_a_warning_is_reported_with_its_place_and_does_not_stop(
    tmp_path: Path, change: Break, expected: list[tuple[str, str, int]]
) -> None:
    found = ingest(workbook(tmp_path, change)).problems
    assert [(p.kind, p.sheet, p.row) for p in found] == expected


def test_the_warning_about_a_number_as_text_gives_the_time(tmp_path: Path) -> None:
    [problem] = read_workbook(workbook(tmp_path, set_cell("lines", "C3", "75"))).problems
    assert problem.message == "'75' is a number stored as text. It was read as 75 seconds (0:01:15)."


def test_minutes_that_excel_stored_as_hours_give_a_warning(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        for value in (5.5, 12.25, 40):
            lines.append(["Clouds", "1B", dt.timedelta(hours=value), "words"])
        topics.append(["Clouds", "1B", "0:00:00", "Fog"])

    found = problems(workbook(tmp_path, change))
    assert ("warning", "minutes stored as hours", "lesson_transcripts", 6, "C (timestamp)") in found


def test_excel_times_without_their_format_are_read_with_a_warning(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        for row, value in ((2, 0.001), (3, 0.02), (4, 0.003)):
            lines.cell(row, 3).value = value

    found = problems(workbook(tmp_path, change))
    assert ("warning", "fractions of a day", "lesson_transcripts", 3, "C (timestamp)") in found
    assert read_workbook(tmp_path / "talks.xlsx").lines["seconds"].tolist() == [86.4, 1728, 259.2]


def test_all_errors_are_reported_together(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        topics["C3"], topics["D4"] = "soon", None
        lines["C1"] = "time"
        lines["A3"] = None

    kinds = {kind for severity, kind, *_ in problems(workbook(tmp_path, change)) if severity == "error"}
    assert kinds == {"bad timestamp", "empty title", "missing column", "empty course"}


def test_a_workbook_with_errors_is_rejected_with_places_and_remedies(tmp_path: Path) -> None:
    path = workbook(tmp_path, set_cell("topics", "C3", "soon"))
    with pytest.raises(WorkbookRejected) as caught:
        ingest(path)
    assert str(caught.value).splitlines() == [
        f"{path} has 1 error, so nothing was read from it:",
        "  lesson_topics, row 3, column C (timestamp): 'soon' is not a time. Use h:mm:ss, mm:ss or seconds.",
        SET_ASIDE_HINT,
    ]


def test_a_missing_path_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.xlsx does not exist"):
        read_workbook(tmp_path / "absent.xlsx")


FILES = {
    "empty file": (b"", "empty file"),
    "text": (b"hello there", "not a workbook"),
    "half a zip": (b"PK\x03\x04" + bytes(50), "not a workbook"),
    "protected": (bytes.fromhex("D0CF11E0A1B11AE1") + "EncryptedPackage".encode("utf-16-le"), "password"),
}


@pytest.mark.parametrize(("content", "kind"), FILES.values(), ids=FILES)
def test_a_file_of_another_format_is_reported(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "broken.xlsx").write_bytes(content)
    assert problems(tmp_path / "broken.xlsx") == [("error", kind, None, None, None)]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("lesson_topics.csv", b"", "empty file"),
        ("lesson_topics.csv", b"course_title,lesson_num\n\x00\xff\x00", "not UTF-8"),
        ("lesson_topics.csv", b'course_title,lesson_num,timestamp,topic\n"A,1,0,x', "not a table"),
        ("lesson_topics.csv", b"course_title,lesson_num,timestamp,topic\n", "no rows"),
        ("lesson_topics.parquet", b"PAR1", "not a table"),
        ("topics.csv", b"a,b", "missing table"),
    ],
)
def test_a_damaged_table_is_reported(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert (kind, "error") in [(p.kind, p.severity) for p in read_workbook(tmp_path).problems]


def test_a_workbook_with_a_flipped_bit_is_damaged(tmp_path: Path) -> None:
    path = workbook(tmp_path)
    with zipfile.ZipFile(path) as archive:
        inside = archive.getinfo("xl/worksheets/sheet1.xml").header_offset + 100
    content = bytearray(path.read_bytes())
    content[inside] ^= 1
    path.write_bytes(content)
    assert problems(path) == [("error", "not a workbook", None, None, None)]


def test_a_single_csv_file_gets_the_remedy_to_use_its_folder(tmp_path: Path) -> None:
    (tmp_path / "lesson_topics.csv").write_text("a,b")
    assert "folder" in read_workbook(tmp_path / "lesson_topics.csv").problems[0].remedy


def test_an_empty_sheet_lacks_all_columns(tmp_path: Path) -> None:
    found = problems(workbook(tmp_path, lambda topics, lines: lines.delete_rows(1, 9)))
    assert [p for p in found if p[0] == "error"] == [
        ("error", "missing column", "lesson_transcripts", 1, column) for column in sorted(LINES[0])
    ]


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> list[Problem]:
    """The problems of a folder with ten thousand bad times."""
    folder = tmp_path_factory.mktemp("flood")
    rows = pd.DataFrame([LINES[1]] * 10_000, columns=LINES[0]).assign(timestamp="[soon]", lesson_num="1")
    rows.to_csv(folder / "lesson_transcripts.csv", index=False)
    pd.DataFrame(TOPICS[1:2], columns=TOPICS[0]).to_csv(folder / "lesson_topics.csv", index=False)
    return read_workbook(folder).problems


def test_ten_thousand_problems_are_counted_but_not_all_listed(flooded: list[Problem]) -> None:
    assert (len(flooded), summary(flooded)) == (MAX_LISTED + 1, "10,000 errors, 0 warnings")


def test_ten_thousand_problems_do_not_flood_a_message(flooded: list[Problem]) -> None:
    block = as_block(flooded)
    assert (len(block.splitlines()), block.splitlines()[-1]) == (MAX_SHOWN + 1, "    and 9,995 more: bad timestamp")


def test_ten_thousand_problems_do_not_flood_a_terminal(flooded: list[Problem]) -> None:
    console = Console(file=StringIO(), width=200)
    console.print(as_table(flooded))
    shown = console.file.getvalue()
    assert (shown.count("'[soon]' is not a time."), "and 9,995 more: bad timestamp" in shown) == (MAX_SHOWN, True)


def test_a_shortened_rejection_names_the_command_that_lists_all_errors(flooded: list[Problem]) -> None:
    assert str(WorkbookRejected(Path("talks"), flooded)).endswith(
        "9,995 more errors: `lectern check talks --json` lists all."
    )


def test_problems_as_json_keep_every_field(flooded: list[Problem]) -> None:
    assert as_json(flooded)[0] == {
        "severity": "error",
        "kind": "bad timestamp",
        "sheet": "lesson_transcripts.csv",
        "row": 2,
        "column": "C (timestamp)",
        "message": "'[soon]' is not a time.",
        "remedy": "Use h:mm:ss, mm:ss or seconds.",
        "cells": 1,
    }


def test_the_summary_by_kind_has_one_line_per_kind(flooded: list[Problem]) -> None:
    assert by_kind(flooded) == ["10,000 x bad timestamp (first: lesson_transcripts.csv, row 2, column C (timestamp))"]


@pytest.fixture(scope="module")
def real() -> Path:
    if not os.environ.get("LECTERN_SHARED"):
        pytest.skip("LECTERN_SHARED is not set: the real workbook is missing")
    return Path(os.environ["LECTERN_SHARED"]) / "data/fsdl_2022_project_transcripts.xlsx"


def test_the_real_workbook_has_no_problems(real: Path) -> None:
    read = ingest(real)
    assert (len(read.topics), len(read.lines), read.problems) == (397, 14_791, [])


def hours(rows: list[list[object]]) -> list[list[object]]:
    """Return rows as Excel stores them if their minutes are typed as h:mm."""
    return [[*row[:2], dt.time(row[2] // 60, row[2] % 60), row[3]] for row in rows]


SPOKEN = [["Clouds", 1, at, "we look at the sky and name what we see there today"] for at in range(0, 240, 8)]
STARTS = [["Clouds", 1, 0, "What clouds are"], ["Clouds", 1, 80, "How clouds form"], ["Clouds", 1, 160, "Rain"]]


@pytest.mark.parametrize("which", ["both", "topics"])
def test_minutes_that_excel_stored_as_hours_are_read_as_minutes_with_a_warning(tmp_path: Path, which: str) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        for sheet, rows, wrong in ((topics, STARTS, True), (lines, SPOKEN, which == "both")):
            sheet.delete_rows(2, 9)
            for row in hours(rows) if wrong else [[*row[:2], dt.timedelta(seconds=row[2]), row[3]] for row in rows]:
                sheet.append(row)

    read = ingest(workbook(tmp_path, change))
    assert read.topics["start_seconds"].tolist() == [0, 80, 160]
    assert read.lines["seconds"].tolist() == [*range(0, 240, 8)]
    sheets = ["lesson_topics", "lesson_transcripts"] if which == "both" else ["lesson_topics"]
    assert [(p.kind, p.sheet) for p in read.problems] == [("hours read as minutes", sheet) for sheet in sheets]
    assert "1:20:00 was read as 0:01:20" in read.problems[0].message


def test_minutes_before_and_hours_after_the_full_hour_are_told_apart(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        topics.append(["Clouds", "1B", "0:00:00", "Fog"])
        for time in (dt.timedelta(hours=at) for at in (0, 20, 40, 59.5)):
            lines.append(["Clouds", "1B", time, "words"])
        lines.append(["Clouds", "1B", dt.time(1, 0, 10), "words"])

    read = ingest(workbook(tmp_path, change))
    assert read.lines["seconds"].tolist()[3:] == [0, 1200, 2400, 3570, 3610]
    assert [p.kind for p in read.problems] == ["hours read as minutes"]


def test_a_long_lesson_with_a_line_per_minute_keeps_its_hours(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        for minute in range(0, 120, 2):
            lines.append(["Clouds", "1B", dt.time(minute // 60, minute % 60), "word " * 250])
        for minute in (0, 20, 70):
            topics.append(["Clouds", "1B", dt.time(minute // 60, minute % 60), f"Topic {minute}"])

    read = ingest(workbook(tmp_path, change))
    assert (read.problems, read.lines["seconds"].max(), read.topics["start_seconds"].max()) == ([], 7080, 4200)


def csv_tables(folder: Path, start: bytes = b"", encoding: str = "utf-8", name: str = "Clouds") -> Path:
    folder.mkdir(exist_ok=True)
    for table, rows in (("lesson_topics", TOPICS), ("lesson_transcripts", LINES)):
        text = "\r\n".join(";".join(str(cell).replace("Clouds", name) for cell in row) for row in rows)
        (folder / f"{table}.csv").write_bytes(start + text.encode(encoding))
    return folder


@pytest.mark.parametrize(
    ("start", "encoding"),
    [(b"sep=;\r\n", "utf-8"), (b"", "utf-16"), (b"", "cp1252"), (b"My course; 2024\n\n", "utf-8")],
)
def test_a_csv_as_excel_and_people_write_it_is_read(tmp_path: Path, start: bytes, encoding: str) -> None:
    read = ingest(csv_tables(tmp_path / "tables", start, encoding, "Café à vivre"))
    assert (read.topics["course_title"].unique().tolist(), len(read.topics), len(read.lines)) == (
        ["Café à vivre"],
        3,
        3,
    )


def test_a_guessed_encoding_and_a_row_above_the_header_are_said(tmp_path: Path) -> None:
    messages = [p.message for p in read_workbook(csv_tables(tmp_path, b"My course\r\n", "cp1252", "Café")).problems]
    assert sorted(messages) == [
        *["It is not UTF-8. It was read as cp1252."] * 2,
        *["Not used, because the header is in row 2: My course."] * 2,
    ]


def test_a_header_below_a_title_is_found_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        topics.insert_rows(1, 3)
        topics["B1"] = "My course"
        topics["C6"] = "soon"

    found = problems(workbook(tmp_path, change))
    assert ("error", "bad timestamp", "lesson_topics", 6, "C (timestamp)") in found


def test_other_names_of_sheets_and_columns_are_all_named_at_once_with_proposals(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        topics.title, lines.title = "Topics", "Transcript"
        for cell, name in zip(topics[1], ("Course", "Lesson", "Time", "Topic"), strict=True):
            cell.value = name
        for cell, name in zip(lines[1], ("course title", "lesson_nun", "timestamp", "Text"), strict=True):
            cell.value = name

    remedies = "\n".join(p.remedy for p in read_workbook(workbook(tmp_path, change)).problems)
    assert "'Topics' to 'lesson_topics'" in remedies
    assert "'Transcript' to 'lesson_transcripts'" in remedies
    for place, name in (
        ("A (course)", "course_title"), ("B (lesson)", "lesson_num"), ("C (time)", "timestamp"),
        ("A (course title)", "course_title"), ("B (lesson_nun)", "lesson_num"), ("D (text)", "transcript"),
    ):  # fmt: skip
        assert f"{place} to '{name}'" in remedies


def test_merged_cells_are_one_problem(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        topics.merge_cells("A2:A4")

    [problem] = [p for p in read_workbook(workbook(tmp_path, change)).problems if p.severity == "error"]
    assert (problem.cells, "unmerge" in problem.remedy, "2 to 4" in problem.message) == (2, True, True)


def test_names_that_look_alike_are_one_lesson(tmp_path: Path) -> None:
    def change(topics: Worksheet, lines: Worksheet) -> None:
        lines["A2"], lines["B3"], lines["B4"] = "Clo\u200buds", "\uff11", "2\u00adA"

    assert [p.kind for p in ingest(workbook(tmp_path, change)).problems] == ["number as text"]


def test_invisible_characters_are_named_in_messages(tmp_path: Path) -> None:
    [problem] = read_workbook(workbook(tmp_path, set_cell("topics", "C3", "1:00\u200bx"))).problems
    assert "1:00<ZERO WIDTH SPACE>x" in problem.message


def test_the_words_of_an_error_are_no_error_as_text(tmp_path: Path) -> None:
    read = read_workbook(workbook(tmp_path))
    lines = read.lines.assign(text=["#N/A", "=1+1", "#REF!"])
    write_workbook(tmp_path, read.topics, lines, tmp_path / "written.xlsx", {})
    again = ingest(tmp_path / "written.xlsx")
    assert (again.problems, again.lines["text"].tolist()) == ([], ["#N/A", "=1+1", "#REF!"])
