"""The registered model as MLflow loads and serves it: texts in, titles out. MLflow runs a copy of this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from pipeline.models.generation import GenerateSettings, Titler, open_titler
from pipeline.registry.fallback_title import answer

TUNABLE = ("num_beams", "candidates", "max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "seed")
EXAMPLE = (
    [
        "so in this part we look at how a learning rate that is too high makes the loss go up instead of down",
        "now a hash table finds a word without looking at all the others, and we will see what that costs in memory",
    ],
    {"num_beams": 2, "candidates": 2, "do_sample": False},
)
"""How it is asked, which MLflow shows, and tries once as a version is logged: so few texts, and none is drawn often."""
_TYPES = {bool: DataType.boolean, int: DataType.long, float: DataType.double}


def signature(settings: GenerateSettings) -> ModelSignature:
    """One column of texts in; out the title, all candidates, and whether a keyphrase stands in for the model's title;
    the knobs that a caller may turn.

    The column has no name here, because MLflow would then refuse a plain list; `predict` looks at the name.
    """
    values = settings.model_dump()
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string)]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "title"),
                ColSpec(Array(DataType.string), "candidates"),
                ColSpec(DataType.boolean, "fallback"),
            ]
        ),
        params=ParamSchema([ParamSpec(name, _TYPES[type(values[name])], values[name]) for name in TUNABLE]),
    )


class TitleModel(mlflow.pyfunc.PythonModel):
    """A trained model folder with the generation settings it was measured with."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        settings = GenerateSettings.model_validate(context.model_config["generate"])
        self._titler = open_titler(Path(context.artifacts["model"]), settings)

    def predict(self, context, model_input, params=None):
        """Titles for texts. Type hints would become the schema, so there are none.

        Args:
            model_input: a data frame with the column `text`, or a list of texts, which MLflow makes a data frame of.
            params: values for what `TUNABLE` names.

        Returns:
            A data frame with a row a text: `title`, the one to show; `candidates`, what the model wrote, the best
            first; `fallback`, whether the title is a keyphrase of the text, since none of those is of use.

        Raises:
            ValueError: the column is another one, a text is missing, or a knob's value is out of its range.
        """
        column = model_input.columns[0]
        if str(column) not in ("text", "0"):
            raise ValueError(f"the column is '{column}'; send a list, or a data frame with a column text")
        texts = model_input[column]
        if texts.isna().any():
            raise ValueError(f"row {int(texts.isna().argmax())} has no text; send an empty string if that is meant")
        return answer(texts.tolist(), self._with(params or {}).titles(texts.tolist()), self._titler.style)

    def _with(self, params: dict[str, Any]) -> Titler:
        """The titler with other settings. MLflow fills in the defaults, so every knob is there or none."""
        settings = self._titler.settings.with_overrides(params)
        return Titler(self._titler.model, self._titler.inputs, settings, style=self._titler.style)


mlflow.models.set_model(TitleModel())
