"""Limit the size of transcripts and passages."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import Rejected

LARGEST = 64_000_000  # bytes; the transcript of ten hours has about five million


def check_size(path: Path) -> None:
    """Check that a file is no larger than a transcript can be.

    Raises:
        Rejected: it is larger.
    """
    if path.stat().st_size > LARGEST:
        raise Rejected(
            f"{path} is larger than {LARGEST // 1_000_000} MB, too large for a transcript. Give the transcript of one "
            "lesson."
        )
