"""The report: one HTML file that anyone can open."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import Rejected
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.figures import as_svg, curves_figure
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.results import MEASURED_SPLITS, write_results
from pipeline.evaluation.score_names import SCORES
from pipeline.stages import collect, compare, report
from tests.chapters.small import write_boundaries, write_joint_scores

PARAMS = """
contestants: [trained, zero-shot]
compare: {metric: rouge1}
evaluate: {bertscore_model: some-model, bertscore_layers: 6, confidence: 0.95}
split: {by: lesson}
"""
HOSTILE = "<script>alert('title')</script><img src=x onerror=alert(1)>"
WORDS = ["soil", "water", "light", "bees", "seeds", "roots", "leaves", "frost"]


def split(name: str, examples: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(len(name))
    return pd.DataFrame(
        {
            "course_title": ["Gardens", "Kitchens & <b>Cellars</b>"] * (examples // 2),
            "lesson_num": ["2A"] * examples,
            "start_seconds": np.arange(examples) * 400.5,
            "title": [HOSTILE, *(" ".join(rng.choice(WORDS, 3)) for _ in range(examples - 1))],
            "text": [
                "<script>alert('text')</script> " + " ".join(rng.choice(WORDS, 40 * (n + 1))) for n in range(examples)
            ],
        }
    )


def predict(model: str) -> pd.DataFrame:
    rng = np.random.default_rng(len(model))
    frames = []
    for name in MEASURED_SPLITS:
        known = split(name)[["course_title", "lesson_num", "start_seconds", "title"]]
        known = known.assign(split=name, prediction=["", HOSTILE, *rng.choice(WORDS, 10)], prediction_words=1)
        frames.append(known.assign(**{score: rng.random(len(known)) for score in SCORES}))
    return pd.concat(frames, ignore_index=True)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project folder with all results of the evaluation, as the working directory."""
    monkeypatch.chdir(tmp_path)
    fill_project()
    return tmp_path


def fill_project() -> None:
    """Write all results of the evaluation into the working directory."""
    Path("params.yaml").write_text(PARAMS)
    Path("data/splits").mkdir(parents=True)
    split("test").to_parquet("data/splits/test.parquet")
    for model in ["trained", "zero-shot", *BASELINES]:
        write_results(model, predict(model), EvaluateSettings.read(), seconds=3)
    columns = [
        "epoch",
        "step",
        "train_loss",
        "validation_loss",
        "rouge1",
        "rouge2",
        "rougeL",
        "rougeLsum",
        "learning_rate",
    ]
    for model, epochs in {"trained": 3, "zero-shot": 0}.items():
        folder = Path("reports/training") / model
        folder.mkdir(parents=True)
        pd.DataFrame([[n + 1, *[1 / (n + 1)] * 8] for n in range(epochs)], columns=columns).to_csv(
            folder / "curves.csv", index=False
        )
        run = {
            "run_id": "a1b2c3",
            "parameters": 61_000_000,
            "trainable_parameters": 512,
            "seconds": 7200,
            "lineage": {},
        }
        (folder / "run.json").write_text(json.dumps(run))
        Path("models", model).mkdir(parents=True)
    collect.run()
    write_boundaries()
    write_joint_scores("trained")


def run_stages() -> None:
    compare.run()
    report.run()


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    """A project folder in which the stages `compare` and `report` have run."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fill_project()
        run_stages()
    return folder


@pytest.fixture
def page(compared) -> str:
    return (compared / "reports/report.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """The names, link targets and event handlers of a page's elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.targets: set[str] = set()
        self.handlers: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        self.targets |= {value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "data")}
        self.handlers |= {name for name, _ in attributes if name.startswith("on")}


def test_the_report_names_the_independent_units_and_their_limits(page):
    assert "is computed over lessons, the independent units" in page
    assert "too few lessons to tell" in page
    assert page.count('<span class="tag">tied</span>') == 2
    assert "Warning: the validation split has 2 lessons" in page


def test_text_of_a_workbook_or_a_model_never_runs(page):
    elements = Elements(page)
    assert not elements.names & {"script", "img"}
    assert not elements.handlers


def test_hostile_titles_are_escaped(page):
    assert page.count("&lt;script&gt;alert(&#39;title&#39;)") >= 2


def test_a_hostile_course_is_escaped(page):
    assert "Kitchens &amp; &lt;b&gt;Cellars&lt;/b&gt;" in page


def test_the_report_links_to_no_host(page):
    assert {target for target in Elements(page).targets if not target.startswith("#")} == set()


def test_the_report_contains_no_address(page):
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page)


def test_the_same_files_give_the_same_report(page, compared, monkeypatch):
    monkeypatch.chdir(compared)
    run_stages()
    assert Path("reports/report.html").read_text(encoding="utf-8") == page


def test_the_stages_write_only_their_three_files(compared):
    assert sorted(path.name for path in (compared / "reports").iterdir() if path.is_file()) == [
        "boundaries.json",  # from the stage `segment`
        "contestants.json",  # like curves.csv, from the stage `collect`
        "curves.csv",
        "joint.json",  # from the stage `joint`
        "leaderboard.json",
        "leaderboard.md",
        "report.html",
    ]


def test_the_leaderboard_is_printed(project, capsys):
    compare.run()
    assert capsys.readouterr().out.startswith("The best model is ")
    report.run()
    assert capsys.readouterr().out.startswith("# Leaderboard")


def test_a_trained_model_has_curves(page):
    assert "Losses and scores of trained by epoch" in page


def test_an_untrained_model_has_no_curves(page):
    assert "Losses and scores of zero-shot by epoch" not in page


def test_the_cost_of_a_model_is_shown(page):
    assert "61.0 M" in page and "2.0 h" in page  # noqa: PT018


def test_every_test_example_has_a_card(page):
    assert page.count("<article>") == len(split("test"))


def test_an_empty_title_is_shown_as_no_title(page):
    assert "no title" in page


def test_the_start_of_an_example_is_shown_as_a_clock(page):
    assert "1:06:45" in page


def test_text_lengths_are_grouped(page):
    assert "up to 100 words" in page


def test_a_missing_training_record_is_rejected_with_the_command_to_run(project):
    Path("reports/training/trained/run.json").unlink()
    with pytest.raises(Rejected, match=r"'trained' has not been trained\. Run `dvc repro`"):
        run_stages()


def test_a_damaged_training_record_is_rejected(project):
    Path("reports/training/trained/run.json").write_text("{")
    with pytest.raises(Rejected, match="training record of 'trained'"):
        run_stages()


def test_results_of_another_test_split_are_rejected(project):
    split("test").head(6).to_parquet("data/splits/test.parquet")
    with pytest.raises(Rejected, match="was evaluated on another test split"):
        run_stages()


def test_a_model_without_scores_is_rejected_and_nothing_is_written(project):
    Path("reports/results/trained.json").unlink()
    with pytest.raises(Rejected, match="'trained' has no scores yet"):
        run_stages()
    assert not Path("reports/leaderboard.json").exists()


def test_a_figure_in_a_page_uses_its_colours():
    svg = as_svg(curves_figure(pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.0]})), "curves")
    assert "var(--ink)" in svg and "#1b1f27" not in svg  # noqa: PT018


def test_bertscore_is_drawn_if_the_training_measured_it():
    curves = pd.DataFrame({"epoch": [1, 2], "rouge1": [0.1, 0.2], "bertscore_f1": [0.5, 0.6]})
    drawn = as_svg(curves_figure(curves, "some-model, layer 6"), "curves")
    assert "BERTScore F1 by some-model, layer 6" in drawn
    assert "BERTScore" not in as_svg(curves_figure(curves.drop(columns="bertscore_f1")), "curves")


def test_empty_curves_can_be_drawn():
    assert as_svg(curves_figure(pd.DataFrame({"epoch": [], "train_loss": []})), "curves").startswith("<svg")


def test_repeats_and_support_are_shown_with_those_of_the_true_titles(page, compared):
    board = json.loads((compared / "reports/leaderboard.json").read_text())
    for measures in (board["true_titles"], *(row["titles"] for row in board["rows"])):
        assert all(0 <= value <= 1 for value in measures.values())
    assert f"{board['true_titles']['support']:.3f}" in page
    assert "Repeats: the share of titles" in (compared / "reports/leaderboard.md").read_text()


def test_the_report_shows_where_chapters_start(compared):
    page = (compared / "reports/report.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="chapters">') :].partition("</section>")[0]
    assert "Chapters are found by content vectors: too few lessons." in section
    assert section.count('class="tag">in use') == 2
    assert section.count("<svg") == 2
    assert "Topics and found chapters of lesson 1 of C" in section
    board = json.loads((compared / "reports/boundaries.json").read_text(encoding="utf-8"))
    marks = sum(len(lesson["true"]) + len(lesson["found"]) for lesson in board["pictures"])
    assert section.count("<line ") == marks > 10


def test_the_score_of_whole_lessons_stands_beside_those_of_simpler_ways(page, compared):
    section = page[page.index('<section id="joint">') :].partition("</section>")[0]
    assert section.count("<tr") == 3
    assert "0.400" in section and "+0.250" in section  # noqa: PT018
    leaderboard = (compared / "reports/leaderboard.md").read_text(encoding="utf-8")
    wanted = "(SODA_c): 0.400 [0.306, 0.494] with chapters as served and titles by trained; 0.150"
    assert wanted in leaderboard
    assert "with content vectors and titles by keyphrases, on 6 test lessons." in leaderboard
