"""The stage `train@MODEL`: one model, fine-tuned on the training split."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from mlflow import MlflowClient
from transformers import TrainerCallback

from pipeline.data.lesson_openings import usual_opening_title
from pipeline.errors import UsageError
from pipeline.evaluation.metrics import epoch_score
from pipeline.files import folder_aside, write_text
from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.models.checkpoints import ModelSettings, save_model
from pipeline.models.device import training_device
from pipeline.models.layer_groups import summarise
from pipeline.models.precision import training_precision
from pipeline.models.seen_examples import SeenExamples
from pipeline.models.title_cleanup import learn_style
from pipeline.paths import CHECKPOINTS, MODELS, TRAINING_SPLITS
from pipeline.registry.lineage import checkpoint_tags, lineage_tags, training_fingerprint
from pipeline.registry.tracking import training_run
from pipeline.registry.training_log import LogToMlflow
from pipeline.training.curves import COLUMNS
from pipeline.training.multi_gpu import (
    exit_with_launcher,
    is_first_process,
    is_launched,
    launch,
    process_count,
)
from pipeline.training.prepare import Prepared, prepare
from pipeline.training.record import Training, TrainingRun, write_training
from pipeline.training.resume import Stopwatch
from pipeline.training.settings import TrainSettings
from pipeline.training.trackers import require_trackers, tracker_callbacks
from pipeline.training.trainer import TrainingDiverged, WeightsUnchanged, fit


def run(model: str) -> None:
    """Train `model`, in several processes if params.yaml asks for them, and write its folder and its record."""
    model_settings = ModelSettings.read(model)
    settings = TrainSettings.of_model(model, model_settings)
    require_trackers(settings.report_to)
    if is_launched():
        exit_with_launcher()
    elif settings.processes > 1:
        training_device(settings.device, compute=False)
        launch(settings.processes, "train", model)
        return
    _require_processes(model, settings)
    device = training_device(settings.device, processes=settings.processes)
    train, validation = (pd.read_parquet(path) for path in TRAINING_SPLITS.values())
    model_settings = model_settings.with_pinned_checkpoint()
    # The name has a hash of all inputs: a training never resumes from the checkpoints of another one.
    start = checkpoint_tags(model_settings)
    fingerprint = training_fingerprint(model_settings, settings.affecting_weights(), start)
    resume_from = CHECKPOINTS / f"{model}-{fingerprint}"
    # Only in the first process: the others have no GPU yet to load a model on, and their scores are not used.
    score = epoch_score(settings.bertscore if is_first_process() else None) if settings.epochs else None
    prepared = prepare(model, model_settings, settings, [*train["text"], *train["title"]])

    def fit_with(callbacks: Sequence[TrainerCallback]) -> pd.DataFrame:
        if score is None:
            return pd.DataFrame(columns=COLUMNS)
        return fit(
            prepared.trained,
            prepared.inputs,
            train,
            validation,
            settings,
            score=score,
            resume_from=resume_from,
            callbacks=callbacks,
        )

    if not is_first_process():
        fit_with([])
        return
    checkpoint = None if model_settings.scratch else find_checkpoint(model_settings.checkpoint)
    learnt_from = train if settings.epochs else train.head(0)
    seen = SeenExamples.of_training(learnt_from, validation, checkpoint, model_settings.checkpoint)
    lineage = {**lineage_tags(), **start, **device.tags()}
    if settings.epochs:
        precision = training_precision(settings.precision, prepared.network, prepared.inputs.family, resume_from)
        print(f"{model} trains on {device}, in {precision}", flush=True)
        lineage["device.precision"] = precision
    else:
        print(f"{model} is used without training", flush=True)
    try:
        _train_and_keep(model, model_settings, settings, lineage, prepared, train, seen, fit_with, resume_from)
    except (TrainingDiverged, WeightsUnchanged):
        shutil.rmtree(resume_from, ignore_errors=True)  # nothing to resume: another machine may get other results
        raise
    shutil.rmtree(resume_from, ignore_errors=True)


def _require_processes(model: str, settings: TrainSettings) -> None:
    """Check the number of processes.

    Raises:
        UsageError: it differs from the one in params.yaml, or exceeds the number of GPUs.
    """
    if process_count() != settings.processes:
        raise UsageError(
            f"{process_count()} processes were started, but params.yaml has processes: {settings.processes} for "
            f"'{model}'. Change it there: the stage starts the processes itself."
        )
    gpus = torch.cuda.device_count()
    if 0 < gpus < settings.processes:
        raise UsageError(
            f"params.yaml has processes: {settings.processes} for '{model}', one for each GPU, and this machine has "
            f"{gpus} GPUs. Lower it."
        )


def _train_and_keep(
    model: str,
    model_settings: ModelSettings,
    settings: TrainSettings,
    lineage: dict[str, str],
    prepared: Prepared,
    train: pd.DataFrame,
    seen: SeenExamples,
    fit_with: Callable[[Sequence[TrainerCallback]], pd.DataFrame],
    resume_from: Path,
) -> None:
    """Train inside an MLflow run; write the model folder and the record of its training.

    Args:
        resume_from: the folder of checkpoints, with the MLflow run and the duration of an interrupted training.
    """
    size = prepared.size()
    if not settings.epochs:
        size["trainable_parameters"] = 0
    run_id_file, watch = resume_from / "mlflow_run_id", Stopwatch(resume_from / "seconds")
    begun = run_id_file.read_text(encoding="utf-8") if run_id_file.exists() else None
    flat = {**model_settings.model_dump(exclude={"train"}), **settings.model_dump(), **size}
    with training_run(
        model, params=flat, tags={"model": model, **lineage}, splits=TRAINING_SPLITS, run_id=begun
    ) as run_id:
        write_text(run_id_file, run_id)
        client = MlflowClient()
        client.log_text(
            run_id, summarise(prepared.network, prepared.inputs.family).to_csv(index=False), "model_summary.csv"
        )
        client.log_text(run_id, prepared.preview(train), "batch_preview.txt")
        with tracker_callbacks(settings.report_to, model, run_id) as others:
            curves = fit_with([watch, LogToMlflow(client, run_id), *others])
        seconds = round(watch.seconds, 1)
        prepared.merge()
        style = learn_style(train["title"], usual_opening_title(train), train["text"])
        card = prepared.card.model_copy(update={"style": style})
        with folder_aside(MODELS / model) as folder:
            save_model(folder, prepared.network, prepared.inputs.tokenizer, card, model_settings.weights)
            seen.write(folder)
        measured_by = str(settings.bertscore) if settings.bertscore and settings.epochs else None
        trained = TrainingRun(run_id=run_id, seconds=seconds, bertscore=measured_by, lineage=lineage, **size)
        write_training(model, Training(trained, curves))
    print(f"{model}: {size['trainable_parameters']:,} of {size['parameters']:,} parameters trained in {seconds} s")
