"""The registered model as MLflow loads and serves it: texts in, titles out. MLflow runs a copy of this file."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from pipeline.models.checkpoints import load_model
from pipeline.models.families import FAMILIES
from pipeline.models.generation import GenerateSettings, Titler
from pipeline.models.inputs import Inputs

TUNABLE = ("num_beams", "candidates", "max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "seed")
_TYPES = {bool: DataType.boolean, int: DataType.long, float: DataType.double}


def signature(settings: GenerateSettings) -> ModelSignature:
    """One column of texts in; the best title and all candidates out; the knobs that a caller may turn.

    The column has no name here, because MLflow would then refuse a plain list; `predict` looks at the name.
    """
    values = settings.model_dump()
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string)]),
        outputs=Schema([ColSpec(DataType.string, "title"), ColSpec(Array(DataType.string), "candidates")]),
        params=ParamSchema([ParamSpec(name, _TYPES[type(values[name])], values[name]) for name in TUNABLE]),
    )


class TitleModel(mlflow.pyfunc.PythonModel):
    """A trained model folder with the generation settings it was measured with."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        model, tokenizer, card = load_model(Path(context.artifacts["model"]))
        self._model = model
        self._inputs = Inputs(
            FAMILIES[card.family],
            tokenizer,
            max_source_tokens=card.max_source_tokens,
            max_target_tokens=card.max_target_tokens,
        )
        self._settings = GenerateSettings.model_validate(context.model_config["generate"])

    def predict(self, context, model_input, params=None):
        """Titles for texts. Type hints would become the schema, so there are none.

        Args:
            model_input: a data frame with the column `text`, or a list of texts, which MLflow makes a data frame of.
            params: values for what `TUNABLE` names.

        Returns:
            A data frame with a row a text: `title`, the best, and `candidates`, the best first.

        Raises:
            ValueError: the column is another one, a text is missing, or a knob's value is out of its range.
        """
        column = model_input.columns[0]
        if str(column) not in ("text", "0"):
            raise ValueError(f"the column is '{column}'; send a list, or a data frame with a column text")
        texts = model_input[column]
        if texts.isna().any():
            raise ValueError(f"row {int(texts.isna().argmax())} has no text; send an empty string if that is meant")
        settings = GenerateSettings.model_validate({**self._settings.model_dump(), **(params or {})})
        candidates = Titler(self._model, self._inputs, settings).titles(texts.tolist())
        return pd.DataFrame({"title": [titles[0] for titles in candidates], "candidates": candidates})


mlflow.models.set_model(TitleModel())
