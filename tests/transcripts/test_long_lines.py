"""Files that would be slow to read with backtracking patterns. The time must grow linearly with their length."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

SECONDS = 40  # of CPU time for all files of a test; a pattern that backtracks needs minutes for one
LENGTH = 200_000

READ = f"""
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
from pipeline.errors import Rejected
from pipeline.data.problems import WorkbookRejected
from pipeline.transcripts.reading import read_transcripts
for path in sys.argv[1:]:
    print("reading", Path(path).name, flush=True)
    try:
        read_transcripts(Path(path))
    except (Rejected, WorkbookRejected) as error:
        assert len(str(error)) < 1000, path
print("all are read")
"""

REPEATED = {
    "times": "1:1", "times and arrows": "0:00-->", "arrows": "-->", "arrows apart": " --> ", "digits": "1",
    "spaces": " ", "colons": ":", "zeros and colons": "0:", "tags": "<c ", "closed tags": "<c>", "times in tags": "<0:",
    "brackets": "[", "references": "&#1", "named references": "&a", "settings": "line:1 ", "half arrows": "1:1--",
    "commas": "1,1", "dashes": "1:1-", "parts of times": "1:1:1.1 ", "styles": "{\\an", "hours": "1 hour, ",
    "tokens": "://a:x", "emphasis": " *a",
}  # fmt: skip
AROUND = {"line": ("{}", "x"), "time": ("0:00 --> 0:01 {}", "x"), "words": ("0:00 {}", "x -->"), "end": ("{}", " -->")}


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr[-2000:]
    return done


@pytest.mark.parametrize("suffix", [".vtt", ".srt", ".txt"])
def test_a_long_repetitive_line_is_read_in_time(suffix: str, tmp_path: Path) -> None:
    head = {".vtt": "WEBVTT\n\n", ".srt": "1\n0:00 --> 0:01\nhello\n\n2\n", ".txt": "0:00 hello\n"}[suffix]
    for name, part in REPEATED.items():
        for where, (before, after) in AROUND.items():
            line = before.format(part * (LENGTH // len(part))) + after
            (tmp_path / f"{name}, {where}{suffix}").write_text(f"{head}{line}\n", encoding="utf-8")
    assert "all are read" in _run(READ, *map(str, sorted(tmp_path.iterdir()))).stdout


def test_cues_with_many_rows_are_read_in_time(tmp_path: Path) -> None:
    rows = "a\n" * LENGTH
    path = tmp_path / "rows.vtt"
    path.write_text(f"WEBVTT\n\n0:00 --> 0:01\n{rows}b\n\n0:01 --> 0:02\n{rows}\n", encoding="utf-8")
    _run(READ, str(path))


def test_a_numeric_reference_with_many_digits_stays_text(tmp_path: Path) -> None:
    from pipeline.transcripts.reading import read_transcripts

    path = tmp_path / "talk.srt"
    path.write_text(f"1\n0:00 --> 0:01\nbread &amp; butter\n\n2\n0:01 --> 0:02\n&#{'1' * 5000};\n", encoding="utf-8")
    ((first, second),) = [talk.lines for talk in read_transcripts(path)]
    assert (first.text, second.text[:4]) == ("bread & butter", "&#11")


@pytest.mark.parametrize(
    "cells",
    ['<c r="A1"{}/>'.format(' t="e"' * LENGTH), '<c r="A1" t="e">' * LENGTH, '<c r="A1"{}/>'.format(' t="s"' * LENGTH)],
)
def test_a_repetitive_sheet_is_checked_in_time(cells: str, tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        sheet = '<sheet name="lesson_transcripts" sheetId="1" r:id="a"/>'
        book.writestr("xl/workbook.xml", f'<workbook xmlns:r="{relations}"><sheets>{sheet}</sheets></workbook>')
        target = '<Relationship Id="a" Target="worksheets/sheet1.xml"/>'
        book.writestr("xl/_rels/workbook.xml.rels", f"<Relationships>{target}</Relationships>")
        book.writestr("xl/worksheets/sheet1.xml", f"<worksheet>{cells}</worksheet>")
        book.writestr("xl/sharedStrings.xml", f"<sst><si><t>{'x' * 10_000}</t></si></sst>")
    script = f"""
import resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
from pipeline.data.xlsx_archive import inspect_archive
inspect_archive(Path({str(path)!r}))
"""
    _run(script)


def test_repetitive_texts_are_cleaned_up_in_time() -> None:
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
import pandas as pd
from pipeline.redaction import hide_passwords
from pipeline.data.cell_values import as_lesson
from pipeline.evaluation.baselines import best_keyphrase
from pipeline.models.title_cleanup import clean_up_title
for part in ("://a:x", "://", "?password=", ";key=", "#code", ";token", "password", "x@", "://a:1@"):
    hide_passwords(part * ({LENGTH} // len(part)) + "x")
for text in ("0" * {LENGTH} + "!", "1." + "0" * {LENGTH} + "!", "0" * {LENGTH}):
    as_lesson(pd.Series([text]))
best_keyphrase(pd.DataFrame(), ["so 'a" + "'a" * {LENGTH}])
for part in ("-", ", ", "..", "*a ", " *a", "[a](/", "[", "'a ", "<b ", "“", "( "):
    clean_up_title("a" + part * ({LENGTH} // len(part)) + "b")
"""
    _run(script)
