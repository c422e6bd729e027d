"""Titles that only stand in for one: the column that says so, in what is written, and what it says where it is read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.data.cells import as_name
from pipeline.data.tables import open_tables
from pipeline.data.workbook import TOPICS

FALLBACK = "fallback"
"""The column of titled topics that says of a title where it comes from, if it is neither the model's nor a person's."""
KEYPHRASE = "keyphrase"
NUMBER = "number"


def mark(kind: str, title: str) -> str:
    """What the column says of `title`. It repeats it: one that a person has written since is theirs."""
    return f"{kind}: {title}"


def stands_in(title: str, said: str) -> bool:
    """Whether `title` still is what the column has `said` of it."""
    return bool(title) and said.partition(": ")[2] == title


def without_stand_ins(topics: pd.DataFrame, path: Path) -> pd.DataFrame:
    """`topics`, as the workbook or folder at `path` was understood, with no title where one only stands in."""
    tables, _ = open_tables(path, {TOPICS: (FALLBACK,)})
    if TOPICS not in tables or FALLBACK not in tables[TOPICS].cells:
        return topics
    said = topics["row"].map(as_name(tables[TOPICS].cells[FALLBACK])).fillna("")
    titles = zip(topics["title"].tolist(), said.tolist(), strict=True)
    return topics.assign(title=["" if stands_in(title, said) else title for title, said in titles])
