"""Fine-tuning: transformers' own trainer with our schedule, our batches and our titles after each epoch."""

from __future__ import annotations

import logging
import os
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
from transformers.trainer_utils import EvalLoopOutput, unwrap_peft_model
from transformers.utils import SAFE_WEIGHTS_NAME

from pipeline.errors import Rejected, TemporaryFailure
from pipeline.machine_errors import lacks_memory
from pipeline.models.cross_attention import states_instead_of_keys
from pipeline.models.features import Encoded, Features, frozen_part
from pipeline.models.generation import GenerateSettings, Titler
from pipeline.models.inputs import IGNORED, Example, Inputs, micro_batches
from pipeline.models.memory import in_halves
from pipeline.models.precision import training_precision
from pipeline.training.optimisers import GradualUnfreezing, build_optimiser
from pipeline.training.resume import SaveWithinEpochs, last_whole_checkpoint
from pipeline.training.schedules import build_schedule
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

_Validated = tuple[Example, str, str]
"""An example of the validation split with its text and its title."""

Score = Callable[[list[str], list[str]], dict[str, float]]
"""Predicted and true titles to the mean of each score."""

# A token that attends to a whole text is as much as several that do not.
_TEXT_TOKENS_A_TITLE_TOKEN = 8

CURVES = ["epoch", "step", "train_loss", "validation_loss", "rouge1", "rouge2", "rougeL", "rougeLsum", "learning_rate"]
BERTSCORE_CURVES = ["bertscore_precision", "bertscore_recall", "bertscore_f1"]  # where it is measured


class TooLittleMemory(TemporaryFailure):
    """For one example, on this device."""


class Diverged(Rejected):
    """The loss of a training grew beyond all numbers."""

    def __init__(self) -> None:
        super().__init__(
            "The loss grew beyond all numbers. In params.yaml, lower the model's learning_rate, or set precision: "
            "float32."
        )


class LearntNothing(Rejected):
    """All weights are as they were before the training."""

    def __init__(self, steps: int) -> None:
        super().__init__(
            f"The training changed no weight in {steps} steps: its steps were skipped, or too small to count. In "
            "params.yaml, raise the model's learning_rate, train for more steps (epochs, or a smaller batch_size), or "
            "set precision: float32."
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
    """Train `model` in place and leave it with the weights of its best epoch.

    Args:
        train, validation: examples, with the columns `text` and `title`.
        score: applied after each epoch to greedy titles for the validation split.
        resume_from: a folder of this training's own for checkpoints. An interrupted training resumes from there. The
            caller removes it once the trained model is safe.

    Returns:
        One row for each epoch (`CURVES`, `BERTSCORE_CURVES`).

    Raises:
        TooLittleMemory: one example needs more memory than the device has.
        Diverged: the validation loss was no number after any epoch.
        LearntNothing: the weights are those that `model` had before.
    """
    before = _hashes(model)
    trainer = _TitleTrainer(
        model=model,
        args=_arguments(settings, inputs, model, resume_from),
        data_collator=_as_they_are,
        train_dataset=_examples(inputs, train),
        eval_dataset=_examples(inputs, validation),
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
    # The library's own would print every step's loss.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_ProgressBar() if sys.stderr.isatty() else _LogLines())
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(resume_from))
    # Once the first process is back, its caller may remove what the others still read.
    trainer.accelerator.wait_for_everyone()
    trainer.leave_half_precision()
    curves = _curves(trainer.state)
    # The first process says it for all of them.
    if trainer.is_world_process_zero() and not np.isfinite(curves["validation_loss"]).any():
        raise Diverged
    if trainer.is_world_process_zero() and _hashes(model) == before:
        raise LearntNothing(trainer.state.global_step)
    return curves


class _TitleTrainer(Trainer):
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
        lengths = [*map(self._length(), dataset)]
        return _ByLength(self.args.train_batch_size, lengths, self.args.seed, lambda: int(self.state.epoch or 0))

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
        """None where the training had stopped early, and was killed before it had ended."""
        stops = [each for each in self.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
        if any(each.early_stopping_patience_counter >= each.early_stopping_patience for each in stops):
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def training_step(
        self, model: nn.Module, inputs: list[Example], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One step of the optimiser's gradients, in as many micro-batches as the memory wants. Returns the loss."""
        features = self._current_features()
        model.train()
        # Dropout stays in every other layer, also in a frozen one between layers that train. No gradient reaches this
        # part, and its output is kept for all steps: it must be the same each time.
        for module in self._frozen_part:
            module.eval()
        self.optimizer.train()  # a schedule-free one keeps two sets of weights: one to train, and one to use
        while True:
            try:
                return self._accumulate(model, inputs, features)
            except (RuntimeError, MemoryError) as error:
                if not lacks_memory(error):
                    raise
            # Here, since the error holds on to the tensors of the step that broke.
            model.zero_grad()
            self._take_less_memory(inputs)

    def _accumulate(self, model: nn.Module, examples: list[Example], features: Features | None) -> Tensor:
        batches = self._micro_batches(examples)
        # Each title token of the step counts alike, whichever micro-batch and process it is in.
        learnt = self.accelerator.reduce(torch.tensor(_title_tokens(examples), device=self.args.device)).item()
        total = torch.zeros((), device=self.args.device)
        with states_instead_of_keys(self._network, self._inputs.family):
            for batch in batches:
                with nullcontext() if batch is batches[-1] else self.accelerator.no_sync(model):
                    share = self.accelerator.num_processes * _title_tokens(batch) / learnt
                    loss = self._mean_loss(model, batch, features) * share
                    self.accelerator.backward(loss)
                total += loss.detach()
        return total

    def _micro_batches(self, examples: list[Example]) -> list[list[Example]]:
        return micro_batches(examples, self._length(), self._micro_batch_tokens)

    def _length(self) -> Callable[[Example], int]:
        """Of an example: what the work of training on it, and the memory for that, grow with."""
        reads_texts = self._inputs.family.causal or not frozen_part(self._network, self._inputs.family)
        return _source_tokens if reads_texts else _title_weight

    def _mean_loss(self, model: nn.Module, examples: list[Example], features: Features | Encoded | None) -> Tensor:
        """The mean over the titles' tokens."""
        batch = self._prepare_inputs(self._inputs.training_batch(examples, features))
        with features.left_out() if features else nullcontext():
            return model(**batch, use_cache=False).loss

    def _take_less_memory(self, examples: list[Example]) -> None:
        """Halves the micro-batches.

        Raises:
            TooLittleMemory: one example is too much already; or others share the step, and would wait for us for ever.
        """
        batches = self._micro_batches(examples)
        if len(batches) == len(examples) or self.accelerator.num_processes > 1:
            raise TooLittleMemory(
                f"There is too little memory for micro-batches of {self._micro_batch_tokens} tokens, with texts of up "
                f"to {max(map(_source_tokens, examples))}. In params.yaml, lower micro_batch_tokens or "
                "max_source_tokens, or set gradient_checkpointing: true."
            )
        several = [len(batch) * self._length()(batch[0]) for batch in batches if len(batch) > 1]
        self._micro_batch_tokens = max(several) // 2
        clear_device_cache(garbage_collection=True)
        log.warning("Out of memory: going on with micro-batches of %d tokens", self._micro_batch_tokens)

    def _current_features(self) -> Features | None:
        """Features of the layers that are frozen now; None where none are."""
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
        """Loss and scores of the validation split; each process does its share."""
        self.model.eval()
        self.optimizer.eval()
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        share = [*zip(self.eval_dataset, self._texts, self._titles, strict=True)][rank::processes]
        features = self._current_features()
        groups = self._read_together(share, features)
        watched = tqdm(groups, desc="validation", unit="batch", disable=len(groups) < 2 or not sys.stderr.isatty())
        judged = [
            part for group in watched for part in in_halves(lambda some: [self._loss_and_titles(some, features)], group)
        ]
        pairs = [pair for _, written in judged for pair in written]
        predicted, true = zip(*gather_object(pairs), strict=True)
        # Of one type in all processes, one without an example too.
        loss = torch.tensor(sum(loss for loss, _ in judged), dtype=torch.float32, device=self.args.device)
        loss = self.accelerator.reduce(loss).item()
        scores = {"loss": loss / _title_tokens(self.eval_dataset), **self._score(list(predicted), list(true))}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(self._texts))

    def _read_together(self, share: list[_Validated], features: Features | None) -> list[list[_Validated]]:
        """`share` in as many groups as may be in memory, of what an encoder that trains makes of them."""
        if self._inputs.family.causal or features:
            return [share] if share else []
        share = sorted(share, key=lambda each: _source_tokens(each[0]), reverse=True)
        size = self.args.per_device_eval_batch_size
        return [share[start : start + size] for start in range(0, len(share), size)]

    def _loss_and_titles(
        self, group: Sequence[_Validated], features: Features | None
    ) -> tuple[float, list[tuple[str, str]]]:
        """The sum over the titles' tokens; and what the model writes, beside the true titles."""
        examples, texts, titles = map(list, zip(*group, strict=True))
        read = features or self._encoded(examples)
        loss = self._sum_of_losses(examples, read)
        # A causal model writes on from every layer's keys and values, and the features are one layer's.
        known = None if self._inputs.family.causal else read
        titler = Titler(self._network, self._inputs, _greedy(self._inputs, self._settings), known)
        with self._writing():
            written = titler.best_titles(texts, progress="validation titles")
        return loss, [*zip(written, titles, strict=True)]

    def _encoded(self, examples: list[Example]) -> Encoded | None:
        """For loss and titles alike, in the training's precision, which the library gives to the whole model alone."""
        if self._inputs.family.causal:
            return None
        with self.accelerator.autocast():
            return Encoded(self._network, self._inputs, [example.source for example in examples])

    @torch.inference_mode()
    def _sum_of_losses(self, examples: list[Example], features: Features | Encoded | None) -> float:
        """Over the titles' tokens."""
        batches = self._micro_batches(examples)
        with states_instead_of_keys(self._network, self._inputs.family):
            return sum(self._mean_loss(self.model, batch, features).item() * _title_tokens(batch) for batch in batches)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """While the block runs, a processor computes in float32: to cast all weights for each token of a title takes
        longer than to use them."""
        half = vars(self.model).pop("forward", None) if self.args.device.type == "cpu" else None
        try:
            yield
        finally:
            if half:
                self.model.forward = half

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Weights without those that never train: whoever goes on has opened the same model, and has these."""
        if isinstance(self.model, PeftModel):
            super()._save(output_dir, state_dict)
            return
        trained = {id(tensor) for group in self.optimizer.param_groups for tensor in group["params"]}
        weights = {name: tensor.data for name, tensor in self.model.named_parameters() if id(tensor) in trained}
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / SAFE_WEIGHTS_NAME)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """None: that a checkpoint lacks what never trains is no news."""

    def leave_half_precision(self) -> None:
        """The library has the model compute in half precision for good, whoever uses it then."""
        for name in ("forward", "_original_forward"):
            vars(self.model).pop(name, None)

    def floating_point_ops(self, inputs: list[Example]) -> int:
        """Not counted: the library's estimate knows nothing of layers that are left out."""
        return 0


class _ByLength(LengthGroupedSampler):
    """Texts of like length together, in an order that seed and epoch decide: a resumed run meets the same batches."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed = seed
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        # Asked for, since the library tells a sampler its epoch, but not where several processes go on within one.
        self.generator.manual_seed(self._seed + self._epoch())
        return super().__iter__()


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


def _hashes(model: PreTrainedModel | PeftModel) -> dict[str, int]:
    """One hash for each weight, by its name: a training changes at least one of them."""
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    return {name: torch.hash_tensor(weight).view(torch.int64).item() for name, weight in weights.items()}


def _as_they_are(examples: list[Example]) -> list[Example]:
    return examples


def _source_tokens(example: Example) -> int:
    return len(example.source)


def _title_weight(example: Example) -> int:
    """Where a frozen encoder reads the text, which keeps nothing for a backward pass."""
    return _TEXT_TOKENS_A_TITLE_TOKEN * len(example.labels)


def _title_tokens(examples: Sequence[Example]) -> int:
    return sum(label != IGNORED for example in examples for label in example.labels)


def _examples(inputs: Inputs, frame: pd.DataFrame) -> list[Example]:
    return [inputs.example(text, title) for text, title in zip(frame["text"], frame["title"], strict=True)]


def _greedy(inputs: Inputs, settings: TrainSettings) -> GenerateSettings:
    """Settings that are quick and enough to see a curve; the stage `predict` generates as `generate` says."""
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


def _unfreezing(model: PreTrainedModel, inputs: Inputs, settings: TrainSettings) -> list[TrainerCallback]:
    every = settings.unfreeze_every
    return [GradualUnfreezing(unwrap_peft_model(model), inputs.family, every)] if every else []


def _arguments(
    settings: TrainSettings, inputs: Inputs, model: PreTrainedModel | PeftModel, folder: Path
) -> TrainingArguments:
    on_gpu = torch.cuda.is_available()
    precision = training_precision(settings.precision, unwrap_peft_model(model), inputs.family, folder)
    # `accelerate launch` sets it as its user's defaults have it, and params.yaml is to say what a training is.
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
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        torch_compile=settings.compile,
        use_cpu=not on_gpu,
        ddp_find_unused_parameters=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,  # the best and the last; of one, the end of the training would take the last away
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
    # Of several GPUs that it sees, a process uses one: the library would split each batch between them.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


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
    return epochs[[*CURVES, *(name for name in BERTSCORE_CURVES if name in epochs)]]
