"""Versions that are judged within seconds: each knows the subjects of some texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlflow
import pandas as pd

from pipeline.paths import SPLITS
from pipeline.registry import registry_database, versions
from pipeline.registry.tracking import connect
from pipeline.settings import set_params

NAME = "lectern"

MODEL = """
import pandas as pd
from mlflow import models, pyfunc

class Titler(pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        found = [[each for each in KNOWN if each in text.lower()] for text in model_input]
        titles = [f"Why {each[0]} matter" if each else "Title" for each in found]
        return pd.DataFrame({"title": titles, "candidates": [[title] for title in titles]})

models.set_model(Titler())
"""


def register(known: Sequence[str], first: str = "") -> None:
    """Register a challenger that knows these subjects, and runs the code `first` when it is loaded."""
    client = connect()
    code = Path("titler.py")
    code.write_text(f"{first}\nKNOWN = {list(known)!r}\n{MODEL}", encoding="utf-8")
    with mlflow.start_run():
        mlflow.pyfunc.log_model(name="model", python_model=str(code), pip_requirements=[], registered_model_name=NAME)
    newest = versions.list_versions(client, NAME)[0][0]
    client.set_model_version_tag(NAME, newest.version, "test.rouge1", f"0.{len(known)}")
    client.set_registered_model_alias(NAME, versions.CHALLENGER, newest.version)


def write_splits(examples: pd.DataFrame) -> None:
    """Write a training and a test split, each of eight lessons with one topic."""
    SPLITS.mkdir(parents=True, exist_ok=True)
    one = examples[examples["lesson_num"] == "1"]
    for split in ("train", "test"):
        one.assign(lesson_num=[str(place) for place in range(len(one))]).to_parquet(SPLITS / f"{split}.parquet")


def approve_by_gate() -> None:
    """Set the project to promote without asking a person."""
    set_params(["promote"], {"approval": "gate"})


def champion() -> str | None:
    """Return the champion's number."""
    number = connect().get_registered_model(NAME).aliases.get(registry_database.CHAMPION)
    return str(number) if number else None
