"""Training settings: the section `train` of `params.yaml`, overridden by a model's own `train` entry."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.models.checkpoints import ModelSettings
from pipeline.models.lora import LoraSettings
from pipeline.settings import MACHINE_SETTINGS, Section, Settings, check, read_params


class BertScoreSettings(Settings):
    """BERTScore after each epoch. It also scores titles in scripts other than Latin, which ROUGE ignores."""

    model: str = Field(min_length=1)  # an address, as pipeline.models.checkpoint_sources describes
    layers: int = Field(ge=1)  # the layer whose output is compared

    def __str__(self) -> str:
        return f"{self.model}, layer {self.layers}"


class TrainSettings(Section):
    """Training settings of one model."""

    section: ClassVar[str] = "train"

    epochs: int = Field(ge=0)  # 0 uses the checkpoint without training
    optimiser: Literal["adam", "adamw", "ranger", "schedulefreeadamw"]
    learning_rate: float = Field(gt=0)  # peak of the schedule
    schedule: Literal["one-cycle", "linear", "constant"]
    warmup: float = Field(ge=0, lt=1)  # share of the steps before the peak
    weight_decay: float = Field(ge=0)
    batch_size: int = Field(ge=1)  # examples per optimiser step and process
    micro_batch_tokens: int = Field(ge=1)  # source tokens in memory at once, with padding
    freeze: list[Literal["embedding", "encoder", "decoder", "head"]]  # layer groups that are not trained
    freeze_lower_layers: int = Field(ge=0)  # decoder layers that are not trained, counted from the embedding
    lora: LoraSettings | None = None  # train only adapters, in the layers that are not frozen
    unfreeze_every: int = Field(ge=0)  # epochs between unfreezing layer groups, from the head down; 0 trains all
    discriminative: float = Field(ge=1)  # learning rate of a layer group relative to the group below it
    max_gradient_norm: float = Field(default=1.0, gt=0, description="gradients with a larger norm are scaled down")
    early_stopping: int = Field(ge=0)  # epochs without a better validation loss before training stops; 0 never stops
    device: Literal["auto", "cpu"] = "auto"  # auto: the GPU if there is one; an unusable GPU stops the training
    # auto: half precision where the GPU or the CPU has instructions for it, see pipeline.models.precision
    precision: Literal["auto", "float32", "bfloat16"]
    gradient_checkpointing: bool  # saves memory, costs a second forward pass
    compile: bool = Field(default=False, description="use torch.compile; it pays off only in long trainings")
    checkpoint_minutes: float = Field(
        default=10, ge=0, description="minutes between checkpoints within an epoch; 0 writes one after each step"
    )
    bertscore: BertScoreSettings | None = None  # BERTScore after each epoch too
    report_to: list[Literal["tensorboard", "wandb"]] = []  # trackers besides MLflow
    processes: int = Field(ge=1)  # processes that share the training, one per GPU
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _unfreezing_in_one_process(self) -> TrainSettings:
        if self.unfreeze_every and self.processes > 1:
            raise ValueError(
                "unfreeze_every needs processes: 1, since several processes fix the trained layers at the start"
            )
        return self

    @model_validator(mode="after")
    def _schedule_free_is_constant(self) -> TrainSettings:
        if self.optimiser == "schedulefreeadamw" and self.schedule != "constant":
            raise ValueError("schedulefreeadamw needs schedule: constant, since it replaces a schedule")
        return self

    def affecting_weights(self) -> dict[str, Any]:
        """Return the settings that decide the weights. A training can resume after a change of the others."""
        return self.model_dump(exclude=set(MACHINE_SETTINGS))

    @classmethod
    def of_model(cls, name: str, model: ModelSettings) -> TrainSettings:
        """Read the section `train`, overridden by the model's own entry.

        Raises:
            UsageError: A value is invalid.
        """
        section = read_params().get(cls.section) or {}
        settings = {**section, **model.train} if isinstance(section, dict) else section
        return check(cls, settings, at=f"train (with models.{name}.train)")
