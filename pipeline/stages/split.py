"""The stage `split`: training, validation and test examples. No lesson is in two splits."""

import pandas as pd

from pipeline.data.expectations import require_valid
from pipeline.data.split import LEAKS, SplitSettings, lessons_by_side, split
from pipeline.data.workbook_schema import LESSON
from pipeline.files import file_aside, write_json
from pipeline.paths import EXAMPLES, EXPECTATIONS, SPLIT_VALIDATION, SPLITS


def run() -> None:
    """Split the examples, and check that no lesson is in two splits."""
    settings = SplitSettings.read()
    splits = split(pd.read_parquet(EXAMPLES), settings)
    if settings.by == "random":
        write_json(SPLIT_VALIDATION, {"success": False, "failed": {}, "tables": [], "note": LEAKS}, durable=False)
    else:
        suites = {"splits": EXPECTATIONS / "splits.json"}
        require_valid({"splits": lessons_by_side(splits)}, suites, SPLIT_VALIDATION, docs=None)
    for name, examples in splits.items():
        with file_aside(SPLITS / f"{name}.parquet", durable=False) as aside:
            examples.to_parquet(aside, index=False)
        print(f"{name}: {len(examples):,} examples of {len(examples[LESSON].drop_duplicates()):,} lessons")
