"""The leaderboard: ranking, choice of the best model, and comparison with the baselines."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipeline.errors import Rejected, UsageError
from pipeline.evaluation.comparison import format_interval
from pipeline.evaluation.costs import costs_of
from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.leaderboard import CompareSettings, Leaderboard, build_leaderboard, read_leaderboard
from pipeline.evaluation.leaderboard_text import as_markdown, as_rich_table
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.results import MEASURED_SPLITS, summarise
from pipeline.evaluation.score_names import SCORES
from pipeline.settings import check, read_contestants
from pipeline.training.record import TrainingRun

EVALUATION = EvaluateSettings(bertscore_model="some-model", bertscore_layers=6, confidence=0.95)
NOISE = np.random.default_rng(1).random(50) / 10


def scored(validation: float, test: float, examples: int = 40) -> pd.DataFrame:
    """Return scored titles with the given mean scores."""
    splits = []
    for split, mean in zip(MEASURED_SPLITS, (validation, test), strict=True):
        frame = pd.DataFrame(
            {"split": split, "course_title": "Gardens", "lesson_num": [str(n) for n in range(examples)]}
        )
        frame = frame.assign(start_seconds=0.0, title="Bees", prediction="Bees", prediction_words=1)
        splits.append(frame.assign(**{score: np.clip(mean + NOISE[:examples], 0, 1) for score in SCORES}))
    return pd.concat(splits, ignore_index=True)


def build(
    models: dict[str, pd.DataFrame],
    metric: str = "rouge1",
    evaluation: EvaluateSettings = EVALUATION,
    parameters: dict[str, int] | None = None,
    seen: dict[str, dict[str, int]] | None = None,
    trainings: dict[str, TrainingRun] | None = None,
) -> Leaderboard:
    """Build a leaderboard of `models`; a dash marks a baseline."""
    named = {name.lstrip("-"): frame for name, frame in models.items()}
    return build_leaderboard(
        [name for name in models if not name.startswith("-")],
        [name.lstrip("-") for name in models if name.startswith("-")],
        {
            name: summarise(name, frame, EVALUATION, seconds=1, seen=(seen or {}).get(name))
            for name, frame in named.items()
        },
        named,
        CompareSettings(metric=metric),
        evaluation=evaluation,
        training=trainings
        or {name: a_training((parameters or {}).get(name, 100)) for name in models if not name.startswith("-")},
    )


def a_training(parameters: int = 100, *, trained: bool = True, checkpoint: str | None = "t5-small") -> TrainingRun:
    return TrainingRun(
        run_id="run",
        parameters=parameters,
        trainable_parameters=parameters if trained else 0,
        seconds=90.0 if trained else 0.0,
        lineage={"checkpoint": checkpoint} if checkpoint else {},
    )


@pytest.fixture(scope="module")
def board() -> Leaderboard:
    return build(
        {
            "strong": scored(0.5, 0.5),
            "weak": scored(0.2, 0.1),
            "-keyphrase": scored(0.3, 0.3),
            "-words": scored(0.1, 0.6),
        }
    )


def test_models_are_ranked_on_the_validation_split_and_baselines_stand_below(board):
    assert [row.model for row in board.rows] == ["strong", "weak", "keyphrase", "words"]


def test_the_best_is_never_a_baseline():
    assert build({"poor": scored(0.1, 0.1), "-keyphrase": scored(0.9, 0.9)}).best == "poor"


def test_the_best_baseline_is_chosen_on_the_validation_split(board):
    assert board.best_baseline == "keyphrase"


def test_a_model_that_is_better_with_confidence_beats_the_best_baseline(board):
    assert board.row("strong").verdict == "beats the best baseline"


def test_a_model_that_is_worse_with_confidence_gets_that_verdict(board):
    assert board.row("weak").verdict == "worse than the best baseline (keyphrase)"


def test_a_lead_that_may_be_chance_does_not_beat_the_baseline():
    lucky = scored(0.5, 0.5)
    lucky["rouge1"] += np.where(lucky.index % 2, 0.3, -0.28)
    board = build({"lucky": lucky, "-keyphrase": scored(0.5, 0.5)})
    assert board.row("lucky").difference.mean > 0
    assert not board.best_beats_baselines
    assert board.row("lucky").verdict == "not told apart from the best baseline (keyphrase)"


def test_a_model_trained_on_validation_examples_is_not_chosen_if_another_model_was_not():
    models = {"further": scored(0.9, 0.6), "fresh": scored(0.5, 0.5), "-keyphrase": scored(0.3, 0.3)}
    board = build(models, seen={"further": {"validation": 12, "test": 3}})
    assert [row.model for row in board.rows] == ["fresh", "further", "keyphrase"]
    assert (board.best, board.leader, board.ties) == ("fresh", "fresh", ["fresh"])
    assert (
        "further, or a model it started from, was trained on 12 of the 40 validation examples, and trained or selected "
        "on 3 of the 40 test examples: its scores there are too good. It cannot be the best model, because other "
        "models were not trained on validation examples."
    ) in as_markdown(board, {})


def test_models_that_were_all_trained_on_validation_examples_all_take_part():
    models = {"further": scored(0.9, 0.6), "fresh": scored(0.5, 0.5), "-keyphrase": scored(0.3, 0.3)}
    seen = {"further": {"validation": 12, "test": 3}, "fresh": {"validation": 1, "test": 0}}
    board = build(models, seen=seen)
    assert board.best == "further"
    text = as_markdown(board, {})
    assert "cannot be the best" not in text
    assert "It has seen 3 of the 40 test examples, so its score is too good." in text
    assert "fresh, or a model it started from, was trained on 1 of the 40 validation examples: its" in text


def test_equal_models_do_not_beat_each_other():
    assert build({"same": scored(0.3, 0.3), "-keyphrase": scored(0.3, 0.3)}).row("same").difference.mean == 0


def test_the_difference_is_taken_on_the_test_split(board):
    assert board.row("strong").difference.mean == pytest.approx(0.2)


def test_a_row_has_the_interval_of_the_metric_on_the_test_split(board):
    shown = board.row("weak").test["rouge1"]
    assert shown.mean == pytest.approx(scored(0.2, 0.1).query("split == 'test'")["rouge1"].mean())
    assert shown.low < shown.mean < shown.high


@pytest.mark.parametrize("score", SCORES)
def test_every_score_has_its_interval(board, score):
    interval = board.row("strong").test[score]
    assert interval.low < interval.mean < interval.high
    row = next(line for line in as_markdown(board, {}).splitlines() if "**strong**" in line)
    assert row.count(format_interval(interval)) == len(SCORES)  # all scores are equal here
    assert "The independent units are lessons" in as_markdown(board, {})


def test_the_metric_decides_the_ranking():
    odd = scored(0.2, 0.2)
    odd["rougeL"] = 0.9
    assert build({"odd": odd, "even": scored(0.3, 0.3), "-keyphrase": scored(0.1, 0.1)}, metric="rougeL").best == "odd"


def test_the_order_of_the_examples_does_not_matter(board):
    shuffled = scored(0.5, 0.5).sample(frac=1, random_state=1)
    again = build(
        {"strong": shuffled, "weak": scored(0.2, 0.1), "-keyphrase": scored(0.3, 0.3), "-words": scored(0.1, 0.6)}
    )
    assert again.row("strong").difference == board.row("strong").difference


def test_a_model_with_other_examples_is_rejected_by_name():
    with pytest.raises(Rejected, match="'stale' and 'keyphrase' were evaluated on different examples"):
        build({"good": scored(0.5, 0.5), "stale": scored(0.5, 0.5, examples=39), "-keyphrase": scored(0.3, 0.3)})


def test_a_model_with_other_true_titles_is_rejected():
    renamed = scored(0.5, 0.5).assign(title="Wasps")
    with pytest.raises(Rejected, match="'renamed' and 'keyphrase' were evaluated on different examples"):
        build({"renamed": renamed, "-keyphrase": scored(0.3, 0.3)})


def test_intervals_with_another_confidence_are_rejected():
    models = {"strong": scored(0.5, 0.5), "-words": scored(0.1, 0.1)}
    with pytest.raises(Rejected, match=r"a confidence of 0\.95, but evaluate\.confidence is 0\.8"):
        build(models, evaluation=EVALUATION.model_copy(update={"confidence": 0.8}))


def build_with_other(measured: dict[str, str]) -> Leaderboard:
    """Build a leaderboard of two models that were measured in different ways."""
    frames = {"other": scored(0.5, 0.5), "keyphrase": scored(0.3, 0.3)}
    metrics = {name: summarise(name, frame, EVALUATION, seconds=1) for name, frame in frames.items()}
    metrics["other"] = metrics["other"].model_copy(update=measured)
    return build_leaderboard(
        ["other"],
        ["keyphrase"],
        metrics,
        frames,
        CompareSettings(metric="rouge1"),
        evaluation=EVALUATION,
        training={"other": a_training()},
    )


def test_scores_from_different_bertscore_models_are_rejected():
    with pytest.raises(Rejected, match="'other' was scored by the BERTScore model 'roberta-large'"):
        build_with_other({"bertscore_model": "roberta-large"})


def in_lessons(frame: pd.DataFrame, lessons: int) -> pd.DataFrame:
    """Spread the examples over fewer lessons."""
    return frame.assign(lesson_num=(frame["lesson_num"].astype(int) % lessons).astype(str), start_seconds=frame.index)


def test_one_example_is_too_few_to_beat_a_baseline():
    one = build({"one": scored(0.5, 0.586, examples=1), "-keyphrase": scored(0.3, 0.3, examples=1)})
    assert (one.best, one.best_beats_baselines) == ("one", False)
    assert one.row("one").test["rouge1"] == Interval(pytest.approx(0.586, abs=0.1), 0, 1)
    page = as_markdown(one, {})
    assert "too few lessons to tell whether it beats the best baseline (keyphrase)" in page
    assert "on 1 test lesson, and 5 are needed" in page


@pytest.mark.parametrize(("lessons", "beats"), [(4, False), (5, True), (40, True)])
def test_few_lessons_are_too_few_even_with_many_examples(lessons, beats):
    models = {"strong": scored(0.5, 0.5), "-keyphrase": scored(0.3, 0.3)}
    found = build({name: in_lessons(frame, lessons) for name, frame in models.items()})
    assert found.best_beats_baselines == beats
    assert found.row("strong").verdict == ("beats the best baseline" if beats else "too few lessons to tell")
    assert (found.row("strong").difference.low > 0) == beats
    assert f"40 examples of {lessons} lessons" in as_markdown(found, {})


def test_a_lead_counts_by_lesson():
    """The model leads in 25 of 40 examples, but only in 5 of 8 lessons."""
    lucky = in_lessons(scored(0.5, 0.5), 8)
    lucky["rouge1"] += np.where(lucky["lesson_num"].astype(int) < 5, 0.2, -0.2)
    assert not build({"lucky": lucky, "-keyphrase": in_lessons(scored(0.5, 0.5), 8)}).best_beats_baselines


def test_examples_are_the_units_of_a_random_split(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = {"strong": in_lessons(scored(0.5, 0.5), 2), "-keyphrase": in_lessons(scored(0.3, 0.3), 2)}
    (tmp_path / "params.yaml").write_text("split: {by: lesson}")
    assert not build(models).best_beats_baselines
    (tmp_path / "params.yaml").write_text("split: {by: random}")
    assert build(models).best_beats_baselines
    assert "The independent units are examples, because split.by is random" in as_markdown(build(models), {})


def test_intervals_over_lessons_and_over_examples_cannot_be_compared():
    with pytest.raises(Rejected, match="'other' were computed over examples, but those of 'keyphrase' over lessons"):
        build_with_other({"unit": "example"})


def noisy(mean: float, spread: float, seed: int) -> pd.DataFrame:
    """Return scored titles of 12 lessons with random differences."""
    frame = in_lessons(scored(mean, mean), 12)
    by_lesson = np.random.default_rng(seed).normal(0, spread, 12)
    by_lesson -= by_lesson.mean()
    return frame.assign(rouge1=np.clip(frame["rouge1"] + by_lesson[frame["lesson_num"].astype(int)], 0, 1))


def test_the_smallest_model_within_a_standard_error_is_the_best():
    models = {"large": noisy(0.51, 0.1, 1), "small": noisy(0.5, 0.1, 2), "-words": in_lessons(scored(0.1, 0.1), 12)}
    board = build(models, parameters={"large": 1000, "small": 10})
    assert [row.model for row in board.rows] == ["small", "large", "words"]
    assert (board.leader, board.best, board.ties) == ("large", "small", ["small", "large"])
    page = as_markdown(board, {})
    assert "The best model is small" in page
    assert "chosen over large" in page
    assert "cannot tell small and large apart" in page
    assert page.count("(tied)") == 2
    assert build(models, parameters={"large": 10, "small": 1000}).best == "large"


def test_the_better_of_two_models_of_the_same_size_is_the_best():
    models = {"first": noisy(0.5, 0.1, 1), "second": noisy(0.51, 0.1, 2), "-words": scored(0.1, 0.1)}
    models["-words"] = in_lessons(models["-words"], 12)
    assert build(models).best == "second"


def test_a_smaller_model_that_is_clearly_worse_is_not_chosen():
    smaller = build(
        {"large": scored(0.5, 0.5), "small": scored(0.3, 0.3), "-words": scored(0.1, 0.1)}, parameters={"small": 1}
    )
    assert (smaller.best, smaller.ties) == ("large", ["large"])
    assert "tied" not in as_markdown(smaller, {})


def test_a_tied_model_far_behind_the_best_mean_is_not_chosen():
    models = {"large": scored(0.5, 0.5), "small": scored(0.1, 0.1), "-words": scored(0.1, 0.1)}
    board = build({name: in_lessons(frame, 2) for name, frame in models.items()}, parameters={"small": 1})
    assert (board.best, board.ties) == ("large", ["large", "small"])
    assert "Warning: the validation split has 2 lessons, but 5 are needed" in as_markdown(board, {})


def test_one_validation_lesson_chooses_by_the_mean():
    models = {"large": scored(0.5, 0.5), "small": scored(0.49, 0.49), "-words": scored(0.1, 0.1)}
    board = build({name: in_lessons(frame, 1) for name, frame in models.items()}, parameters={"small": 1})
    assert board.best == "large"


def test_more_rivals_need_more_lessons():
    models = {name: in_lessons(scored(mean, 0.5), 6) for name, mean in (("a", 0.5), ("b", 0.3), ("-words", 0.1))}
    assert build(models).ties == ["a"]
    crowd = models | {f"c{n}": in_lessons(scored(0.2, 0.5), 6) for n in range(3)}
    assert (len(build(crowd).ties), build(crowd).validation_needed) == (5, 7)


def test_a_leaderboard_can_be_written_and_read(board, tmp_path):
    path = tmp_path / "leaderboard.json"
    path.write_text(json.dumps(board.model_dump(mode="json")))
    assert read_leaderboard(path) == board


def test_the_file_names_the_best_model_and_whether_it_beats_the_baselines(board):
    content = board.model_dump(mode="json")
    assert (content["metric"], content["best"], content["best_beats_baselines"]) == ("rouge1", "strong", True)


def test_the_file_holds_no_times(board):
    assert "seconds" not in json.dumps(board.model_dump(mode="json"))


def test_a_missing_leaderboard_is_rejected(tmp_path):
    with pytest.raises(Rejected, match="run `dvc repro compare`"):
        read_leaderboard(tmp_path / "leaderboard.json")


def test_a_damaged_leaderboard_is_rejected(tmp_path):
    (tmp_path / "leaderboard.json").write_text('{"rows": 3}')
    with pytest.raises(Rejected, match="is damaged"):
        read_leaderboard(tmp_path / "leaderboard.json")


def test_the_markdown_names_the_bertscore_model(board):
    assert "BERTScore is from some-model, layer 6" in as_markdown(board, {})


def test_the_markdown_has_one_row_per_model(board):
    assert sum(line.startswith("| ") for line in as_markdown(board, {}).splitlines()) == 2 + len(board.rows)


def test_a_model_that_loses_to_a_baseline_is_not_worth_promoting():
    poor = build({"poor": scored(0.1, 0.1), "-keyphrase": scored(0.9, 0.9)})
    assert "not worth promoting" in as_markdown(poor, {})


def test_the_terminal_shows_names_without_markup():
    odd = build({"[red]odd[/red]": scored(0.5, 0.5), "-keyphrase": scored(0.3, 0.3)})
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(as_rich_table(odd, {}))
    assert "[red]odd[/red]" in console.export_text()


def test_an_unknown_metric_is_a_usage_error():
    with pytest.raises(UsageError, match=r"compare\.metric: Input should be 'rouge1', .* \(it is 'bleu'\)"):
        check(CompareSettings, {"metric": "bleu"}, at="compare")


@pytest.mark.parametrize(
    "content", ["other: 1", "contestants:", "contestants: []", "contestants: t5", "contestants: [1]"]
)
def test_missing_contestants_are_a_usage_error(content, tmp_path):
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(UsageError, match="Add at least one"):
        read_contestants(tmp_path / "params.yaml")


def test_a_repeated_contestant_is_a_usage_error(tmp_path):
    (tmp_path / "params.yaml").write_text("contestants: [t5, t5]")
    with pytest.raises(UsageError, match="twice"):
        read_contestants(tmp_path / "params.yaml")


def test_the_leaderboard_shows_what_each_model_costs_and_which_started_from_scratch() -> None:
    models = {name: scored(mean, mean) for name, mean in (("tuned", 0.5), ("published", 0.4), ("scratch", 0.1))}
    trainings = {
        "tuned": a_training(77_000_000),
        "published": a_training(77_000_000, trained=False),
        "scratch": a_training(800, checkpoint=None),
    }
    frames = {**models, "-words": scored(0.2, 0.2)}
    measured = {name: summarise(name, frame, EVALUATION, seconds=1) for name, frame in models.items()}
    page = as_markdown(build(frames, trainings=trainings), costs_of(measured, trainings))
    header, _, *rows = ([cell.strip(" *") for cell in line.split("|")] for line in page.splitlines() if line[:1] == "|")
    tuned, published, scratch, words = (dict(zip(header, row, strict=True)) for row in rows)
    assert (tuned["training"], tuned["titles/s"], tuned["size"]) == ("90.0 s", "80.0", "77.0 M")
    assert published["training"] == ""
    assert scratch["model"] == "scratch (from scratch)"
    assert [words[name] for name in ("#", "training", "titles/s", "size")] == [""] * 4
    assert "scratch started from random weights" in page


@pytest.mark.parametrize(("examples", "warns"), [(49, True), (50, False)])
def test_a_small_validation_split_is_warned_about(examples: int, warns: bool) -> None:
    found = build({"strong": scored(0.5, 0.5, examples), "-words": scored(0.1, 0.1, examples)})
    assert ("fewer than 50 examples" in as_markdown(found, {})) == warns
