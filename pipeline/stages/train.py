"""`train@MODEL`: one model, fine-tuned on the training split."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

import pandas as pd
import torch
import transformers

from pipeline.evaluation.rouge import Rouge
from pipeline.files import folder_aside
from pipeline.models.checkpoints import Card, ModelSettings, open_checkpoint, save_model
from pipeline.models.families import FAMILIES
from pipeline.models.inputs import Inputs
from pipeline.models.layers import count_parameters, freeze, summarise
from pipeline.models.places import find
from pipeline.paths import MODELS, SPLITS, STATE
from pipeline.registry.lineage import lineage_tags, md5
from pipeline.registry.tracking import connect, training_run
from pipeline.registry.training_log import LogToMlflow
from pipeline.training.fit import CURVES, fit
from pipeline.training.preview import preview
from pipeline.training.record import Training, TrainingRun, write_training
from pipeline.training.settings import TrainSettings


def run(model: str) -> None:
    model_settings = ModelSettings.read(model)
    settings = TrainSettings.of_model(model, model_settings)
    paths = {split: SPLITS / f"{split}.parquet" for split in ("train", "validation")}
    train, validation = (pd.read_parquet(path) for path in paths.values())

    resume_from = _resume_folder(model, model_settings, settings, paths)
    transformers.set_seed(settings.seed)
    network, tokenizer = open_checkpoint(model_settings, [*train["text"], *train["title"]])
    family = FAMILIES[model_settings.family]
    freeze(network, family, settings.freeze, settings.freeze_lower_layers)
    card = Card(model=model, **model_settings.model_dump(include=set(Card.model_fields)))
    inputs = Inputs(
        family,
        tokenizer,
        max_source_tokens=card.max_source_tokens,
        max_target_tokens=card.max_target_tokens,
    )
    size = {
        "parameters": count_parameters(network),
        "trainable_parameters": count_parameters(network, trainable_only=True),
    }

    lineage = lineage_tags()
    flat = {**model_settings.model_dump(exclude={"train"}), **settings.model_dump(), **size}
    with training_run(model, params=flat, tags={"model": model, **lineage}, splits=paths) as run_id:
        client = connect()
        client.log_text(run_id, summarise(network, family).to_csv(index=False), "model_summary.csv")
        client.log_text(run_id, preview(inputs, train), "batch_preview.txt")
        start = time.monotonic()
        curves = pd.DataFrame(columns=CURVES)
        if settings.epochs:
            curves = fit(
                network,
                inputs,
                train,
                validation,
                settings,
                score=_rouge,
                resume_from=resume_from,
                callbacks=[LogToMlflow(client, run_id)],
            )
        seconds = round(time.monotonic() - start, 1)

        with folder_aside(MODELS / model) as folder:
            save_model(folder, network, tokenizer, card, model_settings.weights)
        write_training(model, Training(TrainingRun(run_id=run_id, seconds=seconds, lineage=lineage, **size), curves))
    shutil.rmtree(resume_from, ignore_errors=True)
    print(f"{model}: {size['trainable_parameters']:,} of {size['parameters']:,} parameters trained in {seconds} s")


def _rouge(predictions: list[str], titles: list[str]) -> dict[str, float]:
    """BERTScore after each epoch would cost more than it tells."""
    scores = Rouge(keep_in_memory=True).compute(predictions=predictions, references=titles)
    return {name: sum(values) / len(values) for name, values in scores.items()}


def _resume_folder(model: str, model_settings: ModelSettings, settings: TrainSettings, paths: dict[str, Path]) -> Path:
    """Named after all that the training depends on: what another one left can never be gone on from by mistake."""
    inputs = [
        model_settings.model_dump_json(),
        settings.model_dump_json(),
        "scratch" if model_settings.scratch else md5(find(model_settings.checkpoint)),
        *map(md5, (*paths.values(), Path("pipeline/models"), Path("pipeline/training"))),
        torch.__version__,
        transformers.__version__,
    ]
    return STATE / "checkpoints" / f"{model}-{hashlib.sha256(' '.join(inputs).encode()).hexdigest()[:12]}"
