"""The blind comparison of titles: its page in a browser, and the table of its answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import expect, sync_playwright

from pipeline.evaluation.predicted_titles import title_table, write_titles
from tests.conftest import ROOT
from tests.server.running_server import BROWSER_FLAGS

TEXT = "</script><b>so we talk about subject {}"


def blind(*words: str) -> str:
    """Run the benchmark in the working directory."""
    command = [sys.executable, ROOT / "benchmarks/blind.py", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ).stdout


@pytest.fixture
def titled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the titles of `good` and `poor`, which agree on one of seven passages."""
    monkeypatch.chdir(tmp_path)
    test = pd.DataFrame(
        [("C", "1", 60.0 * n, f"Subject {n}", TEXT.format(n)) for n in range(7)],
        columns=["course_title", "lesson_num", "start_seconds", "title", "text"],
    )
    Path("data/splits").mkdir(parents=True)
    test.to_parquet("data/splits/test.parquet")
    for model, title in (("good", "Good {}"), ("poor", "Poor {}")):
        titles = ["Alike", *(title.format(n) for n in range(1, 7))]
        write_titles(model, title_table(test, titles, "test"), 1.0, {"test": 0})
    return tmp_path


def test_a_person_judges_by_keyboard_and_the_table_names_the_models(titled: Path) -> None:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed")
    assert "6 of the 6 passages" in blind("write", "good", "poor")
    page = (titled / "blind.html").read_text()
    assert not any(word in page for word in ('"good"', '"poor"', "https://", "http://"))
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        browser = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS, env={**os.environ, "HOME": home})
        window = browser.new_page()
        window.goto((titled / "blind.html").as_uri())
        expect(window.locator("#passage")).to_contain_text("</script><b>so we talk about subject")

        def press_better() -> None:
            left = window.locator("#titles span").first.inner_text()
            window.keyboard.press("ArrowLeft" if left.startswith("Good") else "ArrowRight")

        press_better()
        window.keyboard.press("ArrowDown")
        window.keyboard.press("Backspace")
        expect(window.locator("#progress")).to_have_text("2 of 6")
        for _ in range(3):
            press_better()
        window.reload()
        expect(window.locator("#progress")).to_have_text("5 of 6")
        window.keyboard.press("ArrowDown")
        window.get_by_role("button", name="Both are unusable").click()
        expect(window.locator("#progress")).to_contain_text("All 6 are judged")
        with window.expect_download() as downloading:
            window.keyboard.press("s")
        downloading.value.save_as(titled / "answers.json")
        browser.close()
    table = blind("table", "answers.json")
    for row in ("| good is better | 4 |", "| poor is better | 0 |", "| both are as good | 1 |", "unusable | 1 |"):
        assert row in table
    assert "good is better in 100% of the decided pairs [40%, 100%], p = 0.12 (sign test)." in table


def test_titles_can_be_compared_with_the_true_ones_and_answers_need_their_key(titled: Path) -> None:
    blind("write", "poor", "true-titles", "--pairs", "3", "--out", "true.html")
    key = json.loads((titled / "true.key.json").read_text())
    assert [sorted(each.values()) for each in key["sides"]] == [["poor", "true-titles"]] * 3
    (titled / "answers.json").write_text(json.dumps({"id": "another", "answers": []}))
    with pytest.raises(subprocess.CalledProcessError) as failed:
        blind("table", "answers.json", "--key", "true.key.json")
    assert "another page than the key" in failed.value.stderr
