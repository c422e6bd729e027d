"""Titles for the topics of a workbook that lack one. All else in the workbook stays as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import openpyxl
import pandas as pd
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE, MergedCell
from openpyxl.worksheet.worksheet import Worksheet

from pipeline.data.lessons import LESSON
from pipeline.data.merge import merge
from pipeline.data.openings import asked
from pipeline.data.problems import Problem, WorkbookRefused, errors
from pipeline.data.sample import write_workbook
from pipeline.data.sheets import NAMES
from pipeline.data.tables import open_tables, table_files
from pipeline.data.workbook import LINES, TOPICS, Workbook, read_workbook
from pipeline.errors import Misused, Refused
from pipeline.files import file_aside
from pipeline.monitoring.batch_log import log_batch
from pipeline.titles.fallbacks import FALLBACK, KEYPHRASE, mark
from pipeline.titles.titling import Version, title_texts

_ROWS_OF_A_SHEET = 1_048_576 - 1  # below the header
_LONGEST_CELL = 32_767
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


def is_workbook(path: Path) -> bool:
    """Whether `path` is an .xlsx or .xlsm, or a folder that holds one of a workbook's two tables."""
    if path.is_dir():
        return any(file.stem.strip().lower() in NAMES for file in table_files(path))
    return path.suffix.lower() in (".xlsx", ".xlsm") and path.is_file()


def output_beside(workbook: Path) -> Path:
    """`lessons.titled.xlsx` for `lessons.xlsx` and for the folder `lessons`."""
    return workbook.with_name(f"{workbook.name if workbook.is_dir() else workbook.stem}.titled.xlsx")


def must_be_workbook(out: Path) -> None:
    """Raises:
    Misused: `out` is no .xlsx.
    """
    if out.suffix.lower() != ".xlsx":
        raise Misused(f"--out {out} must end in .xlsx: a titled workbook is written as Excel reads it.")


def may_be_written(out: Path, *, overwrite: bool) -> None:
    """Raises:
    Misused: `out` is a folder, or is there and must not be overwritten.
    """
    if out.is_dir():
        raise Misused(f"--out {out} is a folder. Name a file.")
    if out.exists() and not overwrite:
        raise Misused(f"{out} exists already. Name another file with --out, or allow it with --overwrite.")


def fill_titles(path: Path, out: Path, version: Version) -> Filled:
    """Writes the workbook at `path` to `out`, with a title for each topic that lacks one and has lines.

    Killed half-way, the same call goes on where it was.

    Raises:
        WorkbookRefused: the workbook has errors other than empty titles.
        Refused: the version does not load, or what is to be written does not fit into a sheet.
    """
    workbook = read_lacking_titles(path)
    topics = workbook.topics
    lacking = topics[topics["title"] == ""]
    texts = _texts(workbook, lacking)
    titled = title_texts(texts.values(), version)
    titles = {row: as_cell(titled.titles[text]) for row, text in texts.items()}
    written = {row: title for row, title in titles.items() if title}
    marks = {row: mark(KEYPHRASE, title) for row, title in written.items() if texts[row] in titled.fallbacks}
    with file_aside(out) as aside:
        _write(path, workbook, written, marks, aside)
        _compare(path, topics, aside)
    log_batch([*texts.values()], [titled.written(text) for text in texts.values()], version)
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
        WorkbookRefused: it is not.
    """
    workbook = read_workbook(path)
    rest = [problem for problem in workbook.problems if not _is_empty_title(problem)]
    if errors(rest):
        raise WorkbookRefused(path, rest)
    return workbook


def _is_empty_title(problem: Problem) -> bool:
    return problem.kind == "empty title"


def _texts(workbook: Workbook, lacking: pd.DataFrame) -> dict[int, str]:
    """By the row of each topic that lacks its title: what a title is asked for, if anything is said under it."""
    start = [*LESSON, "start_seconds"]  # no two topics share it: that would be an error of the workbook
    examples = merge(workbook.topics, workbook.lines).examples
    found = lacking[[*start, "row"]].merge(examples[[*start, "text", "opens"]], on=start)
    return dict(zip(found["row"].tolist(), asked(found), strict=True))


def as_cell(text: str) -> str:
    """`text` as a cell can hold it."""
    return ILLEGAL_CHARACTERS_RE.sub(" ", text).strip()[:_LONGEST_CELL]


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
        raise Refused(f"{path} cannot be copied ({error}). Save it anew in Excel as .xlsx.") from error
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
    write_tables(path, topics.assign(title=filled), workbook.lines, out, marks)


def write_tables(path: Path, topics: pd.DataFrame, lines: pd.DataFrame, out: Path, marks: Mapping[int, str]) -> None:
    """Both tables, as a workbook is understood, as the sheets of `out`; `path` is what a message calls them.

    Args:
        marks: by row of `topics`, what the column `FALLBACK` says of its title.

    Raises:
        Refused: a sheet cannot hold them.
    """
    if max(len(topics), len(lines)) > _ROWS_OF_A_SHEET:
        raise Refused(f"{path} has more rows than a sheet of Excel holds. Title it course by course.")
    if (lines["text"].str.len() > _LONGEST_CELL).any():
        row = int(lines.loc[lines["text"].str.len() > _LONGEST_CELL, "row"].iloc[0])
        raise Refused(f"{path}, {LINES}, row {row:,}: the text is longer than a cell of Excel holds. Split the line.")
    sheet = _sheet(topics, TOPICS)
    if marks:
        sheet[FALLBACK] = [marks.get(row) for row in topics["row"].tolist()]
    write_workbook(sheet, _sheet(lines, LINES), out)


def _sheet(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """`table` as the sheet `name` holds it: times as durations, texts as a cell can hold them."""
    columns = {
        theirs: [timedelta(seconds=cell) if isinstance(cell, float) else as_cell(cell) for cell in table[ours].tolist()]
        for theirs, ours in NAMES[name].items()
    }
    return pd.DataFrame(columns, dtype=object)


def _compare(path: Path, topics: pd.DataFrame, written: Path) -> None:
    """Raises:
    Refused: what was written is not read as it was meant, so that nothing is handed out that lost a topic or a time.
    """
    again = read_lacking_titles(written).topics
    same = len(again) == len(topics) and all(
        math.isclose(a, b, abs_tol=_SAME_TIME)
        for a, b in zip(topics["start_seconds"].tolist(), again["start_seconds"].tolist(), strict=True)
    )
    if not same:
        raise Refused(
            f"{path} cannot be copied with its times unchanged. Save both sheets as CSV in a folder and title that."
        )
