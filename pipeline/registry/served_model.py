"""The registered model as MLflow loads and serves it. MLflow runs a copy of this file and of the package `pipeline`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from pipeline.chapters.divide_transcript import divide_transcript
from pipeline.chapters.segmenter import Segmenter
from pipeline.data.cell_values import as_seconds
from pipeline.data.single_values import Fault
from pipeline.models.generation import GenerateSettings, Titler, open_titler
from pipeline.registry.fallback_title import Shown, choose_titles
from pipeline.transcripts.chapter import Chapter
from pipeline.transcripts.transcript import Line, Transcript, end_of_transcript

TUNABLE = ("num_beams", "candidates", "max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "seed")
EXAMPLE = (
    [
        "so in this part we look at how a learning rate that is too high makes the loss go up instead of down",
        "now a hash table finds a word without looking at all the others, and we will see what that costs in memory",
    ],
    {"num_beams": 2, "candidates": 2, "do_sample": False},
)
"""The input example that MLflow shows with a version, and runs once when the version is logged."""
CHAPTERS = "chapters"
"""The parameter that makes the rows the lines of one talk, to be divided into chapters and titled."""
_TYPES = {bool: DataType.boolean, int: DataType.long, float: DataType.double}


def signature(settings: GenerateSettings) -> ModelSignature:
    """Return the served model's columns and the generation settings that a caller may change.

    The input column has no name, because MLflow would then refuse a plain list; `predict` checks the name.
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
        params=ParamSchema(
            [
                *(ParamSpec(name, _TYPES[type(values[name])], values[name]) for name in TUNABLE),
                ParamSpec(CHAPTERS, DataType.boolean, False),
            ]
        ),
    )


def _chapters_of_lines(lines: Sequence[str], segmenter: Segmenter) -> list[Chapter]:
    """Divide a talk into chapters without titles.

    Args:
        lines: the lines of one talk in order, each a time and words, such as "1:02:30 okay so next".

    Raises:
        ValueError: a line does not start with a time, or has no words.
    """
    times, texts = zip(*(line.partition(" ")[::2] for line in lines), strict=True)
    seconds = as_seconds(pd.Series(times, dtype="str"))
    for number, text in enumerate(texts):
        if seconds.fault[number] != Fault.NONE or not text.strip():
            raise ValueError(f"row {number} is not a line of a talk; send a time and words, such as '1:02:30 okay so'")
    spoken = sorted(
        (Line(float(start), " ".join(text.split())) for start, text in zip(seconds.seconds, texts, strict=True)),
        key=lambda line: line.seconds,
    )
    talk = Transcript("", "", spoken, end_of_transcript(spoken))
    return divide_transcript(talk, segmenter.card.chapters_settings(), segmenter=segmenter).chapters


class TitleModel(mlflow.pyfunc.PythonModel):
    """A trained model with the generation settings that it was measured with, and the segmenter registered with it."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        settings = GenerateSettings.model_validate(context.model_config["generate"])
        self._titler = open_titler(Path(context.artifacts["model"]), settings)
        folder = context.artifacts.get("segmenter")
        self._segmenter = Segmenter.load(Path(folder)) if folder else None

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # MLflow reads hints as schema
        """Write titles for texts, or divide a talk into chapters with titles.

        Args:
            model_input: a data frame with the column `text`; MLflow turns a list of texts into a data frame.
                With `chapters`, the texts are the lines of one talk in order, each a time and words: "0:12 so today".
            params: values of the settings in `TUNABLE`, and `chapters`.

        Returns:
            One row per text, with the columns `title`, `candidates` and `fallback`, the fields of `Shown`. With
            `chapters`, one row per chapter, with its start in the column `seconds`.

        Raises:
            ValueError: the column has another name, a text is missing, a setting is out of range, or a line has no
                time or words.
        """
        column = model_input.columns[0]
        if str(column) not in ("text", "0"):
            raise ValueError(f"the column is named '{column}'; send a list, or a data frame with the column 'text'")
        texts = model_input[column]
        if texts.isna().any():
            raise ValueError(f"row {int(texts.isna().argmax())} has no text; send an empty string instead")
        # MLflow fills in the defaults, so all settings are given, or none.
        settings = {name: value for name, value in (params or {}).items() if name != CHAPTERS}
        titler = self._titler.with_overrides(settings)
        if not (params or {}).get(CHAPTERS):
            return _titled(titler, texts.tolist())
        if self._segmenter is None:
            raise ValueError("this version has no segmenter; run `lectern register` to register one that has")
        chapters = _chapters_of_lines(texts.tolist(), self._segmenter)
        titles = _titled(titler, [chapter.model_input for chapter in chapters])
        return titles.assign(seconds=[chapter.start_seconds for chapter in chapters])


def _titled(titler: Titler, texts: list[str]) -> pd.DataFrame:
    shown = choose_titles(texts, titler.titles(texts), titler.style)
    return pd.DataFrame(shown, columns=Shown._fields)[["title", "candidates", "fallback"]]


mlflow.models.set_model(TitleModel())
