"""Translate training settings into the arguments of transformers' trainer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from pipeline.models.precision import Precision
from pipeline.training.settings import TrainSettings


def build_arguments(settings: TrainSettings, precision: Precision, folder: Path) -> TrainingArguments:
    """Build the trainer's arguments.

    Args:
        settings: The training's settings.
        precision: The training's precision.
        folder: The folder for checkpoints.
    """
    on_gpu = torch.cuda.is_available()
    saves_memory: dict[str, Any] = {}
    if settings.gradient_checkpointing:  # only then, because earlier releases of transformers have another name for it
        saves_memory = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}}
    # `accelerate launch` sets this from its user's defaults, but params.yaml alone decides the precision.
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        max_grad_norm=settings.max_gradient_norm,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        torch_compile=settings.compile,
        **saves_memory,
        use_cpu=not on_gpu,
        ddp_find_unused_parameters=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,  # the best and the last; with a limit of 1 the trainer deletes the last one too early
        restore_callback_states_from_checkpoint=True,  # for the patience of early stopping
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        disable_tqdm=not sys.stderr.isatty(),
        report_to="none",
        seed=settings.seed,
    )
    # A process uses one GPU even if it sees several. The library would split each batch among them.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
