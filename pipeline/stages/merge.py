"""The stage `merge`: the lines of each topic as one example."""

import pandas as pd

from pipeline.data.examples import build_examples
from pipeline.data.single_values import escape_formula
from pipeline.data.workbook_schema import LESSON
from pipeline.files import file_aside
from pipeline.paths import BROKEN_ROWS, EXAMPLES, LINES, SET_ASIDE, TOPICS

_TEXT_COLUMNS = [*LESSON, "title", "text", "reason"]  # text from the workbook, which may look like a formula


def run() -> None:
    """Write the examples, and the lines and topics that belong to none with the reason."""
    lines = pd.read_parquet(LINES)
    merged = build_examples(pd.read_parquet(TOPICS), lines)
    with file_aside(EXAMPLES, durable=False) as aside:
        merged.examples.to_parquet(aside, index=False)
    broken = pd.read_parquet(BROKEN_ROWS)
    set_aside = pd.concat([merged.set_aside, broken]).sort_values(["what", "row"], kind="stable", ignore_index=True)
    shown = set_aside.assign(**{name: set_aside[name].map(escape_formula) for name in _TEXT_COLUMNS})
    with file_aside(SET_ASIDE, durable=False) as aside:
        shown.to_csv(aside, index=False, encoding="utf-8-sig")  # the byte order mark tells Excel that it is UTF-8
    counts = set_aside["what"].value_counts()
    in_all = len(lines) + (broken["what"] == "line").sum()
    print(f"{len(merged.examples):,} examples from {in_all:,} lines")
    print(f"set aside in {SET_ASIDE}: {counts.get('line', 0):,} lines, {counts.get('topic', 0):,} topics")
