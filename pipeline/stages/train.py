"""`train@MODEL`: one model, fine-tuned on the training split."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
import transformers
from transformers import TrainerCallback

from pipeline.evaluation.rouge import Rouge
from pipeline.files import folder_aside
from pipeline.models.checkpoints import ModelSettings, save_model
from pipeline.models.layers import summarise
from pipeline.models.places import find
from pipeline.paths import MODELS, SPLITS, STATE
from pipeline.registry.lineage import lineage_tags, md5
from pipeline.registry.tracking import connect, training_run
from pipeline.registry.training_log import LogToMlflow
from pipeline.training.fit import CURVES, fit
from pipeline.training.launch import in_several_processes, is_first_process, is_one_of_several
from pipeline.training.prepare import Prepared, prepare
from pipeline.training.preview import preview
from pipeline.training.record import Training, TrainingRun, write_training
from pipeline.training.settings import TrainSettings

_SPLITS = {split: SPLITS / f"{split}.parquet" for split in ("train", "validation")}


def run(model: str) -> None:
    model_settings = ModelSettings.read(model)
    settings = TrainSettings.of_model(model, model_settings)
    if settings.processes > 1 and not is_one_of_several():
        in_several_processes(settings.processes, "train", model)
        return
    train, validation = (pd.read_parquet(path) for path in _SPLITS.values())
    resume_from = _resume_folder(model, model_settings, settings)
    prepared = prepare(model, model_settings, settings, [*train["text"], *train["title"]])

    def fit_with(callbacks: Sequence[TrainerCallback]) -> pd.DataFrame:
        if not settings.epochs:
            return pd.DataFrame(columns=CURVES)
        return fit(
            prepared.network,
            prepared.inputs,
            train,
            validation,
            settings,
            score=_rouge,
            resume_from=resume_from,
            callbacks=callbacks,
        )

    if not is_first_process():
        fit_with([])
        return
    _train_and_keep(model, model_settings, settings, prepared, train, fit_with)
    shutil.rmtree(resume_from, ignore_errors=True)


def _train_and_keep(
    model: str,
    model_settings: ModelSettings,
    settings: TrainSettings,
    prepared: Prepared,
    train: pd.DataFrame,
    fit_with: Callable[[Sequence[TrainerCallback]], pd.DataFrame],
) -> None:
    """Trains inside an MLflow run, and writes the model folder and the record of its training."""
    lineage, size = lineage_tags(), prepared.size()
    flat = {**model_settings.model_dump(exclude={"train"}), **settings.model_dump(), **size}
    with training_run(model, params=flat, tags={"model": model, **lineage}, splits=_SPLITS) as run_id:
        client = connect()
        client.log_text(
            run_id, summarise(prepared.network, prepared.inputs.family).to_csv(index=False), "model_summary.csv"
        )
        client.log_text(run_id, preview(prepared.inputs, train), "batch_preview.txt")
        start = time.monotonic()
        curves = fit_with([LogToMlflow(client, run_id)])
        seconds = round(time.monotonic() - start, 1)
        with folder_aside(MODELS / model) as folder:
            save_model(folder, prepared.network, prepared.inputs.tokenizer, prepared.card, model_settings.weights)
        write_training(model, Training(TrainingRun(run_id=run_id, seconds=seconds, lineage=lineage, **size), curves))
    print(f"{model}: {size['trainable_parameters']:,} of {size['parameters']:,} parameters trained in {seconds} s")


def _rouge(predictions: list[str], titles: list[str]) -> dict[str, float]:
    """BERTScore after each epoch would cost more than it tells."""
    scores = Rouge(keep_in_memory=True).compute(predictions=predictions, references=titles)
    return {name: sum(values) / len(values) for name, values in scores.items()}


def _resume_folder(model: str, model_settings: ModelSettings, settings: TrainSettings) -> Path:
    """Named after all that the training depends on: what another one left can never be gone on from by mistake."""
    inputs = [
        model_settings.model_dump_json(),
        settings.model_dump_json(),
        "scratch" if model_settings.scratch else md5(find(model_settings.checkpoint)),
        *map(md5, (*_SPLITS.values(), Path("pipeline/models"), Path("pipeline/training"))),
        torch.__version__,
        transformers.__version__,
    ]
    return STATE / "checkpoints" / f"{model}-{hashlib.sha256(' '.join(inputs).encode()).hexdigest()[:12]}"
