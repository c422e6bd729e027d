"""Read who speaks each line of a workbook."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.data.cell_values import as_name
from pipeline.data.tables import open_tables
from pipeline.data.workbook_schema import LINES, SPEAKER


def with_speakers(lines: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add the column `SPEAKER` of a workbook. Without one, no column is added.

    Args:
        lines: the lines of the workbook, as `read_workbook` returns them.
        path: the workbook, an .xlsx or a folder.
    """
    tables, _ = open_tables(path, {LINES: (SPEAKER,)})
    if LINES not in tables or SPEAKER not in tables[LINES].cells:
        return lines
    return lines.assign(**{SPEAKER: lines["row"].map(as_name(tables[LINES].cells[SPEAKER])).fillna("")})
