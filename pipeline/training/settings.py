"""How a model is trained: the `train` section of `params.yaml`, and what a model sets otherwise."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.models.checkpoints import ModelSettings
from pipeline.models.lora import LoraSettings
from pipeline.settings import MACHINE_SETTINGS, Section, Settings, check, read_params


class BertScoreSettings(Settings):
    """`bertscore` of `train`: after each epoch too, where titles hold more than the a-z and digits that ROUGE knows."""

    model: str = Field(min_length=1)  # a place, as pipeline.models.checkpoint_sources finds it
    layers: int = Field(ge=1)  # the layer whose output is compared

    def __str__(self) -> str:
        return f"{self.model}, layer {self.layers}"


class TrainSettings(Section):
    section: ClassVar[str] = "train"

    epochs: int = Field(ge=0)  # 0: the checkpoint as it comes
    optimiser: Literal["adam", "adamw", "ranger", "schedulefreeadamw"]
    learning_rate: float = Field(gt=0)  # at the schedule's peak
    schedule: Literal["one-cycle", "linear", "constant"]
    warmup: float = Field(ge=0, lt=1)  # share of the steps before the peak
    weight_decay: float = Field(ge=0)
    batch_size: int = Field(ge=1)  # examples to a step of the optimiser, in each process
    micro_batch_tokens: int = Field(ge=1)  # tokens of texts, padding included, that are in memory at once
    freeze: list[Literal["embedding", "encoder", "decoder", "head"]]  # layer groups that stay as they are
    freeze_lower_layers: int = Field(ge=0)  # decoder layers, counted from the embedding, that stay as they are
    lora: LoraSettings | None = None  # train adapters alone, beside the layers that are not frozen
    unfreeze_every: int = Field(ge=0)  # epochs until one more layer group trains, from the head down; 0: at once
    discriminative: float = Field(ge=1)  # a layer group's learning rate over that of the group below it
    max_gradient_norm: float = Field(gt=0)
    early_stopping: int = Field(ge=0)  # epochs without a better validation loss before it ends; 0: never
    device: Literal["auto", "cpu"] = "auto"  # auto: the GPU if there is one; an unusable GPU stops the training
    # auto: half precision on a GPU, and bfloat16 on a CPU that has instructions for it
    precision: Literal["auto", "float32", "bfloat16"]
    gradient_checkpointing: bool  # less memory, for a forward pass more
    compile: bool  # by torch.compile
    checkpoint_minutes: float = Field(default=10, ge=0)  # between checkpoints within an epoch; 0: after each step
    bertscore: BertScoreSettings | None = None  # measured after each epoch, beside ROUGE
    report_to: list[Literal["tensorboard", "wandb"]] = []  # besides MLflow, through the trainer's own integrations
    processes: int = Field(ge=1)  # that share a step of the optimiser, one a GPU
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _layers_thaw_in_one_process(self) -> TrainSettings:
        if self.unfreeze_every and self.processes > 1:
            raise ValueError(
                "unfreeze_every goes with processes: 1, since what trains is agreed on once between several"
            )
        return self

    @model_validator(mode="after")
    def _no_schedule_over_none(self) -> TrainSettings:
        if self.optimiser == "schedulefreeadamw" and self.schedule != "constant":
            raise ValueError("schedulefreeadamw goes with schedule: constant, which it does without")
        return self

    def of_what_is_learnt(self) -> dict[str, Any]:
        """The knobs without those that a training may be gone on with changed."""
        return self.model_dump(exclude=set(MACHINE_SETTINGS))

    @classmethod
    def of_model(cls, name: str, model: ModelSettings) -> TrainSettings:
        """The section, with what the model named `name` sets otherwise."""
        section = read_params().get(cls.section) or {}
        knobs = {**section, **model.train} if isinstance(section, dict) else section
        return check(cls, knobs, at=f"train (with models.{name}.train)")
