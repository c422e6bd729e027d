"""Fill in the missing titles of a workbook, in a copy. Everything else in the workbook stays the same."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pandas as pd
from openpyxl.cell.cell import MergedCell
from openpyxl.worksheet.worksheet import Worksheet

from pipeline.data.examples import build_examples
from pipeline.data.fallback_titles import KEYPHRASE, fallback_note
from pipeline.data.lesson_openings import marked_texts
from pipeline.data.speaker_column import with_speakers
from pipeline.data.tables import open_tables
from pipeline.data.workbook import Workbook, read_untitled, reinterpretations
from pipeline.data.workbook_files import fit_into_cell, write_workbook
from pipeline.data.workbook_schema import FALLBACK, LESSON, TOPICS
from pipeline.errors import Rejected
from pipeline.files import file_aside
from pipeline.registry.fallback_title import Shown
from pipeline.registry.talk_titles import choose_talk_titles
from pipeline.titles.batch_titling import title_texts
from pipeline.titles.served_version import ServedVersion

_TIME_TOLERANCE = 0.001  # seconds; Excel stores a time as a fraction of a day
_ROWS_SHOWN = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TitledWorkbook:
    """What was done to a workbook. Rows have the numbers that Excel shows.

    written, kept: number of titles written and of titles that were there.
    fallbacks: rows whose title is a keyphrase, because the model wrote no usable title that no other topic has.
    without_lines: rows without a title, because the topic has no transcript lines.
    without_title: rows without a title, because the text has no keyphrase either.
    """

    out: Path
    written: int
    kept: int
    fallbacks: list[int]
    without_lines: list[int]
    without_title: list[int]

    def summary(self) -> str:
        """Describe the result in one line, with one more line for each kind of topic to check."""
        messages = [f"{self.out}: {self.written:,} titles written, {self.kept:,} kept"]
        if self.fallbacks:
            messages.append(
                f"  {len(self.fallbacks):,} of them are keyphrases, because the model wrote no usable title of "
                f"their own ({_list_rows(self.fallbacks)}; the column {FALLBACK} marks them). Check them."
            )
        reasons = (
            (self.without_lines, "they have no transcript lines"),
            (self.without_title, "the model wrote no usable title of their own and the text has no keyphrase"),
        )
        for rows, reason in reasons:
            if rows:
                messages.append(
                    f"  {len(rows):,} topics have no title, because {reason} ({_list_rows(rows)}). "
                    "Fill them in by hand."
                )
        return "\n".join(messages)


def _list_rows(rows: list[int]) -> str:
    numbers = ", ".join(f"{row:,}" for row in rows[:_ROWS_SHOWN])
    return f"{TOPICS}, row {numbers}" + (", ..." if rows[_ROWS_SHOWN:] else "")


def fill_titles(path: Path, workbook: Workbook, out: Path, version: ServedVersion) -> TitledWorkbook:
    """Write a copy of a workbook with a title for each topic that lacks one and has transcript lines.

    After an interruption, the same call resumes.

    Args:
        path: the workbook to copy.
        workbook: its content, from `read_untitled`.
        out: the copy.

    Raises:
        Rejected: the version cannot be loaded, or the copy would lose a topic or change a time.
    """
    for message in reinterpretations(workbook):
        _log.warning("%s: %s", path.name, message)
    topics = workbook.topics
    untitled = topics[topics["title"] == ""]
    texts = _model_inputs(workbook, untitled)
    batch = title_texts(texts.values(), version)
    chosen = _choose_titles(topics, {row: batch.shown[text] for row, text in texts.items()}, texts)
    titles = {row: fit_into_cell(shown.title) for row, shown in chosen.items()}
    written = {row: title for row, title in titles.items() if title}
    marks = {row: fallback_note(KEYPHRASE, title) for row, title in written.items() if chosen[row].fallback}
    with file_aside(out) as aside:
        if path.is_dir():
            _write_tables(aside, workbook, written, marks, path)
        else:
            _write_into_copy(aside, written, marks, path)
        _check_copy(aside, topics, path)
    batch.log([*texts.values()])
    batch.discard_resume_files()
    return TitledWorkbook(
        out=out,
        written=len(written),
        kept=len(topics) - len(untitled),
        fallbacks=[*marks],
        without_lines=[row for row in untitled["row"].tolist() if row not in texts],
        without_title=[row for row, title in titles.items() if not title],
    )


def _model_inputs(workbook: Workbook, untitled: pd.DataFrame) -> dict[int, str]:
    """Map the rows of untitled topics to the text that a model gets. Topics without lines are left out."""
    start = [*LESSON, "start_seconds"]  # identifies a topic: the checks reject two topics with the same start
    examples = build_examples(workbook.topics, workbook.lines).examples
    found = untitled[[*start, "row"]].merge(examples[[*start, "text", "opens"]], on=start)
    return dict(zip(found["row"].tolist(), marked_texts(found), strict=True))


def _choose_titles(topics: pd.DataFrame, shown: Mapping[int, Shown], texts: Mapping[int, str]) -> dict[int, Shown]:
    """Choose the titles of each lesson together. `shown` and `texts` are by row."""
    chosen: dict[int, Shown] = {}
    for _, lesson in topics.groupby(LESSON, sort=False):
        rows = [row for row in lesson["row"].tolist() if row in texts]
        titles = choose_talk_titles(
            [shown[row] for row in rows], [texts[row] for row in rows], filter(None, lesson["title"])
        )
        chosen |= zip(rows, titles, strict=True)
    return chosen


def _write_into_copy(out: Path, titles: dict[int, str], marks: dict[int, str], path: Path) -> None:
    """Copy the workbook at `path` and write titles into its topic column.

    Formulas become the values that Excel saved for them. Otherwise the copy would have no values until Excel computes
    them again.
    """
    tables, _ = open_tables(path, {TOPICS: ("topic",)})
    letter = tables[TOPICS].places["topic"].split()[0]
    try:
        book = openpyxl.load_workbook(path, data_only=True)
    except Exception as error:  # openpyxl fails in many ways on files that Excel opens
        raise Rejected(f"{path} cannot be copied ({error}). Save it again in Excel as .xlsx.") from error
    sheet = book[tables[TOPICS].name]
    for row, title in titles.items():
        cell = sheet[f"{letter}{row}"]
        if isinstance(cell, MergedCell):
            _unmerge(sheet, cell.coordinate)
            cell = sheet[f"{letter}{row}"]
        cell.value = title
        if cell.data_type != "s":
            cell.data_type = "s"  # a title that begins with "=" is not a formula
    if marks:
        _mark_fallbacks(sheet, tables[TOPICS].header_row, marks)
    book.save(out)


def _mark_fallbacks(sheet: Worksheet, header: int, marks: dict[int, str]) -> None:
    """Write `marks` into the column `FALLBACK`. Add the column if row `header` lacks it."""
    names = {str(cell.value).strip().lower(): cell.column for cell in sheet[header]}
    column = names.get(FALLBACK, sheet.max_column + 1)
    sheet.cell(header, column, FALLBACK)
    for row, text in marks.items():
        sheet.cell(row, column, text)


def _unmerge(sheet: Worksheet, coordinate: str) -> None:
    for merged in list(sheet.merged_cells.ranges):
        if coordinate in merged:
            sheet.unmerge_cells(str(merged))


def _write_tables(out: Path, workbook: Workbook, titles: dict[int, str], marks: dict[int, str], path: Path) -> None:
    topics = workbook.topics
    filled = topics["title"].mask(topics["title"] == "", topics["row"].map(titles).fillna(""))
    write_workbook(path, topics.assign(title=filled), with_speakers(workbook.lines, path), out, marks)


def _check_copy(out: Path, topics: pd.DataFrame, path: Path) -> None:
    """Read the copy and check that it has the same topics at the same times.

    Raises:
        Rejected: a topic is missing or a time differs.
    """
    copied = read_untitled(out).topics
    same = len(copied) == len(topics) and all(
        math.isclose(a, b, abs_tol=_TIME_TOLERANCE)
        for a, b in zip(topics["start_seconds"].tolist(), copied["start_seconds"].tolist(), strict=True)
    )
    if not same:
        raise Rejected(
            f"{path} cannot be copied without changing its times. Save both sheets as CSV in a folder and title the "
            "folder."
        )
