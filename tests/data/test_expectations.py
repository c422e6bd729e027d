import json
import os
import re
import shutil
from pathlib import Path

import great_expectations as gx
import pandas as pd
import pytest

from pipeline.data.expectations import require_valid
from pipeline.data.workbook import ingest
from pipeline.errors import Rejected, UsageError

EXPECTATIONS = Path(__file__).parents[2] / "expectations"


def topics(**changed):
    table = pd.DataFrame(
        {
            "course_title": ["Optics", "Optics", "Acoustics"],
            "lesson_num": ["1", "1", "2A"],
            "start_seconds": [0.0, 75.5, 0.0],
            "title": ["What light is", "Lenses", "What sound is"],
            "row": [2, 3, 4],
        }
    )
    return table.assign(**changed)


def lines(**changed):
    table = pd.DataFrame(
        {
            "course_title": ["Optics", "Optics", "Acoustics"],
            "lesson_num": ["1", "1", "2A"],
            "seconds": [0.0, 80.0, 3.0],
            "text": ["Light is a wave.", "A lens bends it.", "So is sound."],
            "row": [2, 3, 4],
        }
    )
    return table.assign(**changed)


def lessons(sides):
    return pd.DataFrame({"course_title": "Optics", "lesson_num": ["1", "2A"], "sides": sides, "examples": [3, 4]})


def check(folder, suite=None, **tables):
    """Validate `tables` against the shipped suites, or against `suite`; return the written result."""
    suites = {name: suite or EXPECTATIONS / f"{name}.json" for name in tables}
    require_valid(tables, suites, folder / "result.json", folder / "docs")
    return result_in(folder)


def result_in(folder):
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def rejection(folder, **tables):
    with pytest.raises(Rejected) as caught:
        check(folder, **tables)
    return str(caught.value)


def page(folder):
    return (folder / "docs" / "index.html").read_text(encoding="utf-8")


def edited_suite(folder, **changed):
    entry = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "title"}, "severity": "critical"}
    suite = {"name": "topics", "notes": "", "expectations": [entry | {"notes": ""} | changed]}
    path = folder / "suite.json"
    path.write_text(json.dumps(suite), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def accepted(tmp_path_factory):
    """A folder with the results of valid tables."""
    folder = tmp_path_factory.mktemp("accepted")
    check(folder, topics=topics(), lines=lines(), splits=lessons([1, 1]))
    return folder


@pytest.fixture(scope="module")
def rejected(tmp_path_factory):
    """A folder with the results of tables with several errors, and the message about them."""
    folder = tmp_path_factory.mktemp("rejected")
    wrong_topics = topics(
        title=["<script>alert(1)</script> " * 30, "", "What sound is"], start_seconds=[0.0, -3.0, 0.0], row=[2, 2, 4]
    )
    message = rejection(
        folder,
        topics=wrong_topics,
        lines=lines(seconds=[-1.0, 80.0, 3.0]).drop(columns="text"),
        splits=lessons([1, 2]),
    )
    return folder, message


def test_valid_tables_pass_with_warnings_counted(accepted):
    result = result_in(accepted)
    assert (result["success"], result["failed"]) == (True, {"warning": 1})  # three topics are few


def test_a_warning_is_logged(tmp_path, caplog):
    check(tmp_path, topics=topics())
    assert "There are at least 100 topics. Found: 3." in caplog.text


def test_a_rejection_lists_every_critical_failure_with_value_and_row(rejected):
    _, message = rejected
    for part in (
        'Every title has 1 to 40 words, separated by one space. Found: 2 of 3 unexpected, "<script>',
        '"" in row 2',
        "topics: Every row of the workbook occurs once.",
        "-1.0 in row 2",
        "there is no column text",
        "Every lesson is in exactly one split",
    ):
        assert part in message


def test_a_rejection_names_the_page_and_the_suite(rejected):
    folder, message = rejected
    assert str(folder / "docs" / "index.html") in message
    assert str(EXPECTATIONS / "topics.json") in message


def test_the_results_of_a_rejected_table_are_written(rejected):
    outcomes = result_in(rejected[0])["tables"][0]["outcomes"]
    failed = [outcome for outcome in outcomes if not outcome["success"] and outcome["columns"] == ["start_seconds"]]
    assert [(o["severity"], o["unexpected_count"], o["unexpected"]) for o in failed] == [
        ("critical", 1, [{"value": -3.0, "row": 2}])
    ]


def test_an_empty_table_is_rejected(tmp_path):
    assert "There is at least one line. Found: 0." in rejection(tmp_path, lines=lines()[:0])


def test_the_page_works_offline(accepted):
    assert not re.search(r"(src|href|url|import)\W*(https?:)?//", page(accepted))


def test_the_page_escapes_text_of_the_workbook(rejected):
    assert "<script" not in page(rejected[0])


def test_the_page_gives_the_reason_of_each_expectation(accepted):
    reasons = [entry["notes"] for entry in json.loads((EXPECTATIONS / "splits.json").read_text())["expectations"]]
    assert all(reason in page(accepted) for reason in reasons)


def test_the_same_data_gives_the_same_bytes(tmp_path, accepted):
    again = check(tmp_path, topics=topics(), lines=lines(), splits=lessons([1, 1]))
    assert (again, page(tmp_path)) == (result_in(accepted), page(accepted))


@pytest.mark.skipif("LECTERN_SHARED" not in os.environ, reason="LECTERN_SHARED does not say where the real workbook is")
def test_the_real_workbook_meets_every_expectation(tmp_path):
    workbook = ingest(Path(os.environ["LECTERN_SHARED"]) / "data" / "fsdl_2022_project_transcripts.xlsx")
    assert check(tmp_path, topics=workbook.topics, lines=workbook.lines)["failed"] == {}


def test_an_expectation_without_a_description_is_worded_by_great_expectations(tmp_path):
    written = check(tmp_path, edited_suite(tmp_path), topics=topics())
    assert written["tables"][0]["outcomes"][0]["expected"] == "title values must never be null."


def test_malformed_json_is_a_usage_error_that_names_file_and_place(tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text('{"name": "topics",\nrows}', encoding="utf-8")
    with pytest.raises(UsageError, match=r"broken\.json is not valid JSON: .* line 2"):
        check(tmp_path, broken, topics=topics())


def test_a_missing_suite_is_a_usage_error_that_names_it(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.json, the suite of topics, is missing"):
        check(tmp_path, tmp_path / "gone.json", topics=topics())


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"type": "expect_miracles"}, r"expectations\[0\], expect_miracles.*not found"),
        ({"kwargs": {"colunm": "title"}}, r"expectations\[0\], (?s:.)*colunm"),
        ({"severity": "dire"}, r"expectations.*0.*severity.*critical, warning, info"),
        ({"sevirity": "info"}, r"expectations.*0.*sevirity"),
    ],
)
def test_a_malformed_expectation_is_a_usage_error_that_names_its_place(tmp_path, changed, complaint):
    with pytest.raises(UsageError, match=complaint):
        check(tmp_path, edited_suite(tmp_path, **changed), topics=topics())


def test_the_shipped_suites_are_suites_of_a_gx_project(tmp_path):
    context = gx.get_context(mode="file", project_root_dir=tmp_path)
    shutil.copytree(EXPECTATIONS, tmp_path / "gx" / "expectations", dirs_exist_ok=True)
    suites = {suite.name: suite for suite in context.suites.all()}
    assert {name: len(suite.expectations) for name, suite in suites.items()} == {
        path.stem: len(json.loads(path.read_text())["expectations"]) for path in EXPECTATIONS.glob("*.json")
    }
    suites["topics"].save()  # which adds ids
    check(tmp_path, tmp_path / "gx" / "expectations" / "topics.json", topics=topics())


def test_the_suite_of_another_table_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="is the suite of topics, not of lines"):
        check(tmp_path, EXPECTATIONS / "topics.json", lines=lines())


def test_a_usage_error_is_found_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError):
        check(tmp_path, edited_suite(tmp_path, type="expect_miracles"), topics=topics())
    assert not (tmp_path / "result.json").exists()
