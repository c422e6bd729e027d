"""The stage `sample`: the embedded workbook."""

from pipeline import paths
from pipeline.data.sample import SampleSettings, build_sample, write_workbook


def run() -> None:
    """Build the embedded workbook."""
    topics, lines = build_sample(SampleSettings.read())
    write_workbook(topics, lines, paths.SAMPLE)
