"""A registered version that writes nonsense, quickly, and a workbook without titles."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pandas as pd
import torch

from pipeline.models.checkpoints import Card, save_model
from pipeline.models.title_cleanup import TitleStyle
from pipeline.registry import registration
from pipeline.registry.lineage import md5
from pipeline.registry.tracking import connect
from pipeline.registry.versions import RegisterSettings
from tests.models.small import GREEDY, lively_model


def register(folder: Path, examples: pd.DataFrame, *, beams: int = 1, mute: bool = False, opening: str = "") -> None:
    """Another number of beams is another version. A mute one has no word to write.

    Args:
        opening: what its course calls the openings of lessons.
    """
    if not folder.is_dir():
        model, inputs = lively_model("causal", examples)
        if mute:
            model.load_state_dict({name: torch.zeros_like(weight) for name, weight in model.state_dict().items()})
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


def write_book(path: Path, topics: list[tuple], lines: list[tuple]) -> Path:
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
