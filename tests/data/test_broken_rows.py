"""Rows with errors are set aside, and the other rows are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.examples import build_examples
from pipeline.data.problems import WorkbookRejected
from pipeline.data.workbook import Workbook, ingest, read_workbook
from pipeline.stages import ingest as ingest_stage
from pipeline.stages import merge as merge_stage
from tests.command import lectern

Row = Sequence[object]

TOPICS: list[Row] = [
    ["Clouds", "1", "0:00", "What clouds are"],
    ["Clouds", "1", "1:00", "How clouds form"],
    ["Clouds", "1", "2:00", "Rain"],
    ["Clouds", "2", "0:00", "Snow"],
]
LINES: list[Row] = [
    ["Clouds", "1", "0:05", "look up"],
    ["Clouds", "1", "1:05", "air rises"],
    ["Clouds", "1", "2:05", "it falls"],
    ["Clouds", "2", "0:05", "white flakes"],
]


def tables(folder: Path, topics: Sequence[Row] = TOPICS, lines: Sequence[Row] = LINES) -> Path:
    names = ["course_title", "lesson_num", "timestamp"]
    pd.DataFrame(topics, columns=[*names, "topic"]).to_csv(folder / "lesson_topics.csv", index=False)
    pd.DataFrame(lines, columns=[*names, "transcript"]).to_csv(folder / "lesson_transcripts.csv", index=False)
    return folder


def changed(rows: Sequence[Row], at: int, column: int, value: object) -> list[Row]:
    return [[*row[:column], value, *row[column + 1 :]] if n == at else row for n, row in enumerate(rows)]


def aside(workbook: Workbook) -> list[tuple[str, int]]:
    return [*zip(workbook.set_aside["what"], workbook.set_aside["row"].tolist(), strict=True)]


def test_a_workbook_with_a_broken_row_is_refused_unless_rows_are_set_aside(tmp_path: Path) -> None:
    tables(tmp_path, lines=changed(LINES, 1, 2, "soon"))
    with pytest.raises(WorkbookRejected, match="--set-aside"):
        ingest(tmp_path)
    used = ingest(tmp_path, set_aside=True)
    assert (used.lines["text"].tolist(), aside(used)) == (["look up", "it falls", "white flakes"], [("line", 3)])
    assert "'soon' is not a time" in used.set_aside["reason"].iloc[0]


def test_of_two_topics_with_one_start_the_first_is_used(tmp_path: Path) -> None:
    used = ingest(tables(tmp_path, [*TOPICS, ["Clouds", "1", "1:00", "Another"]]), set_aside=True)
    examples = build_examples(used.topics, used.lines).examples
    assert (len(examples), aside(used)) == (4, [("topic", 6)])


def test_lines_of_a_topic_without_a_title_do_not_count_to_the_topic_before(tmp_path: Path) -> None:
    used = ingest(tables(tmp_path, changed(TOPICS, 1, 3, "")), set_aside=True)
    assert aside(used) == [("topic", 3), ("line", 3)]


def test_a_topic_above_one_without_a_time_is_set_aside_because_its_end_is_unknown(tmp_path: Path) -> None:
    used = ingest(tables(tmp_path, changed(TOPICS, 1, 2, "soon")), set_aside=True)
    assert aside(used) == [("topic", 2), ("topic", 3), ("line", 2), ("line", 3)]


def test_a_row_with_too_many_cells_is_set_aside_with_all_its_cells(tmp_path: Path) -> None:
    tables(tmp_path)
    with (tmp_path / "lesson_transcripts.csv").open("a") as file:
        file.write('Clouds,1,2:08,"two\nlines"\nClouds,1,2:10,hail, sleet\n\nClouds,1,2:12,snow\n')
    used = ingest(tmp_path, set_aside=True)
    assert (aside(used), used.set_aside["text"].tolist()) == ([("line", 7)], ["hail, sleet"])
    assert used.lines["row"].tolist() == [2, 3, 4, 5, 6, 9]


def test_lone_quotation_marks_that_swallow_rows_are_an_error(tmp_path: Path) -> None:
    tables(tmp_path)
    head, *rows = (tmp_path / "lesson_transcripts.csv").read_text().splitlines()
    rows[0], rows[2] = 'Clouds,1,0:05,"look up', 'Clouds,1,2:05,"it falls'
    (tmp_path / "lesson_transcripts.csv").write_text("\n".join([head, *rows]))
    found = [(p.severity, p.kind, p.row) for p in read_workbook(tmp_path).problems]
    assert ("error", "open quotation mark", 2) in found


def test_a_sheet_without_a_right_row_is_refused(tmp_path: Path) -> None:
    tables(tmp_path, [[*row[:3], ""] for row in TOPICS])
    with pytest.raises(WorkbookRejected, match="No row is left"):
        ingest(tmp_path, set_aside=True)


def test_errors_of_a_whole_sheet_are_not_set_aside(tmp_path: Path) -> None:
    tables(tmp_path, changed(TOPICS, 1, 3, ""))
    (tmp_path / "lesson_transcripts.csv").unlink()
    with pytest.raises(WorkbookRejected, match=r"lesson_transcripts\.csv"):
        ingest(tmp_path, set_aside=True)


def test_the_stages_write_the_broken_rows_with_the_other_rows_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tables(tmp_path, lines=[*changed(LINES, 1, 2, "soon"), ["Clouds", "3", "0:00", "no topics"]])
    Path("params.yaml").write_text("ingest: {workbook: ., broken_rows: set-aside}")
    for folder in ("data/interim", "data/examples"):
        Path(folder).mkdir(parents=True)
    ingest_stage.run()
    merge_stage.run()
    written = pd.read_csv("data/examples/set_aside.csv", encoding="utf-8-sig")
    assert written[["what", "row"]].to_numpy().tolist() == [["line", 3], ["line", 6], ["topic", 3]]
    assert len(written) + len(pd.read_parquet("data/examples/examples.parquet")["lines"].explode()) == 5 + 1
    said = capsys.readouterr().out
    assert "1 rows set aside" in said
    assert "1 x set aside: bad timestamp" in said


def test_check_says_what_would_be_set_aside(tmp_path: Path) -> None:
    tables(tmp_path, lines=changed(LINES, 1, 2, "soon"))
    refused = lectern("check", tmp_path, cwd=tmp_path)
    accepted = lectern("check", "--set-aside", tmp_path, cwd=tmp_path)
    assert (refused.returncode, accepted.returncode) == (1, 0)
    assert "lectern use --set-aside" in refused.stdout
    assert "4 topics, 3 lines, 1 rows set aside" in accepted.stdout


cell = st.sampled_from(["", "0:30", "1:00", "soon", "#N/A", "1", "Clouds", "-5", "words"])
row = st.one_of(st.sampled_from([*TOPICS, *LINES]), st.lists(cell, min_size=4, max_size=4))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(row, min_size=1, max_size=8), st.lists(row, min_size=1, max_size=8))
def test_no_row_is_lost(tmp_path: Path, topics: list[Row], lines: list[Row]) -> None:
    read = read_workbook(tables(tmp_path, topics, lines), set_aside=True)
    if not read.only_rows_broken:
        return
    built = build_examples(read.topics, read.lines)
    both = pd.concat([built.set_aside, read.set_aside])["what"].value_counts()
    filled = [sum(any(cell for cell in row) for row in rows) for rows in (topics, lines)]
    assert len(built.examples) + both.get("topic", 0) == filled[0]
    assert built.examples["lines"].map(len).sum() + both.get("line", 0) == filled[1]
