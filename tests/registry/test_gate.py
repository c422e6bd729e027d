"""The gate: its rules on given scores, and its verdict on registered versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from rich.console import Console

from pipeline.data.lesson_openings import mark_opening
from pipeline.data.split import LEAKS
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.evaluation.intervals import Unit
from pipeline.models.seen_examples import SeenExamples
from pipeline.models.title_cleanup import TitleStyle
from pipeline.paths import MODELS
from pipeline.registry import promotion, serving_trial
from pipeline.registry.behaviour import Behaviour, behaviours
from pipeline.registry.gate import Evidence, PromoteSettings, Verdict, judge, rules
from pipeline.registry.lineage import md5
from pipeline.registry.promotion import Move
from pipeline.registry.repeated_tests import number_comparison
from pipeline.registry.seen_test_examples import find_seen
from pipeline.registry.serving_trial import Trial
from pipeline.registry.serving_trial_process import write_titles
from pipeline.registry.tracking import connect
from pipeline.settings import set_params
from pipeline.stages import train
from tests.registry.server import TrackingServer
from tests.registry.small import NAME, make_champion, register, save_small_model
from tests.registry.test_behaviour import TEXTS, TOLERANT, sensible
from tests.training.small import fill_project

SETTINGS = PromoteSettings(
    approval="gate",
    metric="rouge1",
    seconds_a_title=1,
    megabytes=100,
    behaviour=TOLERANT,
)
EXAMPLES = 40
TEST = pd.DataFrame(
    {
        "course_title": ["Deep Learning", "Databases"] * (EXAMPLES // 2),
        "lesson_num": [str(place) for place in range(EXAMPLES)],
        "text": [" ".join(["word"] * (50 + 10 * place)) for place in range(EXAMPLES)],
    }
)
TEST_SPLIT = Path("data/splits/test.parquet")
POOR = [0.1, 0.2] * (EXAMPLES // 2)


def verdict_on(
    challenger: list[float],
    champion: list[float] | None = POOR,
    trial: Trial | None = None,
    tried: Sequence[Behaviour] = (),
    test: pd.DataFrame = TEST,
    unit: Unit = "lesson",
    level: float = 0.05,
) -> Verdict:
    count = len(challenger)
    evidence = Evidence(
        test=test[:count],
        unit=unit,
        alpha=0.05,
        level=level,
        challenger=challenger,
        champion=champion,
        baselines={"first-words": [0.05] * count, "keyphrase": [0.1] * count},
        trial=trial or Trial([], 0.5, 50),
        behaviours=tried,
    )
    return Verdict("2", "1" if champion else None, [*rules(evidence, SETTINGS)])


def judged(challenger: list[float], champion: list[float] | None = POOR, trial: Trial | None = None) -> dict[str, bool]:
    """Return for each rule whether it passed."""
    return {rule.rule: rule.passed for rule in verdict_on(challenger, champion, trial).rules}


def broken(found: dict[str, bool]) -> list[str]:
    return [rule for rule, passed in found.items() if not passed]


def test_a_version_that_is_better_everywhere_passes() -> None:
    assert broken(judged([score + 0.2 for score in POOR])) == []


def test_a_version_as_good_as_the_champion_does_not_beat_it() -> None:
    assert broken(judged(POOR)) == ["beats the champion"]


def test_a_version_that_beats_the_champion_must_also_beat_the_baselines() -> None:
    found = judged([0.1] * EXAMPLES, champion=[0.0] * EXAMPLES)
    assert broken(found) == ["beats the best baseline, keyphrase"]


def test_a_version_that_is_worse_on_one_course_fails() -> None:
    deep = [score + 0.6 if place % 2 == 0 else max(0, score - 0.1) for place, score in enumerate(POOR)]
    assert broken(judged(deep)) == ["is not worse on Databases"]


def test_a_version_that_is_worse_on_long_texts_fails() -> None:
    short = [score + 0.6 if place < 21 else max(0, score - 0.1) for place, score in enumerate(POOR)]
    assert broken(judged(short)) == ["is not worse on texts of 251 to 500 words"]


def in_lessons(test: pd.DataFrame, lessons: dict[str, int]) -> pd.DataFrame:
    """`test` with so many lessons in each of its courses."""
    nums = [str(place // 2 % lessons[course]) for place, course in enumerate(test["course_title"])]
    return test.assign(lesson_num=nums)


def test_slices_with_too_few_lessons_are_named_but_not_judged() -> None:
    worse_on_databases = [score + 0.6 if place % 2 == 0 else 0.0 for place, score in enumerate(POOR)]
    test = in_lessons(TEST, {"Deep Learning": 20, "Databases": 3})
    verdict = verdict_on(worse_on_databases, test=test.assign(text="word"))
    [named] = [rule for rule in verdict.rules if not rule.judged]
    assert verdict.passed
    assert named.found == "too few to tell: Databases (3 lessons)"
    shown = Console(width=300)
    with shown.capture() as captured:
        shown.print(verdict.as_table())
    for table in (captured.get(), verdict.as_markdown()):
        assert "not judged" in next(line for line in table.splitlines() if "Databases (3 lessons)" in line)


@pytest.mark.slow
def test_an_equal_version_rarely_fails_on_a_slice() -> None:
    """On twelve courses. The chance of any failed slice is at most the level."""
    random = np.random.default_rng(1)
    courses, lessons = 12, 9
    rows = [
        {"course_title": f"Course {course}", "lesson_num": str(lesson), "text": "word " * int(random.integers(20, 900))}
        for course in range(courses)
        for lesson in range(lessons)
        for _ in range(3)
    ]
    test = pd.DataFrame(rows)
    by_lesson = test.groupby(["course_title", "lesson_num"]).ngroup().to_numpy()
    refused = 0
    for _ in range(20):
        ours, theirs = (
            np.clip(0.3 + random.normal(0, 0.15, courses * lessons)[by_lesson] + random.normal(0, 0.2, len(test)), 0, 1)
            for _ in range(2)
        )
        found = [rule for rule in verdict_on([*ours], [*theirs], test=test).rules if "not worse" in rule.rule]
        assert sum(rule.judged for rule in found) == courses + 4
        refused += any(not rule.passed for rule in found)
    assert refused <= 3


def test_a_verdict_can_be_written_as_json() -> None:
    verdict = verdict_on([score + 0.2 for score in POOR])
    kept = json.loads(json.dumps(verdict.as_json()))
    assert [rule["passed"] for rule in kept["rules"] if "Databases" in rule["rule"]] == [True]


def test_the_first_version_is_compared_with_the_baselines_only() -> None:
    found = judged(POOR, champion=None)
    assert not any("champion" in rule or "not worse" in rule for rule in found)


@pytest.mark.parametrize(("level", "fewest"), [(0.05, 5), (0.025, 6), (0.01, 7)])
def test_no_version_passes_on_too_few_lessons(level: float, fewest: int) -> None:
    assert verdict_on([0.9] * fewest, [0.1] * fewest, level=level).passed
    few = verdict_on([0.9] * (fewest - 1), [0.1] * (fewest - 1), level=level)
    wanted = f"too few lessons to tell: {fewest - 1} are compared, and a level of {level:.2%} needs {fewest}"
    assert [rule.found.startswith(wanted) for rule in few.rules if not rule.passed] == [True, True]


def test_many_examples_of_few_lessons_suffice_only_if_examples_are_the_units() -> None:
    better, test = [score + 0.2 for score in POOR], in_lessons(TEST, {"Deep Learning": 2, "Databases": 2})
    assert broken({rule.rule: rule.passed for rule in verdict_on(better, test=test).rules}) == [
        "beats the best baseline, keyphrase",
        "beats the champion",
    ]
    verdict = verdict_on(better, test=test, unit="example")
    assert verdict.passed
    assert "on 40 examples" in verdict.as_markdown()
    assert "lesson" not in verdict.as_markdown()


@pytest.mark.slow
def test_an_equal_version_rarely_beats_the_champion_on_five_lessons() -> None:
    """On lessons of eight examples with correlated scores."""
    random, beaten = np.random.default_rng(1), []
    lessons = np.repeat(np.arange(5), 8)
    test = TEST.assign(course_title="Databases", lesson_num=lessons.astype(str), text="word")
    for _ in range(300):
        ours, theirs = random.beta(2, 4, (2, 5))[:, lessons] * random.beta(4, 2, (2, EXAMPLES))
        found = verdict_on([*ours], [*theirs], test=test).rules
        beaten.append(next(rule.passed for rule in found if rule.rule == "beats the champion"))
    assert np.mean(beaten) <= 0.05 + 2 * (0.05 * 0.95 / len(beaten)) ** 0.5


def test_a_good_version_passes_the_behavioural_rules() -> None:
    tests = behaviours(TEXTS, TOLERANT)
    trial = Trial([[sensible(text)] for one in tests for text in one.texts], 0.5, 50)
    verdict = verdict_on([score + 0.2 for score in POOR], trial=trial, tried=tests)
    found = {rule.rule: rule.found for rule in verdict.rules}
    assert verdict.passed
    assert found["gives every text a title"] == "3 of 3 pass"
    wanted = "share of texts with a unique title: 1.00, at least 0.70 required"
    assert found["gives different texts different titles"] == wanted


def test_a_slow_or_large_version_fails() -> None:
    better = [score + 0.2 for score in POOR]
    assert broken(judged(better, trial=Trial([], 1.5, 150))) == [
        "takes no more than 1 s a title",
        "takes no more than 100 MB",
    ]


def promote(client: MlflowClient, number: int, *, force: bool) -> tuple[Move, Verdict]:
    return promotion.promote(
        client,
        NAME,
        number,
        because="because",
        judge=lambda new, champion: judge(client, new, champion, SETTINGS),
        force=force,
    )


@pytest.mark.usefixtures("served_here")
def test_a_version_that_fails_is_promoted_only_by_force(three_versions: MlflowClient) -> None:
    with pytest.raises(Rejected, match="beats the best baseline"):
        promote(three_versions, 1, force=False)
    assert promotion.trail(three_versions, NAME) == []
    move, verdict = promote(three_versions, 1, force=True)
    assert (move.version, move.forced, move.because) == ("1", True, "because")
    run_id = three_versions.get_model_version(NAME, "1").run_id
    kept = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{move.evidence}"))
    assert kept["move"] == asdict(move)
    assert kept["verdict"]["passed"] is False
    assert [rule["rule"] for rule in kept["verdict"]["rules"]] == [rule.rule for rule in verdict.rules]
    assert {mark for mark, _ in found_of(verdict, "the true titles").values()} == {"not judged"}  # two lessons
    assert promotion.trail(three_versions, NAME) == [move]


def test_a_trial_writes_titles_as_they_are_served(project: Path, examples: pd.DataFrame, tmp_path: Path) -> None:
    """Openings get their usual title, and all titles that the search finds are candidates."""
    folder = tmp_path / "model"
    save_small_model(folder, examples, "causal", style=TitleStyle(opening="Intro"))
    version = register(connect(), folder, num_beams=2)
    text = "so today we knead bread"
    written = write_titles(
        Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version.version}")),
        {"texts": [mark_opening(text), text], "spoken": [text, text]},
    )
    opening, inner = Trial(**written).candidates
    assert (opening[0], inner[0] == "Intro", len(opening), len(inner)) == ("Intro", False, 2, 2)


@pytest.mark.slow
def test_a_champion_without_files_is_reported_and_not_compared(
    three_versions: MlflowClient, served_here: set[str]
) -> None:
    served_here.add("1")
    champion = three_versions.get_model_version(NAME, "1")
    shutil.rmtree(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1"))
    verdict = judge(three_versions, three_versions.get_model_version(NAME, "2"), champion, SETTINGS)
    assert verdict.champion is None
    assert "The files of version 1 of 'titles' are missing" in verdict.rules[-1].found
    assert verdict.rules[-1].mark == "not judged"


@pytest.mark.slow
def test_no_version_passes_while_the_champion_fails_to_run(three_versions: MlflowClient, served_here: set[str]) -> None:
    make_champion(three_versions, 1)
    served_here.add("1")
    spoil("1", "import a_library_that_is_not_here")
    wanted = r"is compared with the champion: .*a_library_that_is_not_here.*lectern rollback"
    with pytest.raises(Rejected, match=wanted) as rejected:
        promote(three_versions, 2, force=False)
    verdict = rejected.value.verdict
    assert (verdict.champion, verdict.rules[-1].mark) == (None, "FAILED")


def found_of(verdict: Verdict, words: str) -> dict[str, tuple[str, str]]:
    """The mark and the finding of each rule whose name has these words."""
    return {rule.rule: (rule.mark, rule.found) for rule in verdict.rules if words in rule.rule}


@pytest.fixture
def lessons(three_versions: MlflowClient, examples: pd.DataFrame) -> pd.DataFrame:
    """Today's test split: 16 lessons of one example each."""
    test = examples.assign(lesson_num=[*map(str, range(len(examples)))])
    test.to_parquet("data/splits/test.parquet")
    return test


def version_that_saw(
    client: MlflowClient, folder: Path, number: str, train: pd.DataFrame, validation: pd.DataFrame
) -> ModelVersion:
    """A version whose only training was on these splits."""
    SeenExamples.of_training(train, validation, None, "scratch").write(folder)
    return register(client, folder, max_new_tokens=int(number))


@pytest.mark.slow
@pytest.mark.usefixtures("served_here")
def test_comparisons_on_one_test_split_are_numbered_and_corrected_for(
    three_versions: MlflowClient, lessons: pd.DataFrame
) -> None:
    def compared(number: str, champion: str | None = None) -> Verdict:
        pair = [three_versions.get_model_version(NAME, each) if each else None for each in (number, champion)]
        return judge(MlflowClient(), *pair, SETTINGS)

    first = compared("1")
    assert (first.comparison.number, first.comparison.level) == (1, pytest.approx(0.05 / 2))
    assert "comparison 1 on this test split, level 2.50%" in first.as_markdown()
    second = compared("2")
    assert (second.comparison.number, second.comparison.level) == (2, pytest.approx(0.05 / 6))
    assert second.as_json()["look"] == asdict(second.comparison)
    assert compared("1").comparison == first.comparison  # asked again, as the flow does after a person's yes
    assert compared("2", "1").comparison.number == 3  # against another version
    three_versions.delete_model_version(NAME, "1")
    assert compared("2").comparison == second.comparison

    lessons.assign(title="Another").to_parquet(TEST_SPLIT)
    assert compared("2").comparison.number == 1


@pytest.mark.slow
@pytest.mark.usefixtures("served_here")
def test_another_metric_or_unit_is_another_comparison(three_versions: MlflowClient, lessons: pd.DataFrame) -> None:
    version = three_versions.get_model_version(NAME, "1")
    assert judge(MlflowClient(), version, None, SETTINGS).comparison.number == 1
    assert judge(MlflowClient(), version, None, SETTINGS.model_copy(update={"metric": "rougeL"})).comparison.number == 2
    assert judge(MlflowClient(), version, None, SETTINGS).comparison.number == 1
    set_params(["split"], {"by": "random"})
    assert judge(MlflowClient(), version, None, SETTINGS).comparison.number == 3


@pytest.mark.slow
@pytest.mark.usefixtures("served_here")
def test_a_test_split_is_identified_by_its_examples_not_by_its_file(
    three_versions: MlflowClient, lessons: pd.DataFrame
) -> None:
    one, other = (three_versions.get_model_version(NAME, number) for number in "12")
    first, file = judge(MlflowClient(), one, None, SETTINGS).comparison, md5(TEST_SPLIT)
    lessons[::-1].to_parquet(TEST_SPLIT, compression="gzip", index=False)
    assert md5(TEST_SPLIT) != file
    assert judge(MlflowClient(), one, None, SETTINGS).comparison == first
    assert judge(MlflowClient(), other, None, SETTINGS).comparison.number == 2


@pytest.mark.slow
@pytest.mark.usefixtures("served_here")
def test_a_comparison_that_can_claim_nothing_is_not_counted(
    three_versions: MlflowClient, lessons: pd.DataFrame, tmp_path: Path
) -> None:
    """Only 5 of 16 lessons are unseen, and the first comparison needs 6."""
    nothing = lessons.head(0)
    exposed = version_that_saw(three_versions, Path("model"), "5", lessons.head(11), nothing)
    for _ in range(2):
        verdict = judge(MlflowClient(), exposed, None, SETTINGS)
        assert (verdict.comparison.number, verdict.comparison.counted, verdict.passed) == (1, False, False)
        assert (
            "comparison 1 on this test split, level 2.50%, not counted: no claim is possible" in verdict.as_markdown()
        )
        [(_, found)] = found_of(verdict, "beats").values()
        assert found.startswith("too few lessons to tell: 5 are compared, and a level of 2.50% needs 6.")
    clean = version_that_saw(three_versions, Path("model"), "6", lessons.head(10), nothing)
    comparison = judge(MlflowClient(), clean, None, SETTINGS).comparison
    assert (comparison.number, comparison.counted) == (1, True)
    assert judge(MlflowClient(), exposed, None, SETTINGS).comparison.number == 2


def test_simultaneous_comparisons_get_different_numbers(three_versions: MlflowClient) -> None:
    def number(metric: str) -> int:
        return number_comparison(MlflowClient(), NAME, {"metric": metric}, "split", units=99, alpha=0.05).number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(number, map(str, range(16)))) == [*range(1, 17)]


@pytest.mark.slow
@pytest.mark.usefixtures("served_here")
def test_test_examples_that_either_version_has_seen_are_left_out(
    three_versions: MlflowClient, lessons: pd.DataFrame, tmp_path: Path
) -> None:
    """The split's train hash is as it was; three test examples were validation before, and one was trained on."""
    nothing = lessons.head(0)
    challenger = version_that_saw(three_versions, Path("model"), "5", lessons.head(1), lessons.head(4))
    champion = version_that_saw(three_versions, Path("model"), "6", nothing, lessons.tail(2))
    verdict = judge(MlflowClient(), challenger, champion, SETTINGS)
    assert found_of(verdict, "seen") == {
        "the challenger has not seen these examples": (
            "not judged",
            "1 of 16 test examples were in its training split and 3 of 16 test examples were in its validation split.",
        ),
        "the champion has not seen these examples": (
            "not judged",
            "2 of 16 test examples were in its validation split.",
        ),
        "is compared on unseen examples": ("passed", "10 of 16 test examples are compared; the others have been seen"),
    }
    for _, found in found_of(verdict, "beats").values():
        assert "on 10 examples" in found
    behaviour = found_of(verdict, "gives every text a title")
    assert all("of 16" in found for _, found in behaviour.values())


@pytest.mark.slow
@pytest.mark.usefixtures("served_here")
def test_a_version_that_has_seen_the_whole_test_split_does_not_pass(
    three_versions: MlflowClient, examples: pd.DataFrame, tmp_path: Path
) -> None:
    challenger = version_that_saw(three_versions, Path("model"), "5", examples, examples.head(0))
    verdict = judge(MlflowClient(), challenger, None, SETTINGS)
    assert [mark for mark, _ in found_of(verdict, "unseen").values()] == ["FAILED"]
    assert not verdict.passed
    clean = version_that_saw(three_versions, Path("model"), "6", examples.head(0), examples.head(0))
    assert found_of(judge(MlflowClient(), clean, None, SETTINGS), "has not seen") == {
        "the challenger has not seen these examples": ("passed", "none of 16 test examples")
    }


@pytest.mark.usefixtures("served_here")
def test_a_seen_example_is_recognised_by_its_place_or_by_its_words(
    three_versions: MlflowClient, examples: pd.DataFrame, tmp_path: Path
) -> None:
    renamed = examples.head(3).assign(course_title="Another course", start_seconds=7.5)
    corrected = examples[3:5].assign(text="what was heard better")
    other = examples[5:].assign(course_title="Another course", text=lambda rows: rows["text"] + " and more")
    seen = pd.concat([renamed, corrected, other])
    challenger = version_that_saw(three_versions, Path("model"), "5", seen, examples.head(0))
    verdict = judge(MlflowClient(), challenger, None, SETTINGS)
    [(_, found)] = found_of(verdict, "has not seen").values()
    assert found.startswith("5 of 16 test examples were in its training split")


@pytest.mark.slow
@pytest.mark.usefixtures("served_here")
def test_a_version_without_a_list_of_seen_examples_can_pass(
    three_versions: MlflowClient, lessons: pd.DataFrame
) -> None:
    verdict = judge(MlflowClient(), three_versions.get_model_version(NAME, "1"), None, SETTINGS)
    [(mark, found)] = found_of(verdict, "has not seen").values()
    assert (mark, found.startswith("Unknown")) == ("not judged", True)
    assert all("on 16 examples" in found for _, found in found_of(verdict, "beats").values())
    set_params(["split"], {"by": "random"})
    leaking = judge(MlflowClient(), three_versions.get_model_version(NAME, "1"), None, SETTINGS).rules[-1]
    assert (leaking.mark, leaking.found) == ("not judged", LEAKS)


@pytest.mark.slow
def test_a_version_has_seen_what_its_checkpoints_have_seen(project: Path, examples: pd.DataFrame) -> None:
    """Three trainings, each on another split, and each from the version before; the first two versions are deleted."""
    client, small, each = connect(), "bart-tiny", 5
    checkpoint: dict[str, object] = {}
    for number in range(3):
        fill_project(project, examples, checkpoint, epochs=1)
        splits = {"train": examples[number * each :][:each], "validation": examples.tail(1)}
        for split, rows in splits.items():
            rows.to_parquet(f"data/splits/{split}.parquet", index=False)
        train.run(small)
        version = register(client, MODELS / small)
        checkpoint = {"checkpoint": f"models:/{NAME}@challenger", "scratch": None}
    for number in ("1", "2"):
        client.delete_model_version(NAME, number)
    seen = find_seen(version, examples)
    assert seen.trained.tolist() == [True] * 15 + [False]
    assert seen.selected.tolist() == [False] * 15 + [True]
    assert seen.unknown == ""


@pytest.mark.slow
def test_a_checkpoint_without_a_list_of_seen_examples_is_reported(
    project: Path, examples: pd.DataFrame, tmp_path: Path
) -> None:
    client, small = connect(), "bart-tiny"
    register(client, save_small_model(tmp_path / "older", examples, "bart"))
    fill_project(project, examples, {"checkpoint": f"models:/{NAME}/1", "scratch": None}, epochs=0)
    train.run(small)
    version = register(client, MODELS / small)
    words = find_seen(version, examples).summary()
    assert words.endswith(f"Unknown for its checkpoint models:/{NAME}/1.")


@pytest.mark.slow
def test_seen_examples_are_read_through_a_tracking_server(
    project: Path, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TrackingServer(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    server.start()
    try:
        client, folder = connect(), save_small_model(tmp_path / "model", examples)
        older = register(client, folder)
        newer = version_that_saw(client, folder, "5", examples.head(2), examples.head(0))
        assert find_seen(older, examples).unknown.startswith("Unknown")
        assert find_seen(newer, examples).trained.sum() == 2
    finally:
        server.kill()
    with pytest.raises(TemporaryFailure):
        find_seen(newer, examples)


def spoil(number: str, code: str) -> None:
    """Add `code` to the code of a version, which runs when the version is loaded."""
    (carried,) = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{number}")).glob("served_model.py")
    carried.write_text(f"{carried.read_text(encoding='utf-8')}\n{code}\n", encoding="utf-8")


PICKY = """
predict = TitleModel.predict
def picky(self, context, model_input, params=None):
    texts = model_input.iloc[:, 0]
    if {when}:
        raise ValueError("{why}")
    return predict(self, context, model_input, params)
TitleModel.predict = picky
"""


@pytest.mark.slow
def test_a_version_that_fails_on_one_text_is_rejected_with_the_length_of_the_text(
    three_versions: MlflowClient,
) -> None:
    """The version is tried by the code that it carries."""
    spoil("1", PICKY.format(when="(texts.str.count(' ') > 50_000).any()", why="too long"))
    with pytest.raises(Rejected, match=r"ValueError: too long \(a text of 100,000 words\)"):
        promote(three_versions, 1, force=True)
    assert promotion.trail(three_versions, NAME) == []


def test_a_version_that_hangs_is_stopped(three_versions: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_trial, "_LOAD_SECONDS", 6)
    monkeypatch.setattr(serving_trial, "_SECONDS_PER_TEXT", 0)
    spoil("1", "import time; time.sleep(300)")
    with pytest.raises(Rejected, match=r"had not written .* and was stopped"):
        promote(three_versions, 1, force=True)
    assert promotion.trail(three_versions, NAME) == []


@pytest.mark.slow
def test_a_champion_that_was_killed_is_not_a_champion_without_files(
    three_versions: MlflowClient, served_here: set[str]
) -> None:
    make_champion(three_versions, 1)
    served_here.add("1")
    spoil("1", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(TemporaryFailure, match="Version 1 of 'titles' could not be tried"):
        promote(three_versions, 2, force=True)
    assert [move.version for move in promotion.trail(three_versions, NAME)] == ["1"]


def test_a_missing_test_split_is_an_error_with_a_remedy(three_versions: MlflowClient) -> None:
    Path("data/splits/test.parquet").unlink()
    with pytest.raises(UsageError, match="dvc repro split"):
        judge(MlflowClient(), three_versions.get_model_version(NAME, "1"), None, SETTINGS)
