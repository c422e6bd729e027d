"""Find the workbook that a benchmark runs on."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from pipeline.data.examples import build_examples
from pipeline.data.sample_workbook import SampleSettings, build_sample
from pipeline.data.workbook import ingest
from pipeline.data.workbook_files import write_sheets


def find_workbook(asked: Path | None) -> Path | None:
    """Return `asked`, else a workbook in $LECTERN_SHARED, else None."""
    return asked or next(Path(os.environ.get("LECTERN_SHARED", "/nowhere")).glob("data/*.xlsx"), None)


def workbook_or_sample(asked: Path | None, folder: Path) -> Path:
    """Return the workbook, or build the embedded one in `folder`."""
    workbook = find_workbook(asked)
    if workbook is None:
        workbook = folder / "sample.xlsx"
        write_sheets(*build_sample(SampleSettings.read()), workbook)
    return workbook


def read_examples(asked: Path | None, folder: Path) -> pd.DataFrame:
    """Return all examples of the workbook."""
    tables = ingest(workbook_or_sample(asked, folder))
    return build_examples(tables.topics, tables.lines).examples
