"""The `lectern` command. Each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import typer

from lectern import operations, stages, titles, training, versions, workbook
from pipeline.command import run_command

app = typer.Typer(
    help="Turn lecture transcripts into chapters with titles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for panel in (workbook, training, titles, versions, operations, stages):
    panel.add_to(app)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    run_command(app)
