from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
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
from pipeline.models.checkpoint_sources import find
from pipeline.models.generation import GenerateSettings, open_titler
from pipeline.models.seen_examples import Seen
from pipeline.models.title_cleanup import tidy
from pipeline.paths import MODELS
from pipeline.registry import gate, serving_trial, versions
from pipeline.registry.behaviour import Behaviour, BehaviourSettings, behaviours
from pipeline.registry.gate import Evidence, PromoteSettings, Verdict, judge, rules
from pipeline.registry.lineage import md5
from pipeline.registry.repeated_tests import take_look
from pipeline.registry.seen_test_examples import exposure
from pipeline.registry.serving_trial import Trial
from pipeline.registry.tracking import connect
from pipeline.settings import set_params
from pipeline.stages import train
from tests.models.small import GREEDY
from tests.registry.server import TrackingServer
from tests.registry.test_versions import NAME, _model
from tests.training.small import fill_project

TOLERANT = BehaviourSettings(words=16, copied=0.25, repeated=0, agreement=0.3, different=0.7)
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
        trial=serving_trial or Trial([], 0.5, 50),
        behaviours=tried,
    )
    return Verdict("2", "1" if champion else None, [*rules(evidence, SETTINGS)])


def judged(challenger: list[float], champion: list[float] | None = POOR, trial: Trial | None = None) -> dict[str, bool]:
    """Whether each rule is kept."""
    return {rule.rule: rule.passed for rule in verdict_on(challenger, champion, serving_trial).rules}


def broken(found: dict[str, bool]) -> list[str]:
    return [rule for rule, passed in found.items() if not passed]


def test_a_version_that_is_better_everywhere_passes() -> None:
    assert broken(judged([score + 0.2 for score in POOR])) == []


def test_a_version_as_good_as_the_champion_does_not_beat_it() -> None:
    assert broken(judged(POOR)) == ["beats the champion"]


def test_a_version_that_no_baseline_loses_to_fails_though_it_beats_the_champion() -> None:
    found = judged([0.1] * EXAMPLES, champion=[0.0] * EXAMPLES)
    assert broken(found) == ["beats the best baseline, keyphrase"]


def test_a_loss_on_one_course_fails_though_the_mean_is_better() -> None:
    deep = [score + 0.6 if place % 2 == 0 else max(0, score - 0.1) for place, score in enumerate(POOR)]
    assert broken(judged(deep)) == ["is not worse on Databases"]


def test_a_loss_on_long_texts_fails_though_the_mean_is_better() -> None:
    short = [score + 0.6 if place < 21 else max(0, score - 0.1) for place, score in enumerate(POOR)]
    assert broken(judged(short)) == ["is not worse on texts of 251 to 500 words"]


def in_lessons(test: pd.DataFrame, lessons: dict[str, int]) -> pd.DataFrame:
    """`test` with so many lessons in each of its courses."""
    nums = [str(place // 2 % lessons[course]) for place, course in enumerate(test["course_title"])]
    return test.assign(lesson_num=nums)


def test_slices_with_too_few_lessons_are_named_and_stop_nobody() -> None:
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


def test_an_equal_version_is_rarely_refused_for_a_slice() -> None:
    """Of twelve courses. The chance of any refusal is at most the level."""
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


def test_a_verdict_on_slices_can_be_kept_as_evidence() -> None:
    verdict = verdict_on([score + 0.2 for score in POOR])
    kept = json.loads(json.dumps(verdict.as_json()))
    assert [rule["passed"] for rule in kept["rules"] if "Databases" in rule["rule"]] == [True]


def test_the_first_version_is_held_against_the_baselines_alone() -> None:
    found = judged(POOR, champion=None)
    assert not any("champion" in rule or "not worse" in rule for rule in found)


@pytest.mark.parametrize(("level", "fewest"), [(0.05, 5), (0.025, 6), (0.01, 7)])
def test_too_few_lessons_pass_nobody_and_it_is_said(level: float, fewest: int) -> None:
    assert verdict_on([0.9] * fewest, [0.1] * fewest, level=level).passed
    few = verdict_on([0.9] * (fewest - 1), [0.1] * (fewest - 1), level=level)
    wanted = f"too few lessons to tell: {fewest - 1} are compared, and a level of {level:.2%} needs {fewest}"
    assert [rule.found.startswith(wanted) for rule in few.rules if not rule.passed] == [True, True]


def test_many_examples_of_few_lessons_pass_nobody_unless_examples_are_the_units() -> None:
    better, test = [score + 0.2 for score in POOR], in_lessons(TEST, {"Deep Learning": 2, "Databases": 2})
    assert broken({rule.rule: rule.passed for rule in verdict_on(better, test=test).rules}) == [
        "beats the best baseline, keyphrase",
        "beats the champion",
    ]
    verdict = verdict_on(better, test=test, unit="example")
    assert verdict.passed
    assert "on 40 examples" in verdict.as_markdown()
    assert "lesson" not in verdict.as_markdown()


def test_an_equal_version_rarely_beats_the_champion_on_five_lessons() -> None:
    """Of eight examples each, whose scores go together."""
    random, beaten = np.random.default_rng(1), []
    lessons = np.repeat(np.arange(5), 8)
    test = TEST.assign(course_title="Databases", lesson_num=lessons.astype(str), text="word")
    for _ in range(300):
        ours, theirs = random.beta(2, 4, (2, 5))[:, lessons] * random.beta(4, 2, (2, EXAMPLES))
        found = verdict_on([*ours], [*theirs], test=test).rules
        beaten.append(next(rule.passed for rule in found if rule.rule == "beats the champion"))
    assert np.mean(beaten) <= 0.05 + 2 * (0.05 * 0.95 / len(beaten)) ** 0.5


def test_a_slow_or_large_version_fails() -> None:
    better = [score + 0.2 for score in POOR]
    assert broken(judged(better, trial=Trial([], 1.5, 150))) == [
        "takes no more than 1 s a title",
        "takes no more than 100 MB",
    ]


TEXTS = [f"so today we talk about {subject} and why {subject} matters to us" for subject in ("trees", "loss", "data")]


def sensible(text: str) -> str:
    """What a good model does with `TEXTS`, whatever disturbs them."""
    return next((f"Why {subject} matters" for subject in ("trees", "loss", "data") if subject in text.lower()), "Title")


@pytest.mark.parametrize(
    ("fault", "titler"),
    [
        ("gives every text a title", lambda text: ""),
        ("writes no more than 16 words", lambda text: " ".join(f"w{place}" for place in range(17))),
        ("repeats no words within a title", lambda text: "the the trees"),
        ("repeats no words within a title", lambda text: "of trees and of trees"),
        ("writes titles, and not the text's first words", lambda text: " ".join(text.split()[:4])),
        ("gives different texts different titles", lambda text: "Welcome"),
        ("is not disturbed by filler words", lambda text: "Um" if text.startswith("um") else sensible(text)),
        ("is not disturbed by capital letters", lambda text: "CAPITALS" if text.isupper() else sensible(text)),
        ("copies no marks such as [Music]", lambda text: f"{sensible(text)} {'[music]' if '[Music]' in text else ''}"),
        ("copies no marks such as [Music]", lambda text: tidy("[Music]" if "[Music]" in text else sensible(text))),
    ],
)
def test_misbehaviour_is_found(fault: str, titler: Callable[[str], str]) -> None:
    tried = behaviours(TEXTS, TOLERANT)
    assert fault in [one.name for one in tried if not one.look([titler(text) for text in one.texts]).enough]
    assert all(one.look([sensible(text) for text in one.texts]).enough for one in tried)


def test_the_parts_of_a_name_are_no_repetition() -> None:
    [rule] = [one for one in behaviours(TEXTS, TOLERANT) if one.name == "repeats no words within a title"]
    assert rule.look(["Pandas datetime.datetime.strftime", "The state-of-the-art of the art"]).enough
    assert not rule.look(["The gradient, the gradient"]).enough


def test_a_version_that_behaves_is_shown_by_how_much() -> None:
    tried = behaviours(TEXTS, TOLERANT)
    serving_trial = Trial([sensible(text) for one in tried for text in one.texts], 0.5, 50)
    verdict = verdict_on([score + 0.2 for score in POOR], trial=serving_trial, tried=tried)
    found = {rule.rule: rule.found for rule in verdict.rules}
    assert verdict.passed
    assert found["gives every text a title"] == "3 of 3 do"
    assert (
        found["gives different texts different titles"]
        == "1.00 of the texts have a title of their own; 0.70 are wanted"
    )
    assert found["is not disturbed by filler words"] == "1.00 ROUGE-1 between the titles; 0.30 are wanted"


def test_a_share_that_is_tolerated_is_shown_too() -> None:
    [rule] = [one for one in behaviours([*TEXTS, "so much for graphs"], TOLERANT) if "first words" in one.name]
    copied = rule.look([" ".join(rule.texts[0].split()[:4]), "Loss", "Data", "Graphs"])
    assert (copied.enough, copied.words) == (True, "3 of 4 do")


@pytest.mark.parametrize(
    ("fault", "title"),
    [
        ("gives every text a title", ""),
        ("writes no more than 16 words", " ".join(f"w{place}" for place in range(17))),
        ("repeats no words within a title", "the the trees"),
    ],
)
def test_a_short_text_is_looked_at_too(fault: str, title: str) -> None:
    texts = [*(f"so today we talk about trees and about number {place}" for place in range(20)), "so trees"]
    tried = behaviours(texts, TOLERANT)
    wrong = [one for one in tried if not one.look([title if text == "so trees" else text for text in one.texts]).enough]
    assert fault in [one.name for one in wrong]


def test_a_few_titles_may_repeat_words_as_true_ones_do() -> None:
    """Such as "The condition number of a matrix with respect to a matrix norm"."""
    texts = [f"so today we talk about number {place}" for place in range(20)]
    [rule] = [one for one in behaviours(texts, TOLERANT.model_copy(update={"repeated": 0.1})) if "repeats" in one.name]
    for repeating, enough in ((2, True), (3, False)):
        titles = ["Norm of a matrix of a matrix"] * repeating + ["Norms"] * (20 - repeating)
        assert rule.look(titles).enough == enough


@pytest.mark.parametrize(
    ("text", "title", "copied"),
    [
        ("inside the heap, we look", "In", False),
        ("inside the heap, we look", "Inside the heap", True),
        ("inside the heap, we look", "Inside the heap: we", True),
        ("deep learning", "Deep learning and more", False),
        ("深度学习是什么", "深度学习", True),
        ("深度学习是什么", "机器学习", False),
        ("что такое граф", "Что", True),
        ("чтобы понять граф", "Что", False),
    ],
)
def test_a_title_is_copied_if_it_is_the_first_whole_words(text: str, title: str, copied: bool) -> None:
    [rule] = [one for one in behaviours([text], TOLERANT.model_copy(update={"copied": 0})) if "first words" in one.name]
    assert rule.look([title]).enough != copied


def test_two_texts_that_share_a_title_both_count() -> None:
    texts = [f"so today we talk about number {place}" for place in range(10)]
    [rule] = [one for one in behaviours(texts, TOLERANT) if "different titles" in one.name]
    alone = [f"Number {place}" for place in range(10)]
    for titles, share in (
        (alone, "1.00"),
        (["Graphs", "graphs", *alone[2:]], "0.80"),
        (["Graphs", "Graphs", "Trees", "Trees", *alone[4:]], "0.60"),  # eight titles in all
        (["Graphs"] * 10, "0.00"),
    ):
        assert rule.look(titles).words == f"{share} of the texts have a title of their own; 0.70 are wanted"
    assert not rule.look(["Graphs", "Graphs", "Trees", "Trees", *alone[4:]]).enough


@pytest.mark.parametrize(
    "text", ["[Music] so welcome back", "so [Applause] welcome back", mark_opening("so welcome back")]
)
def test_first_words_are_copied_whatever_marks_stand_among_them(text: str) -> None:
    [rule] = [one for one in behaviours([text], TOLERANT) if "first words" in one.name]
    assert not rule.look(["So welcome back"]).enough


def test_titles_in_another_script_agree_by_their_words() -> None:
    texts = ["сегодня мы говорим о градиентном спуске", "а теперь мы говорим о деревьях и о графах"]
    for rule in behaviours(texts, TOLERANT):
        if "not disturbed" in rule.name:
            twice = ["Градиентный спуск", "Деревья и графы"] * 2
            assert rule.look(twice).words == "1.00 ROUGE-1 between the titles; 0.30 are wanted"
            assert not rule.look(["Градиентный спуск", "Деревья", "Деревья и графы", "Градиенты"]).enough


@pytest.fixture
def registered(project: Path, examples: pd.DataFrame, tmp_path: Path) -> MlflowClient:
    """Versions 1 and 2 of one poor model, and today's splits."""
    client, folder = connect(), _model(tmp_path / "model", examples, "causal")
    for tokens in (8, 9):
        settings = GenerateSettings(**{**GREEDY.model_dump(), "max_new_tokens": tokens})
        tags = {"model": folder.name, "model.md5": md5(folder)}
        versions.register(client, NAME, folder, settings, run_id="0" * 32, tags=tags)
    Path("data/splits").mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        examples.to_parquet(f"data/splits/{split}.parquet")
    return client


def promote(client: MlflowClient, number: str, *, force: bool) -> tuple[versions.Move, Verdict]:
    return versions.promote(
        client,
        NAME,
        number,
        because="because",
        judge=lambda new, champion: judge(NAME, new, champion, SETTINGS),
        force=force,
    )


def test_a_version_that_does_not_pass_stays_where_it_is_unless_forced(registered: MlflowClient) -> None:
    with pytest.raises(Rejected, match="beats the best baseline"):
        promote(registered, "1", force=False)
    assert versions.trail(registered, NAME) == []
    move, verdict = promote(registered, "1", force=True)
    assert (move.version, move.forced, move.because) == ("1", True, "because")
    run_id = registered.get_model_version(NAME, "1").run_id
    kept = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{move.evidence}"))
    assert kept["move"] == asdict(move)
    assert kept["verdict"]["passed"] is False
    assert [rule["rule"] for rule in kept["verdict"]["rules"]] == [rule.rule for rule in verdict.rules]
    assert versions.trail(registered, NAME) == [move]


def test_a_champion_of_which_nothing_is_left_is_said_and_not_compared_with(registered: MlflowClient) -> None:
    promote(registered, "1", force=True)
    champion = registered.get_model_version(NAME, "1")
    shutil.rmtree(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1"))
    verdict = judge(NAME, registered.get_model_version(NAME, "2"), champion, SETTINGS)
    assert verdict.champion is None
    assert "Version 1 of 'titles' is gone" in verdict.rules[-1].found
    assert verdict.rules[-1].mark == "not judged"


def test_a_champion_that_is_there_and_fails_is_passed_by_nobody(registered: MlflowClient) -> None:
    promote(registered, "1", force=True)
    spoil("1", "import a_library_that_is_not_here")
    with pytest.raises(
        Rejected, match=r"is compared with the champion: .*a_library_that_is_not_here.*lectern rollback"
    ):
        promote(registered, "2", force=False)
    _, verdict = promote(registered, "2", force=True)
    assert verdict.champion is None
    assert verdict.rules[-1].mark == "FAILED"


def found_of(verdict: Verdict, words: str) -> dict[str, tuple[str, str]]:
    """The mark and the finding of each rule whose name has these words."""
    return {rule.rule: (rule.mark, rule.found) for rule in verdict.rules if words in rule.rule}


@pytest.fixture
def lessons(registered: MlflowClient, examples: pd.DataFrame) -> pd.DataFrame:
    """Today's test split: 16 lessons of one example each."""
    test = examples.assign(lesson_num=[*map(str, range(len(examples)))])
    test.to_parquet("data/splits/test.parquet")
    return test


@pytest.fixture
def tried_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions write their titles in this process: the processes in which they are tried take seconds to start."""

    def titles(name: str, number: str, texts: list[str]) -> Trial:
        settings = versions.settings_of(MlflowClient().get_model_version(name, number))
        written = open_titler(find(f"models:/{name}/{number}"), settings).best_titles(texts)
        return Trial(written, seconds_a_title=0.1, megabytes=1)

    monkeypatch.setattr(gate, "try_version", titles)


def version_that_saw(
    client: MlflowClient, folder: Path, number: str, train: pd.DataFrame, validation: pd.DataFrame
) -> ModelVersion:
    """A version whose only training was on these splits."""
    Seen.of_training(train, validation, None, "scratch").write(folder)
    settings = GREEDY.model_copy(update={"max_new_tokens": int(number)})
    tags = {"model": folder.name, "model.md5": md5(folder)}
    return versions.register(client, NAME, folder, settings, run_id="0" * 32, tags=tags)


@pytest.mark.usefixtures("tried_here")
def test_looks_at_one_test_split_are_counted_shown_and_corrected_for(
    registered: MlflowClient, lessons: pd.DataFrame
) -> None:
    def looked(number: str, champion: str | None = None) -> Verdict:
        pair = [registered.get_model_version(NAME, each) if each else None for each in (number, champion)]
        return judge(NAME, *pair, SETTINGS)

    first = looked("1")
    assert (first.look.number, first.look.level) == (1, pytest.approx(0.05 / 2))
    assert "look 1 at this test split, level 2.50%" in first.as_markdown()
    second = looked("2")
    assert (second.look.number, second.look.level) == (2, pytest.approx(0.05 / 6))
    assert second.as_json()["look"] == asdict(second.look)
    assert looked("1").look == first.look  # asked again, as the flow does after a person's yes
    assert looked("2", "1").look.number == 3  # against another version
    registered.delete_model_version(NAME, "1")
    assert looked("2").look == second.look

    lessons.assign(title="Another").to_parquet(TEST_SPLIT)
    assert looked("2").look.number == 1


@pytest.mark.usefixtures("tried_here")
def test_another_metric_or_unit_is_another_look(registered: MlflowClient, lessons: pd.DataFrame) -> None:
    version = registered.get_model_version(NAME, "1")
    assert judge(NAME, version, None, SETTINGS).look.number == 1
    assert judge(NAME, version, None, SETTINGS.model_copy(update={"metric": "rougeL"})).look.number == 2
    assert judge(NAME, version, None, SETTINGS).look.number == 1
    set_params(["split"], {"by": "random"})
    assert judge(NAME, version, None, SETTINGS).look.number == 3


@pytest.mark.usefixtures("tried_here")
def test_a_test_split_is_known_by_its_examples_and_not_by_its_file(
    registered: MlflowClient, lessons: pd.DataFrame
) -> None:
    one, other = (registered.get_model_version(NAME, number) for number in "12")
    first, file = judge(NAME, one, None, SETTINGS).look, md5(TEST_SPLIT)
    lessons[::-1].to_parquet(TEST_SPLIT, compression="gzip", index=False)
    assert md5(TEST_SPLIT) != file
    assert judge(NAME, one, None, SETTINGS).look == first
    assert judge(NAME, other, None, SETTINGS).look.number == 2


@pytest.mark.usefixtures("tried_here")
def test_a_look_that_can_claim_nothing_is_not_counted(
    registered: MlflowClient, lessons: pd.DataFrame, tmp_path: Path
) -> None:
    """Of 16 lessons, all but five are seen, and the first look needs six."""
    nothing = lessons.head(0)
    exposed = version_that_saw(registered, tmp_path / "model", "5", lessons.head(11), nothing)
    for _ in range(2):
        verdict = judge(NAME, exposed, None, SETTINGS)
        assert (verdict.look.number, verdict.look.counted, verdict.passed) == (1, False, False)
        assert "look 1 at this test split, level 2.50%, not counted: no claim is possible" in verdict.as_markdown()
        [(_, found)] = found_of(verdict, "beats").values()
        assert found.startswith("too few lessons to tell: 5 are compared, and a level of 2.50% needs 6.")
    clean = version_that_saw(registered, tmp_path / "model", "6", lessons.head(10), nothing)
    look = judge(NAME, clean, None, SETTINGS).look
    assert (look.number, look.counted) == (1, True)
    assert judge(NAME, exposed, None, SETTINGS).look.number == 2


def test_looks_taken_at_the_same_time_have_numbers_of_their_own(registered: MlflowClient) -> None:
    def look(metric: str) -> int:
        return take_look(MlflowClient(), NAME, {"metric": metric}, "split", units=99, alpha=0.05).number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(look, map(str, range(16)))) == [*range(1, 17)]


@pytest.mark.usefixtures("tried_here")
def test_test_examples_that_either_side_has_seen_are_counted_and_left_out(
    registered: MlflowClient, lessons: pd.DataFrame, tmp_path: Path
) -> None:
    """The split's train hash is as it was; three test examples were validation before, and one was trained on."""
    nothing = lessons.head(0)
    challenger = version_that_saw(registered, tmp_path / "model", "5", lessons.head(1), lessons.head(4))
    champion = version_that_saw(registered, tmp_path / "model", "6", nothing, lessons.tail(2))
    verdict = judge(NAME, challenger, champion, SETTINGS)
    assert found_of(verdict, "seen") == {
        "the challenger has not seen these examples": (
            "not judged",
            "1 of 16 test examples were in its training split and 3 of 16 test examples were in its validation split.",
        ),
        "the champion has not seen these examples": (
            "not judged",
            "2 of 16 test examples were in its validation split.",
        ),
        "is compared on unseen examples": ("passed", "10 of 16 test examples are compared; seen ones are left out"),
    }
    for _, found in found_of(verdict, "beats").values():
        assert "on 10 examples" in found
    behaviour = found_of(verdict, "gives every text a title")
    assert all("of 16" in found for _, found in behaviour.values())


@pytest.mark.usefixtures("tried_here")
def test_a_version_that_has_seen_the_whole_test_split_does_not_pass(
    registered: MlflowClient, examples: pd.DataFrame, tmp_path: Path
) -> None:
    challenger = version_that_saw(registered, tmp_path / "model", "5", examples, examples.head(0))
    verdict = judge(NAME, challenger, None, SETTINGS)
    assert [mark for mark, _ in found_of(verdict, "unseen").values()] == ["FAILED"]
    assert not verdict.passed
    clean = version_that_saw(registered, tmp_path / "model", "6", examples.head(0), examples.head(0))
    assert found_of(judge(NAME, clean, None, SETTINGS), "has not seen") == {
        "the challenger has not seen these examples": ("passed", "none of 16 test examples")
    }


@pytest.mark.usefixtures("tried_here")
def test_an_example_is_known_again_by_its_place_or_by_its_words(
    registered: MlflowClient, examples: pd.DataFrame, tmp_path: Path
) -> None:
    renamed = examples.head(3).assign(course_title="Another course", start_seconds=7.5)
    corrected = examples[3:5].assign(text="what was heard better")
    other = examples[5:].assign(course_title="Another course", text=lambda rows: rows["text"] + " and more")
    seen = pd.concat([renamed, corrected, other])
    challenger = version_that_saw(registered, tmp_path / "model", "5", seen, examples.head(0))
    verdict = judge(NAME, challenger, None, SETTINGS)
    [(_, found)] = found_of(verdict, "has not seen").values()
    assert found.startswith("5 of 16 test examples were in its training split")


@pytest.mark.usefixtures("tried_here")
def test_what_an_older_version_has_seen_is_not_known_and_stops_nobody(
    registered: MlflowClient, lessons: pd.DataFrame
) -> None:
    verdict = judge(NAME, registered.get_model_version(NAME, "1"), None, SETTINGS)
    [(mark, found)] = found_of(verdict, "has not seen").values()
    assert (mark, found.startswith("Not known")) == ("not judged", True)
    assert all("on 16 examples" in found for _, found in found_of(verdict, "beats").values())
    set_params(["split"], {"by": "random"})
    leaking = judge(NAME, registered.get_model_version(NAME, "1"), None, SETTINGS).rules[-1]
    assert (leaking.mark, leaking.found) == ("not judged", LEAKS)


def test_what_a_versions_checkpoint_has_seen_the_version_has_seen(project: Path, examples: pd.DataFrame) -> None:
    """Three trainings, each on another split, and each from the version before; the first two versions are deleted."""
    client, small, each = connect(), "bart-tiny", 5
    checkpoint: dict[str, object] = {}
    for number in range(3):
        fill_project(project, examples, checkpoint, epochs=1)
        splits = {"train": examples[number * each :][:each], "validation": examples.tail(1)}
        for split, rows in splits.items():
            rows.to_parquet(f"data/splits/{split}.parquet", index=False)
        train.run(small)
        tags = {"model": small, "model.md5": md5(MODELS / small)}
        version = versions.register(client, NAME, MODELS / small, GREEDY, run_id="0" * 32, tags=tags)
        checkpoint = {"checkpoint": f"models:/{NAME}@challenger", "scratch": None}
    for number in ("1", "2"):
        client.delete_model_version(NAME, number)
    seen = exposure(version, examples)
    assert seen.trained.tolist() == [True] * 15 + [False]
    assert seen.selected.tolist() == [False] * 15 + [True]
    assert seen.unknown == ""


def test_a_checkpoint_that_lectern_trained_before_is_not_known(
    project: Path, examples: pd.DataFrame, tmp_path: Path
) -> None:
    client, folder, small = connect(), _model(tmp_path / "older", examples, "bart"), "bart-tiny"
    tags = {"model": folder.name, "model.md5": md5(folder)}
    versions.register(client, NAME, folder, GREEDY, run_id="0" * 32, tags=tags)
    fill_project(project, examples, {"checkpoint": f"models:/{NAME}/1", "scratch": None}, epochs=0)
    train.run(small)
    tags = {"model": small, "model.md5": md5(MODELS / small)}
    version = versions.register(client, NAME, MODELS / small, GREEDY, run_id="0" * 32, tags=tags)
    words = exposure(version, examples).in_words()
    assert words.endswith(f"Not known of its checkpoint models:/{NAME}/1.")


def test_seen_examples_are_known_through_a_tracking_server_and_not_while_it_is_away(
    project: Path, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TrackingServer(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    server.start()
    try:
        client, folder = connect(), _model(tmp_path / "model", examples)
        tags = {"model": folder.name, "model.md5": md5(folder)}
        older = versions.register(client, NAME, folder, GREEDY, run_id="0" * 32, tags=tags)
        newer = version_that_saw(client, folder, "5", examples.head(2), examples.head(0))
        assert exposure(older, examples).unknown.startswith("Not known")
        assert exposure(newer, examples).trained.sum() == 2
    finally:
        server.kill()
    with pytest.raises(TemporaryFailure):
        exposure(newer, examples)


def spoil(number: str, code: str) -> None:
    """Puts `code` behind the code that the version carries, which is run when it is loaded."""
    (carried,) = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{number}")).glob("serving.py")
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


def test_a_version_is_tried_by_the_code_that_it_carries(registered: MlflowClient) -> None:
    spoil("1", "raise RuntimeError('of its day')")
    with pytest.raises(Rejected, match=r"does not work as it would be served: .*of its day"):
        promote(registered, "1", force=True)
    assert versions.trail(registered, NAME) == []


def test_no_text_is_titled_twice(registered: MlflowClient) -> None:
    spoil("1", PICKY.format(when="texts.duplicated().any()", why="a text came twice"))
    judge(NAME, registered.get_model_version(NAME, "1"), None, SETTINGS)


def test_a_version_that_fails_on_one_text_says_on_which(registered: MlflowClient) -> None:
    spoil("1", PICKY.format(when="(texts.str.count(' ') > 50_000).any()", why="too long"))
    with pytest.raises(Rejected, match=r"ValueError: too long \(a text of 100,000 words\)"):
        judge(NAME, registered.get_model_version(NAME, "1"), None, SETTINGS)


def test_a_version_that_hangs_is_ended_and_keeps_nobody_waiting(
    registered: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_trial, "_SECONDS", 6)
    monkeypatch.setattr(serving_trial, "_SECONDS_A_TEXT", 0)
    spoil("1", "import time; time.sleep(300)")
    with pytest.raises(Rejected, match=r"had not titled .* and was ended"):
        promote(registered, "1", force=True)
    assert versions.trail(registered, NAME) == []


def test_a_champion_that_could_not_be_tried_now_is_no_champion_that_is_gone(registered: MlflowClient) -> None:
    promote(registered, "1", force=True)
    spoil("1", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(TemporaryFailure, match="Version 1 of 'titles' could not be tried"):
        promote(registered, "2", force=True)
    assert [move.version for move in versions.trail(registered, NAME)] == ["1"]


def test_without_a_test_split_it_says_how_to_get_one(registered: MlflowClient) -> None:
    Path("data/splits/test.parquet").unlink()
    with pytest.raises(UsageError, match="dvc repro split"):
        judge(NAME, registered.get_model_version(NAME, "1"), None, SETTINGS)
