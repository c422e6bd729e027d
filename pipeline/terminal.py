"""What a person at a terminal, or whoever reads the log, is shown. Never a password."""

from __future__ import annotations

import sys

from rich.console import Console

from pipeline.errors import Misused, Refused, Unavailable
from pipeline.redaction import hide_passwords


def console() -> Console:
    """As wide as the terminal; where there is none, wide enough not to fold a table."""
    return Console(width=None if sys.stdout.isatty() else 200)


def complain(what: object) -> None:
    """Prints why something was not done."""
    print(hide_passwords(str(what)), file=sys.stderr)


def say_no(error: Refused | Misused | Unavailable) -> int:
    """Prints why; returns the exit code that goes with it."""
    complain(error)
    return error.exit_code


def write_anything() -> None:
    """From here on, what the terminal's encoding lacks, such as a damaged file name, is escaped, and is no error."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
