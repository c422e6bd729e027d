"""Titles for the topics of a workbook that lack one. All else in the workbook stays as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import openpyxl
import pandas as pd
from openpyxl.cell.cell import MergedCell
from openpyxl.worksheet.worksheet import Worksheet

from pipeline.data.examples import build_examples
from pipeline.data.fallback_titles import KEYPHRASE, fallback_note
from pipeline.data.lesson_openings import marked_texts
from pipeline.data.problems import Problem, WorkbookRejected, errors
from pipeline.data.tables import open_tables
from pipeline.data.workbook import Workbook, read_workbook
from pipeline.data.workbook_files import fit_into_cell, write_workbook
from pipeline.data.workbook_schema import FALLBACK, LESSON, TOPICS
from pipeline.errors import Rejected
from pipeline.files import file_aside
from pipeline.monitoring.batch_log import log_batch
from pipeline.titles.titling import Version, title_texts

_SAME_TIME = 0.001  # seconds; Excel keeps a time as a fraction of a day
_SHOWN = 10


@dataclass(frozen=True)
class Filled:
    """What became of a workbook's topics.

    fallbacks: rows, as Excel shows them, whose title is a keyphrase, since the model wrote none of use.
    silent, wordless: rows that still lack a title: no line is under them; there is no keyphrase either.
    """

    out: Path
    written: int
    kept: int
    fallbacks: list[int]
    silent: list[int]
    wordless: list[int]

    def summary(self) -> str:
        """One line, and one more for each reason why a topic has no title."""
        said = [f"{self.out}: {self.written:,} titles written, {self.kept:,} kept"]
        if self.fallbacks:
            said.append(
                f"  {len(self.fallbacks):,} of them are keyphrases, since the model wrote nothing of use "
                f"({_places(self.fallbacks)}; the column {FALLBACK} marks them). Look them over."
            )
        for rows, why in ((self.silent, "no line is under them"), (self.wordless, "the model wrote none")):
            if rows:
                said.append(
                    f"  {len(rows):,} topics have no title, since {why} ({_places(rows)}). Fill them in by hand."
                )
        return "\n".join(said)


def _places(rows: list[int]) -> str:
    return f"{TOPICS}, row " + ", ".join(f"{row:,}" for row in rows[:_SHOWN]) + (", ..." if rows[_SHOWN:] else "")


def output_beside(workbook: Path) -> Path:
    """`lessons.titled.xlsx` for `lessons.xlsx` and for the folder `lessons`."""
    return workbook.with_name(f"{workbook.name if workbook.is_dir() else workbook.stem}.titled.xlsx")


def fill_titles(path: Path, out: Path, version: Version) -> Filled:
    """Writes the workbook at `path` to `out`, with a title for each topic that lacks one and has lines.

    Killed half-way, the same call goes on where it was.

    Raises:
        WorkbookRejected: the workbook has errors other than empty titles.
        Rejected: the version does not load, or what is to be written does not fit into a sheet.
    """
    workbook = read_lacking_titles(path)
    topics = workbook.topics
    lacking = topics[topics["title"] == ""]
    texts = _texts(workbook, lacking)
    titled = title_texts(texts.values(), version)
    titles = {row: fit_into_cell(titled.titles[text]) for row, text in texts.items()}
    written = {row: title for row, title in titles.items() if title}
    marks = {row: fallback_note(KEYPHRASE, title) for row, title in written.items() if texts[row] in titled.fallbacks}
    with file_aside(out) as aside:
        _write(path, workbook, written, marks, aside)
        _compare(path, topics, aside)
    log_batch([*texts.values()], [titled.written(text) for text in texts.values()], str(version))
    titled.forget()
    return Filled(
        out=out,
        written=len(written),
        kept=len(topics) - len(lacking),
        fallbacks=[*marks],
        silent=[row for row in lacking["row"].tolist() if row not in texts],
        wordless=[row for row, title in titles.items() if not title],
    )


def read_lacking_titles(path: Path) -> Workbook:
    """The workbook at `path`, whose topics may lack their titles, and which is sound in all else.

    Raises:
        WorkbookRejected: it is not.
    """
    workbook = read_workbook(path)
    rest = [problem for problem in workbook.problems if not _is_empty_title(problem)]
    if errors(rest):
        raise WorkbookRejected(path, rest)
    return workbook


def _is_empty_title(problem: Problem) -> bool:
    return problem.kind == "empty title"


def _texts(workbook: Workbook, lacking: pd.DataFrame) -> dict[int, str]:
    """By the row of each topic that lacks its title: what a title is asked for, if anything is said under it."""
    start = [*LESSON, "start_seconds"]  # no two topics share it: that would be an error of the workbook
    examples = build_examples(workbook.topics, workbook.lines).examples
    found = lacking[[*start, "row"]].merge(examples[[*start, "text", "opens"]], on=start)
    return dict(zip(found["row"].tolist(), marked_texts(found), strict=True))


def _write(path: Path, workbook: Workbook, titles: dict[int, str], marks: dict[int, str], out: Path) -> None:
    if path.is_dir():
        _write_tables(path, workbook, titles, marks, out)
    else:
        _write_into_copy(path, titles, marks, out)


def _write_into_copy(path: Path, titles: dict[int, str], marks: dict[int, str], out: Path) -> None:
    """The workbook with `titles` in its topic column. Formulas become the values that Excel saved for them, which is
    what was read; they would have none until Excel computed them again."""
    tables, _ = open_tables(path, {TOPICS: ("topic",)})
    letter = tables[TOPICS].places["topic"].split()[0]
    try:
        book = openpyxl.load_workbook(path, data_only=True)
    except Exception as error:  # of many kinds, for what Excel opens and openpyxl does not
        raise Rejected(f"{path} cannot be copied ({error}). Save it anew in Excel as .xlsx.") from error
    sheet = book[tables[TOPICS].name]
    for row, title in titles.items():
        cell = sheet[f"{letter}{row}"]
        if isinstance(cell, MergedCell):
            _unmerge(sheet, cell.coordinate)
            cell = sheet[f"{letter}{row}"]
        cell.value = title
        if cell.data_type != "s":
            cell.data_type = "s"  # a title may begin with "=", and is no formula
    if marks:
        _mark(sheet, letter, marks)
    book.save(out)


def _mark(sheet: Worksheet, letter: str, marks: dict[int, str]) -> None:
    """Says in the column `FALLBACK`, a new one unless there is one, which titles are keyphrases."""
    header = next(cell.row for cell in sheet[letter] if cell.value is not None)
    names = {str(cell.value).strip().lower(): cell.column for cell in sheet[header]}
    column = names.get(FALLBACK, sheet.max_column + 1)
    sheet.cell(header, column, FALLBACK)
    for row, said in marks.items():
        sheet.cell(row, column, said)


def _unmerge(sheet: Worksheet, coordinate: str) -> None:
    for merged in list(sheet.merged_cells.ranges):
        if coordinate in merged:
            sheet.unmerge_cells(str(merged))


def _write_tables(path: Path, workbook: Workbook, titles: dict[int, str], marks: dict[int, str], out: Path) -> None:
    topics = workbook.topics
    filled = topics["title"].mask(topics["title"] == "", topics["row"].map(titles).fillna(""))
    write_workbook(path, topics.assign(title=filled), workbook.lines, out, marks)


def _compare(path: Path, topics: pd.DataFrame, written: Path) -> None:
    """Raises:
    Rejected: what was written is not read as it was meant, so that nothing is handed out that lost a topic or a time.
    """
    again = read_lacking_titles(written).topics
    same = len(again) == len(topics) and all(
        math.isclose(a, b, abs_tol=_SAME_TIME)
        for a, b in zip(topics["start_seconds"].tolist(), again["start_seconds"].tolist(), strict=True)
    )
    if not same:
        raise Rejected(
            f"{path} cannot be copied with its times unchanged. Save both sheets as CSV in a folder and title that."
        )
