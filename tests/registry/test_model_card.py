"""Model cards: their content, their places, and that text from a workbook cannot break out of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from pipeline.errors import Rejected, UsageError
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.leaderboard import CompareSettings, build_leaderboard
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.results import ModelMetrics, read_results, write_results
from pipeline.evaluation.score_names import SCORES
from pipeline.evaluation.title_measures import measure_models
from pipeline.files import write_json
from pipeline.models.checkpoints import Card, save_model
from pipeline.models.seen_examples import SeenExamples
from pipeline.models.title_cleanup import TitleStyle
from pipeline.paths import LEADERBOARD, SPLITS
from pipeline.registry.lineage import md5
from pipeline.registry.model_card import as_page, read_card
from pipeline.registry.tracking import connect, training_run
from pipeline.registry.version_segmenter import read_segmenter
from pipeline.registry.versions import get_version
from pipeline.settings import set_params
from pipeline.stages import register
from pipeline.training.record import Training, TrainingRun, read_training, write_training
from tests.chapters.small import write_boundaries, write_joint_scores
from tests.command import lectern
from tests.conftest import ROOT, SUBJECTS
from tests.models.small import small_model

HOSTILE = "<script>alert(1)</script> | *a* [b](javascript:alert(2))"


def card_of(number: int) -> str:
    client = connect()
    return read_card(client, client.get_model_version("lectern", str(number)))


@pytest.fixture(scope="module")
def registered(examples: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory: a project whose model `small` was trained, measured, compared and registered."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(ROOT / name, folder)
        set_params([], {"contestants": ["small"]})
        set_params(["models"], {"small": {"family": "causal"}})
        train(examples)
        lessons = write_splits(examples)
        remember_training(lessons)
        measure("small", lessons, good=6)
        for baseline in BASELINES:
            measure(baseline, lessons, good=1)
        compare()
        write_boundaries()
        write_joint_scores("small")
        register.run()
        yield folder


def train(examples: pd.DataFrame) -> None:
    folder = Path("models/small")
    folder.mkdir(parents=True)
    model, inputs = small_model("causal", examples)
    style = TitleStyle(opening="Intro")
    card = Card(
        model="small", family="causal", checkpoint="scratch", max_source_tokens=48, max_target_tokens=12, style=style
    )
    save_model(folder, model, inputs.tokenizer, card, "float32")


def write_splits(examples: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Eight lessons of one topic each, alike in all splits; the last but one is an opening whose title is right."""
    SPLITS.mkdir(parents=True)
    one = examples[examples["lesson_num"] == "1"]
    one = one.assign(opens=one["title"] == one["title"].iloc[-2])
    lessons = {
        split: one.assign(lesson_num=[f"{split} {place}" for place in range(len(one))])
        for split in ("train", "validation", "test")
    }
    lessons["test"].iloc[0, one.columns.get_loc("title")] = HOSTILE
    for split, lesson in lessons.items():
        lesson.to_parquet(SPLITS / f"{split}.parquet")
    return lessons


def remember_training(lessons: dict[str, pd.DataFrame]) -> None:
    connect()
    with training_run("small", params={"learning_rate": 0.25}, tags={}, splits={}) as run_id:
        pass
    lineage = {"data.workbook": "lessons.xlsx", "data.workbook.md5": "w" * 32, "git.commit": "c" * 40}
    lineage |= {f"data.{split}.md5": md5(SPLITS / f"{split}.parquet") for split in lessons}
    run = TrainingRun(run_id=run_id, parameters=1234, trainable_parameters=321, seconds=2.0, lineage=lineage)
    write_training("small", Training(run, pd.DataFrame(columns=["epoch"])))


def measure(model: str, lessons: dict[str, pd.DataFrame], good: int, otherwise: str = "Untitled") -> None:
    """Predictions of which the last `good` are perfect and the others of no use."""
    parts = []
    for split in ("validation", "test"):
        known = lessons[split][["course_title", "lesson_num", "start_seconds", "title"]].reset_index(drop=True)
        right = known.index >= len(known) - good
        said = known["title"].where(right, otherwise)
        scores = {score: right.astype(float) for score in SCORES}
        parts.append(known.assign(split=split, prediction=said, prediction_words=3, **scores))
    write_results(model, pd.concat(parts), EvaluateSettings.read(), seconds=1.0)


def compare() -> None:
    results = {model: read_results(model) for model in ["small", *BASELINES]}
    metrics: dict[str, ModelMetrics] = {model: measured for model, (measured, _) in results.items()}
    predictions = {model: scored for model, (_, scored) in results.items()}
    settings, evaluation = CompareSettings.read(), EvaluateSettings.read()
    titles, true_titles = measure_models(predictions, pd.read_parquet(SPLITS / "test.parquet"))
    board = build_leaderboard(
        ["small"],
        list(BASELINES),
        metrics,
        predictions,
        settings,
        evaluation=evaluation,
        training={"small": read_training("small").run},
        titles=titles,
        true_titles=true_titles,
    )
    write_json(LEADERBOARD, board.model_dump(mode="json"))


def test_the_card_shows_repeats_and_support_beside_those_of_the_true_titles(registered: Path) -> None:
    board = json.loads(LEADERBOARD.read_text())
    own, true = board["rows"][0]["titles"], board["true_titles"]
    for name, measure in (("repeats within a lesson", "repeats"), ("support: ", "support")):
        row = next(line for line in card_of(1).splitlines() if line.startswith(f"| {name}"))
        assert row.endswith(f"| {own[measure]:.3f} | {true[measure]:.3f} |")


def test_the_card_names_origin_and_quality(registered: Path) -> None:
    card = card_of(1)
    for fact in (
        "The best model is small, with rouge1 0.750",
        "beats the best baseline",
        f"| train | 8 | 8 | 1 | 540 | `{md5(SPLITS / 'train.parquet')}` |",
        "workbook `lessons.xlsx`, md5 `" + "w" * 32,
        "No lesson is in two splits.",
        "1,234 parameters, of which\n321 were trained",
        r"| learning\_rate | 0.25 |",
        "| **small** | 0.750",
        "| first-words | 0.125",
        "| course | Course | 8 | 8 | 0.750",
        "title: **Why threads matter**",
        "reads the first 48 tokens",
        "c" * 40,
        "`lectern lineage 1`",
    ):
        assert fact in card
    # A line too many between two rows would end a table.
    tokens = MarkdownIt("commonmark").enable("table").parse(card)
    assert not [token for token in tokens if token.type == "inline" and token.content.startswith("|")]


def test_openings_are_not_among_the_best_titles(registered: Path) -> None:
    best = card_of(1).split("## Its best titles")[1].split("## Its worst titles")[0]
    assert [subject in best for subject in SUBJECTS[-3:]] == [True, False, True]
    assert 'It titles the opening of a lesson "Intro"' in card_of(1)


def test_the_card_is_with_the_run_in_the_model_folder_and_in_the_description(registered: Path) -> None:
    client, card = connect(), card_of(1)
    version = client.get_model_version("lectern", "1")
    run = json.loads(Path("reports/training/small/run.json").read_text())["run_id"]
    assert version.run_id == run
    assert {each.path for each in client.list_artifacts(run, "cards")} == {
        "cards/version-1.md",
        "cards/version-1.html",
    }
    (readme,) = Path("mlartifacts").rglob("artifacts/small/README.md")
    assert readme.read_text(encoding="utf-8") == card
    assert readme.with_suffix(".html").read_text(encoding="utf-8") == as_page(card)
    assert (readme.parent / "model.safetensors").exists()
    assert "rouge1 0.750" in version.description
    assert "lectern card 1" in version.description


def test_the_card_does_not_change_the_hash_of_the_model_folder(registered: Path) -> None:
    assert connect().get_model_version("lectern", "1").tags["model.md5"] == md5(Path("models/small"))


def test_the_header_is_metadata_for_the_model_hub(registered: Path) -> None:
    head = yaml.safe_load(card_of(1).split("---\n")[1])
    (entry,) = head["model-index"]
    results = {metric["name"]: metric["value"] for result in entry["results"] for metric in result["metrics"]}
    assert results["rouge1"] == 0.75
    assert head["library_name"] == "transformers"
    assert "license" not in head


def test_html_in_a_workbook_is_shown_and_never_runs(registered: Path) -> None:
    done = lectern("card", "1", "--html", "card.html", cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    page = Path("card.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "href=" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | *a* [b](javascript:alert(2))" in page
    assert page.count("<table>") == 7
    assert "model-index" not in page


def test_a_missing_card_or_version_is_an_error_with_a_remedy(registered: Path) -> None:
    client = connect()
    client.create_registered_model("other")
    with pytest.raises(Rejected, match="lectern register"):
        read_card(client, client.create_model_version("other", "elsewhere"))
    with pytest.raises(UsageError, match="lectern models"):
        get_version(client, "lectern", 7)


def test_titles_of_another_test_split_are_rejected(registered: Path) -> None:
    test = SPLITS / "test.parquet"
    kept = test.read_bytes()
    try:
        test.write_bytes((SPLITS / "validation.parquet").read_bytes())
        with pytest.raises(Rejected, match="dvc repro"):
            register.run()
    finally:
        test.write_bytes(kept)


def test_the_card_warns_of_leaks_a_better_baseline_and_missing_titles(registered: Path) -> None:
    pd.read_parquet(SPLITS / "test.parquet").to_parquet(SPLITS / "train.parquet")
    lessons = {split: pd.read_parquet(SPLITS / f"{split}.parquet") for split in ("validation", "test")}
    measure("small", lessons, good=6, otherwise="")
    measure("keyphrase", lessons, good=8)
    compare()
    register.run()
    card = card_of(1)
    assert "**8 lessons are in more than one split**" in card
    assert "- It was not shown to beat the best baseline, keyphrase." in card
    assert "- It wrote no title for 2 of the test examples." in card


def test_a_description_by_a_person_stays_and_a_generated_one_is_renewed(registered: Path) -> None:
    client = connect()
    set_params(["compare"], {"metric": "rouge2"})
    compare()
    register.run()
    assert "rouge2 0.750" in client.get_model_version("lectern", "1").description
    client.update_model_version("lectern", "1", "Do not use for law.")
    register.run()
    assert client.get_model_version("lectern", "1").description == "Do not use for law."
    assert "rouge2 0.750" in card_of(1)


def test_the_card_counts_test_examples_that_the_model_has_seen(registered: Path) -> None:
    test = pd.read_parquet(SPLITS / "test.parquet")
    SeenExamples.of_training(test.head(3), test.head(0), None, "scratch").write(Path("models/small"))
    register.run()
    challenger = connect().get_model_version_by_alias("lectern", "challenger")
    assert "**3 test examples were in a training or validation split" in card_of(int(challenger.version))


@pytest.mark.usefixtures("registered")
def test_a_card_and_the_tags_say_how_chapters_are_found() -> None:
    assert "Chapters are found by content vectors: too few lessons." in card_of(1)
    assert r"(SODA\_c): 0.400 \[0.306, 0.494\] with chapters as served and titles by small" in card_of(1)
    tags = connect().get_model_version("lectern", "1").tags
    assert tags["segmenter"] == "content vectors"
    assert float(tags["boundaries.test.windowdiff"]) < 1
    assert tags["joint.test.soda_c"] == "0.4000"
    assert read_segmenter("lectern", "1").weights is None
