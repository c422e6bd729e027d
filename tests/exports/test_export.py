"""A version that is exported writes the titles of the plain one."""

from __future__ import annotations

import json
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from pipeline.data.openings import marked
from pipeline.errors import Misused, Refused
from pipeline.exports.card import ExportCard, Measured
from pipeline.exports.export import export, kept
from pipeline.exports.titler import FastTitler
from pipeline.models.checkpoints import Card, save_model
from pipeline.models.generation import open_titler
from pipeline.models.tidy import TitleStyle
from pipeline.paths import SPLITS
from pipeline.registry import versions
from pipeline.registry.lineage import md5
from pipeline.registry.tracking import connect
from tests.command import lectern
from tests.models.small import GREEDY, lively_model
from tests.titles.small import write_book

BEAMS = GREEDY.model_copy(update={"num_beams": 3, "candidates": 2})


@pytest.fixture
def split(project: Path, examples: pd.DataFrame) -> Path:
    """A project with a test split."""
    SPLITS.mkdir(parents=True)
    examples.to_parquet(SPLITS / "test.parquet", index=False)
    return project


def _version(folder: Path, family: str, examples: pd.DataFrame, settings=GREEDY):
    model, inputs = lively_model(family, examples)
    folder.mkdir(parents=True)
    card = Card(model=family, family=family, checkpoint="scratch", max_source_tokens=48, max_target_tokens=12)
    save_model(folder, model, inputs.tokenizer, card, "float32")
    tags = {"model": family, "model.md5": md5(folder)}
    name = versions.RegisterSettings.read().name
    return versions.register(connect(), name, folder, settings, run_id="0" * 32, tags=tags)


@pytest.mark.parametrize("family", ["t5", "mt5", "bart", "pegasus", "mbart", "causal"])
def test_an_export_writes_the_titles_of_the_plain_model(family: str, split: Path, examples: pd.DataFrame) -> None:
    card = export(_version(split / family, family, examples), split / "out")
    assert card.measured["float32"].same_titles == 1
    assert card == ExportCard.read(split / "out")
    texts = examples["text"].tolist()
    fast = FastTitler(split / "out")
    assert fast.best_titles(texts) == [fast.best_titles([text])[0] for text in texts]
    fast.style = TitleStyle(opening="Intro")
    assert fast.best_titles([marked(texts[0]), texts[0]]) == ["Intro", fast.best_titles(texts[:1])[0]]
    candidates = fast.titles(texts, {"candidates": 2, "num_beams": 3})
    assert {len(each) for each in candidates} == {2}
    drawn = fast.titles(texts[:3], {"do_sample": True, "seed": 7, "top_k": 0, "candidates": 3})
    assert {len(each) for each in drawn} == {3}


@pytest.mark.parametrize("family", ["t5", "causal"])
def test_beams_find_the_titles_that_the_plain_models_find(family: str, split: Path, examples: pd.DataFrame) -> None:
    card = export(_version(split / family, family, examples, BEAMS), split / "out")
    assert card.measured["float32"].same_titles > 0.8  # it ends a search a little otherwise


def test_an_architecture_that_cannot_be_converted_is_refused(split: Path, examples: pd.DataFrame) -> None:
    version = _version(split / "led", "led", examples)
    with pytest.raises(Refused, match=r"family 'led' cannot be exported: .*LEDConfig"):
        export(version, split / "out")
    assert not (split / "out").exists()


def test_an_export_is_measured_or_not_made(project: Path, examples: pd.DataFrame) -> None:
    version = _version(project / "t5", "t5", examples)
    with pytest.raises(Misused, match="dvc repro split"):
        export(version, project / "out")


def _measured(**rouge1: float) -> dict[str, Measured]:
    return {name: Measured(rouge1=score, same_titles=1, titles_a_second=1) for name, score in rouge1.items()}


def test_weights_of_8_bits_are_kept_unless_titles_get_worse() -> None:
    assert kept(_measured(plain=0.2, float32=0.2, int8=0.196)) == "int8"
    assert kept(_measured(plain=0.2, float32=0.2, int8=0.194)) == "float32"
    with pytest.raises(Refused, match="not faithful"):
        kept(_measured(plain=0.2, float32=0.19, int8=0.19))


def test_titles_in_another_script_are_compared_by_their_words(project: Path, examples: pd.DataFrame) -> None:
    subjects = ("деревья", "графы", "потоки", "классы", "циклы", "массивы", "строки", "числа")
    texts = [f"сегодня мы с вами говорим о том что такое {subject} и зачем нужны {subject}" for subject in subjects]
    russian = examples[:8].assign(text=texts, title=[f"Зачем нужны {subject}" for subject in subjects])
    version = _version(project / "t5", "t5", russian)
    written = open_titler(project / "t5", GREEDY).best_titles(texts)
    SPLITS.mkdir(parents=True)
    russian.assign(title=written).to_parquet(SPLITS / "test.parquet", index=False)
    assert export(version, project / "out").measured["plain"].rouge1 == 1


def test_what_was_exported_titles_passages_and_workbooks(split: Path, examples: pd.DataFrame) -> None:
    version = _version(split / "small", "causal", examples)
    text = examples["text"][3]
    done = lectern("title", text, "--fast", cwd=split)
    assert (done.returncode, "lectern export 1" in done.stderr) == (2, True)
    done = lectern("export", "--examples", "4", cwd=split)
    assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout
    folder = split / "exports" / version.name / "1"
    assert json.loads((folder / "export.json").read_text())["examples"] == 4
    assert lectern("title", text, "--fast", cwd=split).stdout.strip()
    book = write_book(split / "week.xlsx", [("C", "1", "0:00:00", None)], [("C", "1", "0:00:01", text)])
    assert lectern("title", book, "--fast", cwd=split).returncode == 0
    assert openpyxl.load_workbook(split / "week.titled.xlsx")["lesson_topics"]["D2"].value


def test_a_folder_that_is_no_export_is_left_alone(split: Path, examples: pd.DataFrame) -> None:
    _version(split / "small", "causal", examples)
    done = lectern("export", "--out", "data", cwd=split)
    assert (done.returncode, "is no export" in done.stderr) == (2, True)
    assert (SPLITS / "test.parquet").exists()
