"""Fine-tune a model with transformers' trainer, and write titles for the validation split after each epoch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Sampler
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.modeling_utils import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput, unwrap_peft_model
from transformers.utils import SAFE_WEIGHTS_NAME

from pipeline.errors import Rejected, TemporaryFailure
from pipeline.machine_errors import lacks_memory
from pipeline.models.features import EncodedTexts, Features, frozen_part
from pipeline.models.generation import GenerateSettings, Titler
from pipeline.models.inputs import Example, Inputs, micro_batches
from pipeline.models.out_of_memory import halve_when_out_of_memory
from pipeline.models.precision import training_precision
from pipeline.training.arguments import build_arguments
from pipeline.training.batches import (
    SeededLengthSampler,
    build_examples,
    count_title_tokens,
    source_tokens,
    title_cost,
)
from pipeline.training.curves import curves_from
from pipeline.training.optimisers import GradualUnfreezing, build_optimiser
from pipeline.training.progress import progress_callback
from pipeline.training.resume import SaveWithinEpochs, last_complete_checkpoint
from pipeline.training.schedules import build_schedule
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

_ValidationRow = tuple[Example, str, str]
"""An example of the validation split with its text and its title."""

Score = Callable[[list[str], list[str]], dict[str, float]]
"""Returns the mean of each score for generated and true titles."""


class TooLittleMemory(TemporaryFailure):
    """The device has too little memory for one example."""


class TrainingDiverged(Rejected):
    """The loss of a training became infinite or NaN."""

    def __init__(self) -> None:
        super().__init__(
            "The training diverged: its loss is infinite or not a number. In params.yaml, lower the model's "
            "learning_rate, or set precision: float32."
        )


class WeightsUnchanged(Rejected):
    """A training left all weights as they were."""

    def __init__(self, steps: int) -> None:
        super().__init__(
            f"The training changed no weight in {steps} steps: all steps were skipped or too small. In params.yaml, "
            "raise the model's learning_rate, train for more steps (more epochs, or a smaller batch_size), or set "
            "precision: float32."
        )


def fit(
    model: PreTrainedModel | PeftModel,
    inputs: Inputs,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    settings: TrainSettings,
    *,
    score: Score,
    resume_from: Path,
    callbacks: Sequence[TrainerCallback] = (),
) -> pd.DataFrame:
    """Train `model` in place, and leave it with the weights of its best epoch.

    Args:
        model: The model, or the model with LoRA's adapters.
        inputs: The model's inputs.
        train: Training examples with the columns `text` and `title`.
        validation: Validation examples with the same columns.
        settings: The training's settings.
        score: Scores greedy titles of the validation split after each epoch.
        resume_from: The training's own folder for checkpoints. An interrupted training resumes from its last
            checkpoint. The caller deletes the folder after it has saved the model.
        callbacks: More callbacks for the trainer.

    Returns:
        One row per epoch, as `pipeline.training.curves` describes.

    Raises:
        TooLittleMemory: One example needs more memory than the device has.
        TrainingDiverged: The validation loss is not a finite number after any epoch.
        WeightsUnchanged: The weights are the same as before.
    """
    before = _hash_weights(model)
    precision = training_precision(settings.precision, unwrap_peft_model(model), inputs.family, resume_from)
    trainer = _TitleTrainer(
        model=model,
        args=build_arguments(settings, precision, resume_from),
        data_collator=_keep_list,
        train_dataset=build_examples(inputs, train),
        eval_dataset=build_examples(inputs, validation),
        callbacks=[
            *callbacks,
            *_early_stopping(settings),
            *_unfreezing(model, inputs, settings),
            SaveWithinEpochs(settings.checkpoint_minutes),
        ],
        inputs=inputs,
        settings=settings,
        validation=validation,
        score=score,
    )
    # The library's own callbacks print the loss of every step.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(progress_callback())
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(resume_from))
    # When the first process returns, its caller may delete files that the others still read.
    trainer.accelerator.wait_for_everyone()
    trainer.restore_full_precision()
    curves = curves_from(trainer.state)
    if trainer.is_world_process_zero():  # only one process reports the error
        if not np.isfinite(curves["validation_loss"]).any():
            raise TrainingDiverged
        if _hash_weights(model) == before:
            raise WeightsUnchanged(trainer.state.global_step)
    return curves


class _TitleTrainer(Trainer):
    """transformers' trainer with our optimiser, schedule, micro-batches, features and validation."""

    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self, *, inputs: Inputs, settings: TrainSettings, validation: pd.DataFrame, score: Score, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._network = unwrap_peft_model(self.model)
        self._inputs = inputs
        self._settings = settings
        self._texts = validation["text"].tolist()
        self._titles = validation["title"].tolist()
        self._score = score
        self._micro_batch_tokens = settings.micro_batch_tokens
        self._frozen_part: tuple[nn.Module, ...] = ()
        self._features: Features | None = None

    def _get_train_sampler(self, train_dataset: Sequence[Example] | None = None) -> Sampler[int]:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        lengths = [*map(self._cost(), dataset)]
        return SeededLengthSampler(
            self.args.train_batch_size, lengths, self.args.seed, lambda: int(self.state.epoch or 0)
        )

    def create_optimizer(self, model: PreTrainedModel | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = build_optimiser(self._network, self._inputs.family, self._settings)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        if self.lr_scheduler is None:
            self.lr_scheduler = build_schedule(optimizer or self.optimizer, self._settings, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _run_epoch(self, **kwargs: Any) -> None:
        """Run an epoch, unless early stopping had ended the training before it was interrupted."""
        stops = [each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
        if any(each.early_stopping_patience_counter >= each.early_stopping_patience for each in stops):
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def training_step(
        self, model: nn.Module, inputs: list[Example], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Compute the gradients of one optimiser step in micro-batches, and return its loss.

        When memory runs out, the micro-batches are halved for the rest of the training.
        """
        features = self._current_features()
        model.train()
        # Without dropout in the frozen part, whose output is cached for all steps. Other frozen layers keep it.
        for module in self._frozen_part:
            module.eval()
        self.optimizer.train()  # a schedule-free optimiser has separate weights for training and for use
        while True:
            try:
                return self._accumulate_gradients(model, inputs, features)
            except (RuntimeError, MemoryError) as error:
                if not lacks_memory(error):
                    raise
            # Outside the except block: the error keeps the tensors of the failed step alive.
            model.zero_grad()
            self._halve_micro_batches(inputs)

    def _accumulate_gradients(self, model: nn.Module, examples: list[Example], features: Features | None) -> Tensor:
        batches = self._micro_batches(examples)
        # All title tokens of a step have the same weight, in every micro-batch and process.
        own_tokens = torch.tensor(count_title_tokens(examples), device=self.args.device)
        all_tokens = self.accelerator.reduce(own_tokens).item()
        total = torch.zeros((), device=self.args.device)
        for batch in batches:
            with nullcontext() if batch is batches[-1] else self.accelerator.no_sync(model):
                share = self.accelerator.num_processes * count_title_tokens(batch) / all_tokens
                loss = self._mean_loss(model, batch, features) * share
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _micro_batches(self, examples: list[Example]) -> list[list[Example]]:
        return micro_batches(examples, self._cost(), self._micro_batch_tokens)

    def _cost(self) -> Callable[[Example], int]:
        """Return the function that estimates the time and memory for an example, in text tokens."""
        reads_texts = self._inputs.family.causal or not frozen_part(self._network, self._inputs.family)
        return source_tokens if reads_texts else title_cost

    def _mean_loss(self, model: nn.Module, examples: list[Example], features: Features | EncodedTexts | None) -> Tensor:
        """Compute the mean loss of the title tokens."""
        batch = self._prepare_inputs(self._inputs.training_batch(examples, features))
        with features.frozen_layers_skipped() if features else nullcontext():
            return model(**batch, use_cache=False).loss

    def _halve_micro_batches(self, examples: list[Example]) -> None:
        """Halve the size of the micro-batches.

        Raises:
            TooLittleMemory: The micro-batches have one example each, or other processes share the step. They would
                wait forever for this process.
        """
        batches = self._micro_batches(examples)
        if len(batches) == len(examples) or self.accelerator.num_processes > 1:
            raise TooLittleMemory(
                f"There is too little memory for micro-batches of {self._micro_batch_tokens} tokens, with texts of up "
                f"to {max(map(source_tokens, examples))}. In params.yaml, lower micro_batch_tokens or "
                "max_source_tokens, or set gradient_checkpointing: true."
            )
        sizes = [len(batch) * self._cost()(batch[0]) for batch in batches if len(batch) > 1]
        self._micro_batch_tokens = max(sizes) // 2
        clear_device_cache(garbage_collection=True)
        log.warning("Out of memory: the training continues with micro-batches of %d tokens", self._micro_batch_tokens)

    def _current_features(self) -> Features | None:
        """Return the features of the layers that are frozen now, or None if no layer is frozen."""
        part = frozen_part(self._network, self._inputs.family)
        if part != self._frozen_part:
            self._frozen_part, self._features = part, None
            if part:
                sources = [example.source for example in (*self.train_dataset, *self.eval_dataset)]
                with self.args.main_process_first(local=False):
                    self._features = Features(self._network, self._inputs, part, half=self.args.bf16)
                    self._features.prepare(sources)
        return self._features

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Compute loss and scores of the validation split. Each process handles its share of the examples."""
        self.model.eval()
        self.optimizer.eval()
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        share = [*zip(self.eval_dataset, self._texts, self._titles, strict=True)][rank::processes]
        features = self._current_features()
        groups = self._group_for_encoder(share, features)
        show_bar = len(groups) > 1 and sys.stderr.isatty()
        results = [
            result
            for group in tqdm(groups, desc="validation", unit="batch", disable=not show_bar)
            for result in halve_when_out_of_memory(lambda rows: [self._loss_and_titles(rows, features)], group)
        ]
        pairs = [pair for _, written in results for pair in written]
        predicted, true = zip(*gather_object(pairs), strict=True)
        # The type is fixed, since a process without examples would have a sum of integers.
        loss = torch.tensor(sum(loss for loss, _ in results), dtype=torch.float32, device=self.args.device)
        loss = self.accelerator.reduce(loss).item()
        scores = {"loss": loss / count_title_tokens(self.eval_dataset), **self._score(list(predicted), list(true))}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(self._texts))

    def _group_for_encoder(self, share: list[_ValidationRow], features: Features | None) -> list[list[_ValidationRow]]:
        """Divide rows into groups whose encoder output fits into memory. Without an encoder to run, one group does."""
        if self._inputs.family.causal or features:
            return [share] if share else []
        share = sorted(share, key=lambda row: source_tokens(row[0]), reverse=True)
        size = self.args.per_device_eval_batch_size
        return [share[start : start + size] for start in range(0, len(share), size)]

    def _loss_and_titles(
        self, rows: Sequence[_ValidationRow], features: Features | None
    ) -> tuple[float, list[tuple[str, str]]]:
        """Return the summed loss of the title tokens, and the pairs of generated and true titles."""
        examples, texts, titles = map(list, zip(*rows, strict=True))
        encoded = features or self._encode(examples)
        loss = self._sum_of_losses(examples, encoded)
        # A causal model needs keys and values of every layer, but features are the output of one layer.
        reusable = None if self._inputs.family.causal else encoded
        titler = Titler(self._network, self._inputs, _greedy(self._inputs, self._settings), reusable)
        with self._cpu_in_float32():
            written = titler.best_titles(texts, progress="validation titles")
        return loss, [*zip(written, titles, strict=True)]

    def _encode(self, examples: list[Example]) -> EncodedTexts | None:
        """Encode texts once for loss and titles, in the training's precision."""
        if self._inputs.family.causal:
            return None
        # The library's own autocast covers only a call of the whole model.
        with self.accelerator.autocast():
            return EncodedTexts(self._network, self._inputs, [example.source for example in examples])

    @torch.inference_mode()
    def _sum_of_losses(self, examples: list[Example], features: Features | EncodedTexts | None) -> float:
        """Sum the losses of the title tokens."""
        batches = self._micro_batches(examples)
        return sum(self._mean_loss(self.model, batch, features).item() * count_title_tokens(batch) for batch in batches)

    @contextmanager
    def _cpu_in_float32(self) -> Iterator[None]:
        """Compute in float32 on a CPU within the block. Casting all weights for each token takes longer than it saves.

        The library casts in the model's attribute `forward`.
        """
        half = self.model.__dict__.pop("forward", None) if self.args.device.type == "cpu" else None
        try:
            yield
        finally:
            if half:
                self.model.forward = half

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Save only weights that train. A resumed training opens the same model and therefore has the others."""
        if isinstance(self.model, PeftModel):
            super()._save(output_dir, state_dict)
            return
        trained = {id(tensor) for group in self.optimizer.param_groups for tensor in group["params"]}
        weights = {name: tensor.data for name, tensor in self.model.named_parameters() if id(tensor) in trained}
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / SAFE_WEIGHTS_NAME)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Suppress the warning that a checkpoint lacks frozen weights."""

    def restore_full_precision(self) -> None:
        """Remove the half-precision wrapper that the library leaves around the model's `forward`."""
        for name in ("forward", "_original_forward"):
            self.model.__dict__.pop(name, None)

    def floating_point_ops(self, inputs: list[Example]) -> int:
        """Return 0: the library's estimate ignores that frozen layers are skipped."""
        return 0


def _hash_weights(model: PreTrainedModel | PeftModel) -> dict[str, int]:
    """Return a hash of each weight by its name."""
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    return {name: torch.hash_tensor(weight).view(torch.int64).item() for name, weight in weights.items()}


def _keep_list(examples: list[Example]) -> list[Example]:
    """Collate nothing: `training_step` divides a batch into micro-batches first."""
    return examples


def _greedy(inputs: Inputs, settings: TrainSettings) -> GenerateSettings:
    """Return fast generation settings, which suffice for a curve. The stage `predict` uses those of `params.yaml`."""
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


def _unfreezing(model: PreTrainedModel | PeftModel, inputs: Inputs, settings: TrainSettings) -> list[TrainerCallback]:
    every = settings.unfreeze_every
    return [GradualUnfreezing(unwrap_peft_model(model), inputs.family, every)] if every else []
