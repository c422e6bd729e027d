"""The stage `ingest`: the tables of the workbook, checked, and the broken rows that are set aside."""

from pipeline.data.problems import by_kind, summary
from pipeline.data.workbook import IngestSettings, ingest
from pipeline.files import file_aside
from pipeline.paths import BROKEN_ROWS, LINES, SET_ASIDE, TOPICS


def run() -> None:
    """Read and check the workbook, and write its topics and lines."""
    settings = IngestSettings.read()
    path = settings.workbook
    workbook = ingest(path, set_aside=settings.sets_aside)
    tables = ((workbook.topics, TOPICS), (workbook.lines, LINES), (workbook.set_aside, BROKEN_ROWS))
    for table, target in tables:
        with file_aside(target, durable=False) as aside:
            table.to_parquet(aside, index=False)
    print(f"{path}: {len(workbook.topics):,} topics, {len(workbook.lines):,} lines; {summary(workbook.problems)}")
    if len(workbook.set_aside):
        print(f"  {len(workbook.set_aside):,} rows set aside; the stage merge writes them to {SET_ASIDE}")
    for line in by_kind(workbook.problems):
        print(f"  {line}")
