"""A registered model writes the titles it was measured with also where transformers alone opens it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from transformers import GenerationConfig

from pipeline.models.checkpoints import Card, load_inputs, save_model
from pipeline.models.families import FAMILIES
from pipeline.models.generation import GenerateSettings, generation_config, open_titler
from pipeline.models.title_cleanup import clean_up_title
from pipeline.registry.model_card import usage
from pipeline.registry.registration import register
from pipeline.registry.tracking import connect
from tests.models.small import GREEDY, lively_model

BEAMS = {"num_beams": 3, "length_penalty": 2.0, "no_repeat_ngram_size": 2, "min_new_tokens": 3}
DRAWN = {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "consensus": 4, "candidates": 2}


def trained_folder(project: Path, family: str, examples: pd.DataFrame) -> Path:
    """A model folder as the train stage leaves it, of a model that writes another title for each text."""
    model, inputs = lively_model(family, examples)
    card = Card(model="small", family=family, checkpoint="scratch", max_source_tokens=48, max_target_tokens=12)
    folder = project / "models/small"
    folder.mkdir(parents=True)
    save_model(folder, model, inputs.tokenizer, card, "float32")
    return folder


def titles_by_transformers(folder: Path, texts: list[str]) -> list[str]:
    """The titles that the code of the model card prints, with other texts than its own."""
    card = Card.model_validate_json((folder / "lectern.json").read_text(encoding="utf-8"))
    lines = usage(card).splitlines()
    (place,) = [place for place, line in enumerate(lines) if line.startswith("text = ")]
    titles = []
    with contextlib.chdir(folder):
        for text in texts:
            lines[place] = f"text = {text!r}"
            exec("\n".join(lines), names := {})
            titles += names["tokenizer"].batch_decode(names["titles"], skip_special_tokens=True)
    return titles


def test_the_code_of_the_card_writes_the_titles_of_a_plain_prompt(project: Path, examples: pd.DataFrame) -> None:
    folder, texts = trained_folder(project, "causal", examples), examples["text"][:3].tolist()
    card = Card.model_validate_json((folder / "lectern.json").read_text(encoding="utf-8"))
    prompted = card.model_copy(update={"prompt": "A lecture:\n{text}\nTopic title:"})
    (folder / "lectern.json").write_text(prompted.model_dump_json(), encoding="utf-8")
    generation_config(folder, GREEDY).save_pretrained(folder)
    measured = open_titler(folder, GREEDY).best_titles(texts)
    assert [*map(clean_up_title, titles_by_transformers(folder, texts))] == measured
    assert len(set(measured)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "bart", "causal"])
def test_transformers_alone_writes_the_measured_titles_from_the_registered_folder(
    family: str, project: Path, examples: pd.DataFrame
) -> None:
    settings = GenerateSettings(**{**GREEDY.model_dump(), **BEAMS})
    folder, texts = trained_folder(project, family, examples), examples["text"][:4].tolist()
    measured = open_titler(folder, settings).best_titles(texts)
    with mlflow.start_run(experiment_id=connect().get_experiment_by_name("lectern").experiment_id) as run:
        pass
    tags = {"model": "small", "model.md5": "a", "model.code": "b"}
    register(MlflowClient(), "lectern", folder, settings, run_id=run.info.run_id, tags=tags)
    registered = mlflow.artifacts.download_artifacts("models:/lectern@challenger/artifacts/small")
    assert [*map(clean_up_title, titles_by_transformers(Path(registered), texts))] == measured
    assert len(set(measured)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("otherwise", [{}, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_code_of_the_card_writes_the_titles_of_every_family(
    family: str, otherwise: dict[str, object], project: Path, examples: pd.DataFrame
) -> None:
    settings = GenerateSettings(**{**GREEDY.model_dump(), **otherwise})
    folder, texts = trained_folder(project, family, examples), examples["text"][:3].tolist()
    generation_config(folder, settings).save_pretrained(folder)
    assert [*map(clean_up_title, titles_by_transformers(folder, texts))] == open_titler(folder, settings).best_titles(
        texts
    )


def test_the_code_of_the_card_cuts_a_long_text_where_lectern_does(project: Path, examples: pd.DataFrame) -> None:
    """T5's prefix counts beside max_source_tokens."""
    folder = trained_folder(project, "t5", examples)
    texts = [" ".join(examples["text"][place:]) for place in range(6)]
    inputs, card = load_inputs(folder)
    assert all(len(inputs.source(text)) > card.max_source_tokens for text in texts)
    generation_config(folder, GREEDY).save_pretrained(folder)
    assert [*map(clean_up_title, titles_by_transformers(folder, texts))] == open_titler(folder, GREEDY).best_titles(
        texts
    )


def test_drawn_titles_come_with_the_settings_that_draw_them(project: Path, examples: pd.DataFrame) -> None:
    folder = trained_folder(project, "t5", examples)
    generation_config(folder, GenerateSettings(**{**GREEDY.model_dump(), **DRAWN})).save_pretrained(folder)
    saved = GenerationConfig.from_pretrained(folder)
    assert (saved.do_sample, saved.temperature, saved.top_k, saved.top_p) == (True, 0.7, 5, 0.9)
    assert saved.num_return_sequences == 4


def test_other_generation_settings_train_no_model_again(project: Path, examples: pd.DataFrame) -> None:
    assert not (trained_folder(project, "t5", examples) / "generation_config.json").exists()
