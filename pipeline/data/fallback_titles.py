"""Mark fallback titles, which neither a model nor a person wrote, and find them again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.data.cell_values import as_name
from pipeline.data.workbook_schema import FALLBACK, TOPICS

KEYPHRASE = "keyphrase"
NUMBER = "number"


def fallback_note(kind: str, title: str) -> str:
    """Return the note for a fallback title.

    The note repeats the title. So a title that a person corrects later no longer counts as a fallback.
    """
    return f"{kind}: {title}"


def is_fallback(title: str, note: str) -> bool:
    """Return whether `note` marks `title` as a fallback."""
    return bool(title) and note.partition(": ")[2] == title


def without_fallback_titles(topics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Replace fallback titles by "".

    Args:
        topics: the topics of a workbook, as `read_workbook` returns them.
        path: the workbook, an .xlsx or a folder. Its column `FALLBACK` holds the notes.
    """
    from pipeline.data.tables import open_tables  # imports openpyxl, which a registered version does not require

    tables, _ = open_tables(path, {TOPICS: (FALLBACK,)})
    if TOPICS not in tables or FALLBACK not in tables[TOPICS].cells:
        return topics
    notes = topics["row"].map(as_name(tables[TOPICS].cells[FALLBACK])).fillna("")
    titles = zip(topics["title"].tolist(), notes.tolist(), strict=True)
    return topics.assign(title=["" if is_fallback(title, note) else title for title, note in titles])
