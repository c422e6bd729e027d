"""Fed anything: hundreds of workbooks as none should be, and as large as they can be, by every way in.

Time is processor time, so that a busy machine does not matter.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.problems import errors
from pipeline.data.workbook import read_workbook
from pipeline.errors import UsageError
from tests.command import lectern
from tests.data.mutations import Counts, changed_bytes, changed_cells, changed_tables, lines_and_topics
from tests.data.oddities import NO_FILE, ODDITIES
from tests.odd_workbooks import FIRST, SECOND, STRINGS, Parts, book

pytestmark = pytest.mark.hard

SECONDS, MEGABYTES = 60, 2000
LAST_ROW = 1_048_576
FORMULA = re.compile(rb"<f[\s>]")
USABLE = [name for name, odd in ODDITIES.items() if not odd.kinds]
HANDED_IN = [
    *((odd.make, sorted(kind for kind, *_ in odd.kinds)) for odd in ODDITIES.values()),
    *((make, None) for make in NO_FILE.values()),
]
"""What is made by hand: how, and the kinds of errors in it; none where it is no file."""


class Measured(NamedTuple):
    result: Any
    seconds: float
    megabytes: int


def measured(function: Callable[..., Any], *arguments: object) -> Measured:
    """What `function` returns in a process of its own, and what that took."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_limit) as pool:
        before, _ = pool.submit(_used).result()
        result = pool.submit(function, *arguments).result()
        after, megabytes = pool.submit(_used).result()
    found = Measured(result, round(after - before, 1), megabytes)
    print(f"{function.__name__}: {found}")
    return found


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # what asks for more shall not take the machine with it


def _used() -> tuple[float, int]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # The peak since this process began; `ru_maxrss` begins with its parent's.
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    return usage.ru_utime + usage.ru_stime, int(peak.split()[1]) >> 10


@pytest.mark.parametrize("law", [changed_cells, changed_bytes, changed_tables])
def test_of_hundreds_that_are_changed_at_random_nothing_is_lost(
    law: Callable[[Path, int], Counts], tmp_path: Path
) -> None:
    found = measured(law, tmp_path, 300)
    assert found.result.read + found.result.rejected >= 300
    assert min(found.result.read, found.result.rejected) > 20
    assert found.result.seconds < SECONDS
    assert found.megabytes < MEGABYTES


def read(path: Path) -> tuple[list[str], tuple[int, int], tuple[int, int]]:
    """Kinds of errors, lines and topics that were read, and those that are in examples or set aside."""
    found = read_workbook(path)
    kinds = [problem.kind for problem in errors(found.problems)]
    return kinds, (len(found.lines), len(found.topics)), lines_and_topics(found) if not kinds else (0, 0)


class ByHand(NamedTuple):
    """How many were right, how many were refused, and how many are no file; the longest that one took."""

    right: int
    refused: int
    no_file: int
    seconds: float


def read_by_hand(folder: Path) -> ByHand:
    """Each of the odd workbooks: as it is expected, with nothing lost."""
    refused, no_file, longest = 0, 0, 0.0
    for number, (make, expected) in enumerate(HANDED_IN):
        (own := folder / str(number)).mkdir()
        path, begun = make(own), time.process_time()
        try:
            kinds, rows, kept = read(path)
        except UsageError:
            assert expected is None
            no_file += 1
        else:
            assert sorted(kinds) == expected
            assert kinds or rows == kept
            refused += bool(kinds)
        longest = max(longest, time.process_time() - begun)
    return ByHand(len(HANDED_IN) - refused - no_file, refused, no_file, round(longest, 1))


def test_of_all_that_are_made_by_hand_none_takes_a_minute_or_two_gigabytes(tmp_path: Path) -> None:
    found = measured(read_by_hand, tmp_path)
    assert (found.result.right, found.result.no_file) == (len(USABLE), len(NO_FILE))
    assert found.result.seconds < SECONDS
    assert found.megabytes < MEGABYTES


def test_a_million_rows_are_read_and_none_is_lost(tmp_path: Path) -> None:
    found = measured(read, _million_rows(tmp_path))
    rows = (LAST_ROW - 1, LAST_ROW // 40)
    assert found.result == ([], rows, rows)
    assert found.seconds < SECONDS
    assert found.megabytes < MEGABYTES


BOMBS: dict[str, Callable[[Path], Path]] = {
    "a picture": lambda folder: _swollen(folder, "xl/media/image1.png", b"", b"\0", b""),
    "a sheet": lambda folder: _swollen(folder, FIRST, b"<worksheet><sheetData>", b" ", b"</sheetData></worksheet>"),
    "a text": lambda folder: _swollen(folder, STRINGS, b"<sst><si><t>", b"x", b"</t></si></sst>"),
    "rows that are empty": lambda folder: _swollen(
        folder, SECOND, b"<worksheet><sheetData>", b"<row/>", b"</sheetData>"
    ),
    "texts in their cells": lambda folder: _swollen(
        folder,
        SECOND,
        b"<worksheet><sheetData>",
        b'<row><c t="inlineStr"><is><t>' + b"x" * 30_000 + b"</t></is></c></row>",
        b"</sheetData></worksheet>",
    ),
}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("megabytes", [900, 3000])
def test_a_bomb_does_not_go_off(make: Callable[[Path], Path], megabytes: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "_SWOLLEN", megabytes)
    path = make(tmp_path)
    assert path.stat().st_size < 8_000_000
    found = measured(read, path)
    assert megabytes < 1000 or found.result[0] == ["too large"]
    assert found.seconds < SECONDS
    assert found.megabytes < MEGABYTES


def test_a_table_of_parquet_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    text, rows = "x" * 100_000, 50_000
    pd.DataFrame([["A", "1", 0.0, "x"]], columns=["course_title", "lesson_num", "timestamp", "topic"]).to_parquet(
        tmp_path / "lesson_topics.parquet"
    )
    alike = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    columns = {"course_title": pa.array(["A"] * rows), "lesson_num": pa.array(["1"] * rows), "transcript": alike}
    pq.write_table(pa.table({**columns, "timestamp": pa.array(range(rows))}), tmp_path / "lesson_transcripts.parquet")
    found = measured(read, tmp_path)
    assert found.result[0] == ["too large"]
    assert found.megabytes < MEGABYTES


@pytest.mark.parametrize("name", [*ODDITIES, *NO_FILE])
def test_check_says_it_on_the_command_line(name: str, tmp_path: Path) -> None:
    make, kinds = ODDITIES[name][:2] if name in ODDITIES else (NO_FILE[name], None)
    if name == "an archive of a text document":
        kinds = None  # the command takes a Word document for a transcript
    path = make(tmp_path)
    if "\0" in str(path):
        return  # the system itself takes no such word
    for words in (["check", path], ["check", path, "--json"]):
        done = lectern(*words, cwd=tmp_path)
        assert done.returncode == (2 if kinds is None else int(bool(kinds))), done.stderr
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert len(done.stdout) + len(done.stderr) < 1_000_000
    assert kinds is None or [p["kind"] for p in json.loads(done.stdout) if p["severity"] == "error"] == sorted(
        kind for kind, *_ in kinds
    )


@pytest.fixture
def dvc_project(project: Path) -> Path:
    for words in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(words, cwd=project, check=True)
    return project


@pytest.mark.parametrize("name", USABLE)
def test_what_is_usable_goes_through_the_stages_and_loses_nothing(name: str, dvc_project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "handed in"
    folder.mkdir()
    for words in (["use", ODDITIES[name].make(folder)], ["ingest"], ["merge"]):
        done = lectern(*words, cwd=dvc_project)
        assert done.returncode == 0, done.stderr
    lines = pd.read_parquet("data/interim/lines.parquet")
    aside = pd.read_csv("data/examples/set_aside.csv", dtype="str", keep_default_na=False)
    examples = pd.read_parquet("data/examples/examples.parquet")
    assert len(lines) == examples["lines"].map(len).sum() + (aside["what"] == "line").sum()
    assert sorted(path.name for path in dvc_project.iterdir() if not path.name.startswith(".")) == sorted(
        ["data", "dvc.yaml", "handed in", "mlflow.db", "params.yaml"]
    )


@pytest.mark.parametrize("name", ODDITIES)
def test_a_talk_is_given_chapters_or_refused(name: str, project: Path, examples: pd.DataFrame, tmp_path: Path) -> None:
    from pipeline.data.tables import is_workbook  # not by each process that reads a workbook
    from tests.titles.small import register

    register(project / "models/small", examples)
    folder = tmp_path / "handed in"
    folder.mkdir()
    path = ODDITIES[name].make(folder)
    for words in (
        ["chapters", path, "--out", tmp_path / "chapters.csv"],
        *([["title", path, "--out", tmp_path / "titled.xlsx"]] if path.is_dir() or is_workbook(path) else []),
    ):
        done = lectern(*words, cwd=project)
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr
        fits = words[0] != "title" or ODDITIES[name].fits_a_sheet
        assert done.returncode == 0 or (done.stderr.strip() and (ODDITIES[name].kinds or not fits))
    if (tmp_path / "titled.xlsx").exists():
        with zipfile.ZipFile(tmp_path / "titled.xlsx") as titled:
            assert not [name for name in titled.namelist() if FORMULA.search(titled.read(name))]


_SWOLLEN = 0


def _swollen(folder: Path, part: str, head: bytes, body: bytes, tail: bytes) -> Path:
    """A workbook of which a part is `_SWOLLEN` megabytes of the same."""
    path = book(folder / "bomb.xlsx", change=lambda parts: parts.pop(part, None))
    block = body * (1_000_000 // len(body))
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open(part, "w", force_zip64=True) as to,
    ):
        to.write(head)
        for _ in range(_SWOLLEN):
            to.write(block)
        to.write(tail)
    return path


def _million_rows(folder: Path) -> Path:
    """As many lines as a sheet of Excel holds, in lessons of 40 topics."""
    topics, lines, texts = [], [], []
    for row in range(2, LAST_ROW // 40 + 2):
        at = row - 2
        topics.append(
            f'<row r="{row}"><c r="A{row}" t="s"><v>0</v></c><c r="B{row}"><v>{at // 40}</v></c>'
            f'<c r="C{row}"><v>{at % 40 * 80}</v></c><c r="D{row}" t="s"><v>1</v></c></row>'
        )
    for row in range(2, LAST_ROW + 1):
        at = row - 2
        texts.append(f"<si><t>so this is line {at} of what is said about all of this and more</t></si>")
        lines.append(
            f'<row r="{row}"><c r="A{row}" t="s"><v>0</v></c><c r="B{row}"><v>{at // 1600}</v></c>'
            f'<c r="C{row}"><v>{at % 1600 * 2}</v></c><c r="D{row}" t="s"><v>{at + 10}</v></c></row>'
        )

    def change(parts: Parts) -> None:
        first = ["A", "Title", "course_title", "lesson_num", "timestamp", "topic", "transcript", "", "", ""]
        strings = "".join(f"<si><t>{text}</t></si>" for text in first) + "".join(texts)
        for part, rows, last in ((FIRST, topics, 5), (SECOND, lines, 6)):
            cells = "".join(
                f'<c r="{letter}1" t="s"><v>{index}</v></c>'
                for letter, index in zip("ABCD", (2, 3, 4, last), strict=True)
            )
            start = parts[part].partition(b"<sheetData>")[0].decode()
            parts[part] = f'{start}<sheetData><row r="1">{cells}</row>{"".join(rows)}</sheetData></worksheet>'.encode()
        start = parts[STRINGS].partition(b"<si>")[0].decode()
        parts[STRINGS] = f"{start}{strings}</sst>".encode()

    return book(folder / "million.xlsx", change=change)
