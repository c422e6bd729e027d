"""The stage `sample`: the embedded workbook."""

from pipeline import paths
from pipeline.data.sample_workbook import SampleSettings, build_sample
from pipeline.data.workbook_files import write_sheets


def run() -> None:
    """Build the embedded workbook."""
    topics, lines = build_sample(SampleSettings.read())
    write_sheets(topics, lines, paths.SAMPLE)
