"""The workbook that a benchmark is run on."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from pipeline.data.examples import build_examples
from pipeline.data.sample_workbook import SampleSettings, build_sample
from pipeline.data.workbook import ingest
from pipeline.data.workbook_files import write_sheets


def find_workbook(asked: Path | None) -> Path | None:
    """The one that was asked for, else what lies in $LECTERN_SHARED."""
    return asked or next(Path(os.environ.get("LECTERN_SHARED", "/nowhere")).glob("data/*.xlsx"), None)


def workbook_or_sample(asked: Path | None, folder: Path) -> Path:
    """Where there is none, the embedded one is built in `folder`."""
    workbook = find_workbook(asked)
    if workbook is None:
        workbook = folder / "sample.xlsx"
        write_sheets(*build_sample(SampleSettings.read()), workbook)
    return workbook


def read_examples(asked: Path | None, folder: Path) -> pd.DataFrame:
    """All examples of that workbook."""
    tables = ingest(workbook_or_sample(asked, folder))
    return build_examples(tables.topics, tables.lines).examples
