"""The last lines of a command that reads transcripts: what a person should check."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipeline.command import REJECTED

if TYPE_CHECKING:
    from pipeline.transcripts.course_folder import Course


def report_remarks(remarks: Iterable[str], read: Course) -> None:
    """Print remarks to standard error, then the files that give no lesson. Exit with 1 if a file failed."""
    print("".join(f"{remark}\n" for remark in [*remarks, *read.remarks()]), end="", file=sys.stderr)
    if read.failed:
        sys.exit(REJECTED)
