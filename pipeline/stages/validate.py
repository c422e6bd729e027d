"""The stage `validate`: both tables of the workbook, checked against their expectations."""

import pandas as pd

from pipeline import paths
from pipeline.data.expectations import require_valid


def run() -> None:
    """Check both tables and write the data docs."""
    tables = {"topics": pd.read_parquet(paths.TOPICS), "lines": pd.read_parquet(paths.LINES)}
    suites = {name: paths.EXPECTATIONS / f"{name}.json" for name in tables}
    require_valid(tables, suites, paths.VALIDATION, paths.DATA_DOCS)
