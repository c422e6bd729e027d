"""Exported versions write the titles of the plain version."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import ctranslate2
import numpy as np
import openpyxl
import pandas as pd
import pytest
import torch

from pipeline.data.lesson_openings import mark_opening
from pipeline.errors import Rejected, UsageError
from pipeline.exports.convert import convert
from pipeline.exports.export import choose_weights, export, measure_loss
from pipeline.exports.export_card import ENGINE, ExportCard, Loss, Measured, Weights
from pipeline.exports.fast_titler import FastTitler
from pipeline.models.checkpoints import Card, save_model
from pipeline.models.generation import GenerateSettings, open_titler
from pipeline.models.title_cleanup import TitleStyle
from pipeline.paths import SPLITS
from pipeline.registry.tracking import connect
from pipeline.titles.served_version import find_served_version, load_version
from tests.command import lectern
from tests.exports.exportable import register_small
from tests.models.small import GREEDY, lively_model
from tests.titles.small import write_book

BEAMS = GREEDY.model_copy(update={"num_beams": 3, "candidates": 2})


@pytest.fixture
def split(project: Path, examples: pd.DataFrame) -> Path:
    """A project with a test split."""
    SPLITS.mkdir(parents=True)
    examples.to_parquet(SPLITS / "test.parquet", index=False)
    return project


@pytest.fixture
def exported(split: Path, examples: pd.DataFrame) -> Path:
    """The folder of the export of version 1, which is served."""
    version = register_small(split / "t5", "t5", examples)
    folder = split / "exports" / version.name / str(version.version)
    export(version, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "bart", "mbart", "causal"])
def test_an_export_writes_the_titles_of_the_plain_model(family: str, split: Path, examples: pd.DataFrame) -> None:
    card = export(register_small(split / family, family, examples), split / "out")
    assert card.measured["float32"].same_titles == 1
    assert card == ExportCard.read(split / "out")
    texts = examples["text"].tolist()
    fast = FastTitler(split / "out")
    assert fast.best_titles(texts) == [fast.best_titles([text])[0] for text in texts]
    fast.style = TitleStyle(opening="Intro")
    assert fast.best_titles([mark_opening(texts[0]), texts[0]]) == ["Intro", fast.best_titles(texts[:1])[0]]
    candidates = fast.titles(texts, {"candidates": 2, "num_beams": 3})
    assert {len(each) for each in candidates} == {2}
    drawn = fast.titles(texts[:3], {"do_sample": True, "seed": 7, "top_k": 0, "candidates": 3})
    assert {len(each) for each in drawn} == {3}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "causal"])
def test_beam_search_finds_the_titles_of_the_plain_model(family: str, split: Path, examples: pd.DataFrame) -> None:
    card = export(register_small(split / family, family, examples, BEAMS), split / "out")
    assert card.measured["float32"].same_titles > 0.8  # CTranslate2 ends a search slightly differently


@pytest.mark.parametrize("scaled", [True, False])
def test_a_title_is_as_probable_as_for_the_plain_t5(scaled: bool, tmp_path: Path, examples: pd.DataFrame) -> None:
    """A T5 with a head of its own does not scale its outputs, though transformers calls its embeddings tied."""
    model, inputs = lively_model("t5", examples, std=0.3)
    model.config.scale_decoder_outputs = scaled
    card = Card(model="t5", family="t5", checkpoint="scratch", max_source_tokens=48, max_target_tokens=12)
    save_model(tmp_path, model, inputs.tokenizer, card, "float32")
    convert(tmp_path, tmp_path / ENGINE, "float32")
    example = inputs.example(examples["text"][0], examples["title"][0])
    with torch.inference_mode():
        found = model(**inputs.training_batch([example])).logits[0].log_softmax(-1)
    expected = found.gather(1, torch.tensor(example.labels)[:, None]).flatten().tolist()
    start = inputs.tokenizer.convert_ids_to_tokens([model.config.decoder_start_token_id])
    source, title = (inputs.tokenizer.convert_ids_to_tokens(ids) for ids in (example.source, example.labels[:-1]))
    scored = ctranslate2.Translator(str(tmp_path / ENGINE)).score_batch([source], [[*start, *title]])[0]
    assert scored.log_probs[-len(expected) :] == pytest.approx(expected, abs=1e-3)


def test_a_version_that_samples_its_titles_is_exported(split: Path, examples: pd.DataFrame) -> None:
    """The comparison uses no sampling, because the two models sample different titles for the same seed."""
    drawn = {"do_sample": True, "temperature": 0.7, "top_k": 0, "consensus": 4, "seed": 1}
    settings = GenerateSettings(**{**GREEDY.model_dump(), **drawn})
    version = register_small(split / "t5", "t5", examples, settings)
    titles = open_titler(split / "t5", settings).best_titles(examples["text"].tolist())
    examples.assign(title=titles).to_parquet(SPLITS / "test.parquet", index=False)
    card = export(version, split / "out")
    assert card.measured["float32"].same_titles == 1
    assert card.generate == settings


def test_an_architecture_that_cannot_be_converted_is_rejected(split: Path, examples: pd.DataFrame) -> None:
    version = register_small(split / "led", "led", examples)
    with pytest.raises(Rejected, match=r"family 'led' cannot be exported.*LEDConfig"):
        export(version, split / "out")
    assert not (split / "out").exists()


def test_an_export_needs_a_test_split(project: Path, examples: pd.DataFrame) -> None:
    version = register_small(project / "t5", "t5", examples)
    with pytest.raises(UsageError, match="dvc repro split"):
        export(version, project / "out")


def _lost(rng: np.random.Generator, mean: float, changed: float) -> Loss:
    """The measured loss of a conversion whose true loss is `mean`, and that changes this share of the titles."""
    lessons = np.repeat(np.arange(12), 8).astype(str)
    test = pd.DataFrame({"course_title": "Course", "lesson_num": lessons})
    plain = rng.uniform(0.25, 0.75, len(test))
    changes = rng.normal(-mean / changed, 0.25, len(test)) * (rng.random(len(test)) < changed)
    return measure_loss(plain.tolist(), (plain + changes).clip(0, 1).tolist(), test)


def _choice(float32: Loss, int8: Loss, speeds: tuple[float, float] = (2, 3)) -> Weights:
    """The choice between weights with these losses and titles a second; the model itself writes one a second."""
    losses, speed = (None, float32, int8), (1, *speeds)
    return choose_weights(
        {
            name: Measured(rouge1=0.2, same_titles=1, titles_a_second=speed[place], loss=losses[place])
            for place, name in enumerate(("plain", "float32", "int8"))
        }
    )


SAME = Loss(mean=0, low=0, high=0)


def test_int8_weights_that_lose_too_much_are_rarely_chosen(project: Path) -> None:
    rng = np.random.default_rng(1)
    assert sum(_choice(SAME, _lost(rng, 0.02, changed=0.7)) == "int8" for _ in range(60)) <= 3
    assert sum(_choice(SAME, _lost(rng, -0.01, changed=0.05)) == "int8" for _ in range(20)) > 10
    assert _choice(SAME, SAME) == "int8"


def test_float32_weights_are_rejected_only_if_provably_worse(project: Path) -> None:
    rng = np.random.default_rng(1)
    worse = Loss(mean=0.1, low=0.05, high=0.15)
    chosen = []
    for _ in range(40):
        with suppress(Rejected):
            chosen.append(_choice(_lost(rng, 0, changed=0.7), worse))
    assert chosen.count("float32") >= 38
    with pytest.raises(Rejected, match=r"loses 0\.1000 \[0\.0500, 0\.1500\].*conversion is at fault"):
        _choice(worse, worse)


def test_only_weights_that_are_faster_than_the_model_itself_are_kept() -> None:
    assert _choice(SAME, SAME, speeds=(3, 2)) == "float32"
    worse = Loss(mean=0.1, low=0.05, high=0.15)
    assert _choice(SAME, worse, speeds=(1.5, 4)) == "float32"
    with pytest.raises(Rejected, match=r"With float32 weights.* 1\.00 titles a second.* int8 may lose 0\.1500"):
        _choice(SAME, worse, speeds=(1, 4))


def test_the_summary_gives_the_reason_for_the_weights(split: Path, examples: pd.DataFrame) -> None:
    card = export(register_small(split / "t5", "t5", examples), split / "out")
    losing = card.measured["int8"].model_copy(update={"loss": Loss(mean=0.02, low=-0.01, high=0.05)})
    unproven = card.model_copy(update={"weights": "float32", "measured": {**card.measured, "int8": losing}})
    assert "lost 0.0200 [-0.0100, 0.0500]" in unproven.summary(split)
    assert "int8 may lose up to 0.0500, more than the tolerated 0.01" in unproven.summary(split)
    sure = losing.model_copy(update={"loss": SAME})
    shown = card.model_copy(update={"weights": "int8", "measured": {**card.measured, "int8": sure}})
    assert "int8 loses at most 0.01" in shown.summary(split)


def test_titles_in_any_script_are_compared(project: Path, examples: pd.DataFrame) -> None:
    subjects = ("деревья", "графы", "потоки", "классы", "циклы", "массивы", "строки", "числа")
    texts = [f"сегодня мы с вами говорим о том что такое {subject} и зачем нужны {subject}" for subject in subjects]
    russian = examples[:8].assign(text=texts, title=[f"Зачем нужны {subject}" for subject in subjects])
    version = register_small(project / "t5", "t5", russian)
    written = open_titler(project / "t5", GREEDY).best_titles(texts)
    SPLITS.mkdir(parents=True)
    russian.assign(title=written).to_parquet(SPLITS / "test.parquet", index=False)
    assert export(version, project / "out").measured["plain"].rouge1 == 1


def test_an_export_titles_passages_and_workbooks(split: Path, examples: pd.DataFrame) -> None:
    version = register_small(split / "small", "causal", examples)
    text = examples["text"][3]
    done = lectern("export", "--examples", "4", cwd=split)
    assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout
    folder = split / "exports" / version.name / "1"
    assert json.loads((folder / "export.json").read_text())["examples"] == 4
    by_the_export = lectern("title", text, cwd=split)
    assert by_the_export.stdout.strip()
    assert f"by the export in exports/{version.name}/1" in by_the_export.stderr
    book = write_book(split / "week.xlsx", [("C", "1", "0:00:00", None)], [("C", "1", "0:00:01", text)])
    done = lectern("title", book, cwd=split)
    assert (done.returncode, "by the export" in done.stderr) == (0, True)
    assert openpyxl.load_workbook(split / "week.titled.xlsx")["lesson_topics"]["D2"].value
    shutil.rmtree(folder)
    by_the_model = lectern("title", text, cwd=split)
    assert (bool(by_the_model.stdout.strip()), "by the export" in by_the_model.stderr) == (True, False)


def test_a_damaged_export_says_what_to_do(exported: Path) -> None:
    for file in ("export.json", "lectern.json", "tokenizer.json", "ctranslate2/model.bin"):
        whole = (exported / file).read_bytes()
        (exported / file).write_text("{}", encoding="utf-8")
        with pytest.raises(
            Rejected, match=r"exports/lectern/1 is damaged\. Delete the folder, or repeat `lectern export"
        ):
            load_version(find_served_version())
        (exported / file).write_bytes(whole)
    assert load_version(find_served_version())(["the gradient says where to go"], {})


def test_a_refused_export_leaves_no_earlier_one(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.exports.export_card.FASTER", 1e9)
    with pytest.raises(Rejected, match="no export is kept"):
        export(connect().get_model_version("lectern", "1"), exported)
    assert find_served_version().export is None


def test_an_export_is_used_only_for_its_version_and_where_it_is_faster(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_served_version().export
    card = ExportCard.read(exported)
    card.model_copy(update={"model_md5": "of a deleted version with this number"}).write(exported)
    assert find_served_version().export is None
    slow = card.measured["plain"].model_copy(update={"loss": SAME})  # exports of old releases may be so
    card.model_copy(update={"measured": dict.fromkeys(card.measured, slow)}).write(exported)
    assert find_served_version().export is None
    card.write(exported)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert find_served_version().export is None
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES= lectern export"):
        export(connect().get_model_version("lectern", "1"), exported)
