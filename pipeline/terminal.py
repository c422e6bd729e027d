"""Terminal output, without passwords."""

from __future__ import annotations

import io
import sys

from rich.console import Console

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import hide_passwords


def console() -> Console:
    """Return a console as wide as the terminal, or wide enough for every table where there is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 200)


def complain(message: object) -> None:
    """Print a message to standard error."""
    print(hide_passwords(str(message)), file=sys.stderr)


def report_error(error: Rejected | UsageError | TemporaryFailure) -> int:
    """Print the error's message and return its exit code."""
    complain(error)
    return error.exit_code


def escape_unprintable() -> None:
    """Escape characters that the terminal's encoding lacks, such as those of a damaged file name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
