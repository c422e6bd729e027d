"""The stage `ingest`: the tables of the workbook, checked."""

from pipeline.data.problems import by_kind, summary
from pipeline.data.workbook import IngestSettings, ingest
from pipeline.files import file_aside
from pipeline.paths import LINES, TOPICS


def run() -> None:
    """Read and check the workbook, and write its topics and lines."""
    path = IngestSettings.read().workbook
    workbook = ingest(path)
    for table, target in ((workbook.topics, TOPICS), (workbook.lines, LINES)):
        with file_aside(target, durable=False) as aside:
            table.to_parquet(aside, index=False)
    print(f"{path}: {len(workbook.topics):,} topics, {len(workbook.lines):,} lines; {summary(workbook.problems)}")
    for line in by_kind(workbook.problems):
        print(f"  {line}")
