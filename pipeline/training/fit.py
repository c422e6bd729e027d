"""Fine-tuning: transformers' own trainer with our schedule, our batches and our titles after each epoch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import Sampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.trainer_pt_utils import LengthGroupedSampler

from pipeline.models.generation import GenerateSettings, Titler
from pipeline.models.inputs import Example, Inputs
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

Score = Callable[[list[str], list[str]], dict[str, float]]
"""Predicted and true titles to the mean of each score."""

_SHORTEST_CYCLE_STEPS = 3  # a rise and a fall want two steps each, and share one

CURVES = ["epoch", "step", "train_loss", "validation_loss", "rouge1", "rouge2", "rougeL", "rougeLsum", "learning_rate"]


def fit(
    model: PreTrainedModel,
    inputs: Inputs,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    settings: TrainSettings,
    *,
    score: Score,
    resume_from: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> pd.DataFrame:
    """Trains `model` in place, ends with the weights of its best epoch, and returns one row an epoch (`CURVES`).

    Args:
        train, validation: examples, with the columns `text` and `title`.
        score: applied after each epoch to greedy titles for the validation split.
        resume_from: a folder of this training's own, for checkpoints: what an interrupted run left there is gone on
            from. It is the caller's to remove once what came of the training is safe.
    """
    trainer = _TitleTrainer(
        model=model,
        args=_arguments(settings, inputs, resume_from),
        data_collator=inputs.training_batch,
        train_dataset=_examples(inputs, train),
        eval_dataset=_examples(inputs, validation),
        callbacks=[*callbacks, *_early_stopping(settings)],
        inputs=inputs,
        settings=settings,
        validation=validation,
        score=score,
    )
    # The library's own would print every step's loss.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_ProgressBar() if sys.stderr.isatty() else _LogLines())
    trainer.train(resume_from_checkpoint=_last_whole_checkpoint(resume_from))
    return _curves(trainer.state)


class _TitleTrainer(Trainer):
    def __init__(
        self, *, inputs: Inputs, settings: TrainSettings, validation: pd.DataFrame, score: Score, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._texts = validation["text"].tolist()
        self._titles = validation["title"].tolist()
        self._score = score
        self._titler = Titler(self.model, inputs, _greedy(inputs, settings))

    def _get_train_sampler(self, train_dataset: Sequence[Example] | None = None) -> Sampler[int]:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        return _ByLength(self.args.train_batch_size, [len(example.source) for example in dataset], self.args.seed)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        if self._settings.schedule != "one-cycle" or num_training_steps < _SHORTEST_CYCLE_STEPS:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler = OneCycleLR(
                optimizer or self.optimizer,
                max_lr=self._settings.learning_rate,
                total_steps=num_training_steps,
                pct_start=max(self._settings.warmup, 2 / num_training_steps),
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any):
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        scores = self._score(self._titler.best_titles(self._texts, progress="validation titles"), self._titles)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in scores.items()})
        return output


class _ByLength(LengthGroupedSampler):
    """Texts of like length together, in an order that seed and epoch decide: a resumed run meets the same batches."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer's data loader ahead of each epoch."""
        self.generator.manual_seed(self._seed + epoch)


class _ProgressBar(ProgressCallback):
    """The library's bar, without a line for every step."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


class _LogLines(TrainerCallback):
    """Where nobody watches a bar: a line for every tenth of the steps, and one for every epoch."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % max(1, state.max_steps // 10) == 0:
            log.info("step %d of %d", state.global_step, state.max_steps)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        log.info(
            "epoch %g of %g: validation loss %.4f, ROUGE-1 %.4f",
            state.epoch,
            state.num_train_epochs,
            metrics["eval_loss"],
            metrics["eval_rouge1"],
        )


def _examples(inputs: Inputs, frame: pd.DataFrame) -> list[Example]:
    return [inputs.example(text, title) for text, title in zip(frame["text"], frame["title"], strict=True)]


def _greedy(inputs: Inputs, settings: TrainSettings) -> GenerateSettings:
    """What is quick, and enough to see a curve; the evaluate stage generates as `generate` says."""
    return GenerateSettings(
        num_beams=1,
        max_new_tokens=inputs.max_target_tokens,
        min_new_tokens=0,
        no_repeat_ngram_size=0,
        length_penalty=1.0,
        batch_size=2 * settings.batch_size,
    )


def _early_stopping(settings: TrainSettings) -> list[TrainerCallback]:
    return [EarlyStoppingCallback(settings.early_stopping)] if settings.early_stopping else []


def _arguments(settings: TrainSettings, inputs: Inputs, folder: Path) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    bf16 = on_gpu and torch.cuda.is_bf16_supported()
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear" if settings.schedule == "linear" else "constant_with_warmup",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        max_grad_norm=settings.max_gradient_norm,
        optim="adamw_torch",
        bf16=bf16,
        fp16=on_gpu and not bf16 and inputs.family.half_precision == "float16",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        restore_callback_states_from_checkpoint=True,  # early stopping's patience
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


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The latest checkpoint of an interrupted run. Its state file is written last, so one without it is half."""
    whole = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json")]
    if not whole:
        return None
    last = max(whole, key=lambda checkpoint: int(checkpoint.name.removeprefix("checkpoint-")))
    log.info("going on from %s", last.name)
    return str(last)


def _curves(state: TrainerState) -> pd.DataFrame:
    """One row an epoch, from the trainer's log, which a resumed run shares with the interrupted one."""
    steps = pd.DataFrame([entry for entry in state.log_history if "loss" in entry])
    epochs = pd.DataFrame([entry for entry in state.log_history if "eval_loss" in entry])
    epochs = epochs.rename(columns={"eval_loss": "validation_loss"}).rename(
        columns=lambda name: name.removeprefix("eval_")
    )
    epoch_of_step = steps["step"].map(lambda step: (epochs["step"] < step).sum())
    epochs["train_loss"] = steps.groupby(epoch_of_step)["loss"].mean().reindex(epochs.index)
    epochs["learning_rate"] = steps.groupby(epoch_of_step)["learning_rate"].last().reindex(epochs.index)
    return epochs[CURVES]
