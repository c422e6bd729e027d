"""The stage `validate`: both tables of the workbook against their suites."""

import pandas as pd

from pipeline import paths
from pipeline.data.expectations import require_valid


def run() -> None:
    tables = {"topics": pd.read_parquet(paths.TOPICS), "lines": pd.read_parquet(paths.LINES)}
    suites = {name: paths.EXPECTATIONS / f"{name}.json" for name in tables}
    require_valid(tables, suites, paths.VALIDATION, paths.DATA_DOCS)
