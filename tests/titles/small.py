"""A small registered version that writes meaningless titles quickly, and workbooks to title."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
import torch

from pipeline.models.checkpoints import Card, save_model
from pipeline.models.title_cleanup import TitleStyle
from pipeline.registry import registration
from pipeline.registry.lineage import md5
from pipeline.registry.register_settings import RegisterSettings
from pipeline.registry.tracking import connect
from tests.conftest import ROOT
from tests.models.small import GREEDY, lively_model


def register(
    folder: Path, examples: pd.DataFrame, *, beams: int = 1, mute: bool = False, same: bool = False, opening: str = ""
) -> None:
    """Register a version of the model in `folder`, which is made if it is missing.

    Args:
        beams: another number makes another version.
        mute: make a model that writes no usable titles.
        same: make a model that writes the same titles for all texts.
        opening: usual title of a lesson's first topic.
    """
    if not folder.is_dir():
        model, inputs = lively_model("causal", examples)
        if mute:
            _set_to_zero(model)
        if same:
            for layer in model.model.layers:
                _set_to_zero(layer.self_attn)  # so that each token depends only on the token before
        folder.mkdir(parents=True)
        card = Card(
            model="small",
            family="causal",
            checkpoint="scratch",
            max_source_tokens=48,
            max_target_tokens=12,
            style=TitleStyle(opening=opening),
        )
        save_model(folder, model, inputs.tokenizer, card, "float32")
    settings = GREEDY.model_copy(update={"num_beams": beams})
    tags = {"model": "small", "model.md5": md5(folder)}
    name = RegisterSettings.read().name
    registration.register(connect(), name, folder, settings, run_id="0" * 32, tags=tags)


def _set_to_zero(module: torch.nn.Module) -> None:
    module.load_state_dict({name: torch.zeros_like(weight) for name, weight in module.state_dict().items()})


@contextmanager
def project_with_version(folder: Path, tracking: Path, examples: pd.DataFrame) -> Iterator[Path]:
    """Make `folder` a project with a registered version, and the working directory. Several tests can share it."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(tracking, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        register(folder / "small", examples)
        yield folder


def write_book(path: Path, topics: list[tuple], lines: list[tuple]) -> Path:
    """Write a workbook with these rows. The columns are those of a lesson, and `remark`."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, last, rows in (("lesson_topics", "topic", topics), ("lesson_transcripts", "transcript", lines)):
        sheet = book.create_sheet(name)
        sheet.append(["course_title", "lesson_num", "timestamp", last, "remark"])
        for row in rows:
            sheet.append(row)
            for cell in sheet[sheet.max_row]:
                cell.data_type = "s" if cell.data_type == "f" else cell.data_type
    book.save(path)
    return path
