"""The split into train, validation and test, with no lesson in two splits."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.data.split import Splits, SplitSettings, lessons_by_side, nearest_seed, split
from pipeline.errors import Rejected
from pipeline.stages import split as stage

USUAL = SplitSettings(by="lesson", validation=0.15, test=0.2, seed=1)
RANDOM = SplitSettings(by="random", validation=0.15, test=0.2, seed=1)


def examples_of(*lessons: tuple[str, str], topics: int = 3) -> pd.DataFrame:
    """Return `topics` examples for each (course, lesson)."""
    rows = [(course, lesson, 60.0 * n, f"Topic {n}") for course, lesson in lessons for n in range(topics)]
    types = {"course_title": "str", "lesson_num": "str", "start_seconds": float, "title": "str"}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


FORTY = examples_of(*[("Clouds", str(n)) for n in range(40)])


def rows_of(splits: Splits) -> dict[tuple[object, ...], str]:
    """Return the split of each example."""
    return {row: name for name, part in splits.items() for row in part.itertuples(index=False, name=None)}


def test_every_lesson_is_in_one_split() -> None:
    assert lessons_by_side(split(FORTY, USUAL))["sides"].tolist() == [1] * 40


def test_lessons_are_counted_with_their_examples() -> None:
    assert lessons_by_side(split(FORTY, USUAL))["examples"].tolist() == [3] * 40


def test_a_random_split_leaks() -> None:
    assert lessons_by_side(split(FORTY, RANDOM))["sides"].max() > 1


def test_a_random_split_warns_that_it_leaks(caplog: pytest.LogCaptureFixture) -> None:
    split(FORTY, RANDOM)
    assert "a lesson can be in several splits" in caplog.text


def test_shares_are_met_on_average() -> None:
    many = examples_of(*[(f"Course {c}", str(n)) for c in range(50) for n in range(50)], topics=1)
    splits = split(many, USUAL)
    assert (len(splits.validation) / 2500, len(splits.test) / 2500) == pytest.approx((0.15, 0.2), abs=0.02)


def test_a_lesson_is_in_the_same_split_on_every_machine() -> None:
    """With another hash, every lesson of every user would move."""
    assert split(FORTY, USUAL).validation["lesson_num"].unique().tolist() == ["7", "20", "27", "35"]


def test_another_seed_gives_another_split() -> None:
    assert rows_of(split(FORTY, USUAL)) != rows_of(split(FORTY, USUAL.model_copy(update={"seed": 2})))


def test_an_empty_split_is_rejected_with_a_seed_that_works() -> None:
    four = examples_of(*[("Clouds", str(n)) for n in range(4)])
    settings = USUAL.model_copy(update={"seed": 10})
    with pytest.raises(Rejected) as caught:
        split(four, settings)
    seed = int(str(caught.value).split("Set split.seed to ")[1].split(" ")[0])
    assert all(len(part) for _, part in split(four, settings.model_copy(update={"seed": seed})).items())


@pytest.mark.parametrize("lessons", [0, 1, 2])
def test_fewer_than_three_lessons_cannot_be_split(lessons: int) -> None:
    with pytest.raises(Rejected, match="at least three lessons"):
        split(examples_of(*[("Clouds", str(n)) for n in range(lessons)]), USUAL)


def test_shares_for_which_no_seed_works_are_rejected() -> None:
    with pytest.raises(Rejected, match=r"Raise split\.validation or split\.test"):
        split(FORTY, USUAL.model_copy(update={"test": 1e-9}))


@pytest.mark.parametrize(
    "wrong", [{"validation": 0}, {"test": 1}, {"validation": 0.5, "test": 0.5}, {"by": "topic"}, {"shuffle": True}]
)
def test_invalid_settings_are_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SplitSettings.model_validate({**USUAL.model_dump(), **wrong})


# Laws for the forty lessons with any other lessons.

law = settings(max_examples=25, deadline=None)
more_lessons = st.lists(st.tuples(st.just("Rivers"), st.text(min_size=1, max_size=3)), unique=True, max_size=20)


def forty_and(more: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.concat([FORTY, examples_of(*more)], ignore_index=True)


@law
@given(more_lessons)
def test_no_example_is_lost_or_duplicated(more: list[tuple[str, str]]) -> None:
    together = pd.concat([part for _, part in split(forty_and(more), USUAL).items()])
    assert sorted(together.itertuples(index=False)) == sorted(forty_and(more).itertuples(index=False))


@law
@given(more_lessons)
def test_no_lesson_is_in_two_splits(more: list[tuple[str, str]]) -> None:
    assert (lessons_by_side(split(forty_and(more), USUAL))["sides"] == 1).all()


@law
@given(more_lessons)
def test_new_lessons_move_no_old_lesson(more: list[tuple[str, str]]) -> None:
    before, after = rows_of(split(FORTY, USUAL)), rows_of(split(forty_and(more), USUAL))
    assert {row: after[row] for row in before} == before


@law
@given(more_lessons, st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_change_the_split(more: list[tuple[str, str]], seed: int) -> None:
    mixed = forty_and(more).sample(frac=1, random_state=seed)
    assert rows_of(split(mixed, USUAL)) == rows_of(split(forty_and(more), USUAL))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with the inputs of the stage."""
    repository = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    Path("data/examples").mkdir(parents=True)
    FORTY.to_parquet("data/examples/examples.parquet")
    Path("expectations").symlink_to(repository / "expectations")
    return tmp_path


@pytest.mark.parametrize(("settings", "fit"), [(USUAL, True), (RANDOM, False)], ids=["by lesson", "random"])
def test_the_stage_writes_three_tables_and_the_validation(project: Path, settings: SplitSettings, fit: bool) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"split": settings.model_dump()}))
    stage.run()
    written = {path.stem: pd.read_parquet(path) for path in Path("data/splits").iterdir()}
    assert {name: len(part) for name, part in written.items()} == {
        name: len(part) for name, part in split(FORTY, settings).items()
    }
    assert json.loads(Path("reports/split_validation.json").read_text())["success"] is fit


def test_a_rejected_split_writes_no_tables(project: Path) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"split": {**USUAL.model_dump(), "test": 1e-9}}))
    with pytest.raises(Rejected):
        stage.run()
    assert not Path("data/splits").exists()


def shares(examples: pd.DataFrame, seed: int) -> list[float]:
    splits = split(examples, USUAL.model_copy(update={"seed": seed}))
    return [len(splits.validation) / len(examples), len(splits.test) / len(examples)]


def test_the_nearest_seed_keeps_the_promised_shares_with_few_lessons_of_unequal_length() -> None:
    uneven = pd.concat([examples_of(("Clouds", str(n)), topics=1 + n) for n in range(23)], ignore_index=True)
    assert shares(uneven, nearest_seed(uneven, USUAL)) == pytest.approx([0.15, 0.2], abs=0.02)


def test_the_nearest_seed_does_not_depend_on_the_seed_before_or_the_order_of_rows() -> None:
    mixed = FORTY.sample(frac=1, random_state=1)
    assert nearest_seed(FORTY, USUAL) == nearest_seed(mixed, USUAL.model_copy(update={"seed": 7}))
