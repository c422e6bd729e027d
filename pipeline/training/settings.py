"""How a model is trained: the `train` section of `params.yaml`, and what a model sets otherwise."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.models.checkpoints import ModelSettings
from pipeline.settings import Section, check, read_params


class TrainSettings(Section):
    section: ClassVar[str] = "train"

    epochs: int = Field(ge=0)  # 0: the checkpoint as it comes
    learning_rate: float = Field(gt=0)  # at the schedule's peak
    schedule: Literal["one-cycle", "linear", "constant"]
    warmup: float = Field(ge=0, lt=1)  # share of the steps before the peak
    weight_decay: float = Field(ge=0)
    batch_size: int = Field(ge=1)
    accumulate: int = Field(ge=1)  # batches to a step of the optimiser
    freeze: list[Literal["embedding", "encoder", "decoder", "head"]]  # layer groups that stay as they are
    freeze_lower_layers: int = Field(ge=0)  # decoder layers, counted from the embedding, that stay as they are
    max_gradient_norm: float = Field(gt=0)
    early_stopping: int = Field(ge=0)  # epochs without a better validation loss before it ends; 0: never
    seed: int = Field(ge=0)

    @classmethod
    def of_model(cls, name: str, model: ModelSettings) -> TrainSettings:
        """The section, with what the model named `name` sets otherwise."""
        section = read_params().get(cls.section) or {}
        return check(cls, {**section, **model.train}, at=f"train (with models.{name}.train)")
