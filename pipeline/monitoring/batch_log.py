"""Log measurements of each batch of titles, one row of numbers per text, without the texts.

The log is in `.lectern/`, because no stage can make it again; `lectern backup` includes it. Each batch has a file of
its own, so that batches at the same time do not conflict.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from pipeline.data.lesson_openings import remove_opening_mark
from pipeline.files import file_aside
from pipeline.paths import STATE, TRAINING_SPLITS

BATCHES = STATE / "batches"
MEASURES = ("words", "characters", "unknown_words", "language", "title_words", "chapter_minutes", "fallback")
"""The columns of a batch that measure its texts and titles."""

_WHEN = "%Y%m%dT%H%M%S%fZ"


def log_batch(
    texts: Sequence[str], titles: Sequence[str], version: str, minutes: Sequence[float] | None = None
) -> None:
    """Measure a batch and log the measurements.

    Args:
        titles: the model's own title for each text; empty if it wrote none.
        version: NAME/NUMBER of the version that wrote them.
        minutes: length of the chapter that each text is, NaN if the version did not choose it; None for no chapters.
    """
    if not texts:
        return
    from pipeline.monitoring.measures import measure, vocabulary  # loads a language model, which takes a second

    train = TRAINING_SPLITS["train"]
    known = vocabulary(pd.read_parquet(train, columns=["text"])["text"].tolist()) if train.exists() else None
    now = datetime.now(UTC)
    rows = measure([remove_opening_mark(text) for text in texts], titles, known).assign(
        chapter_minutes=float("nan") if minutes is None else minutes,
        fallback=[not title.strip() for title in titles],
        version=version,
        when=pd.Timestamp(now),
    )
    with file_aside(BATCHES / f"{now.strftime(_WHEN)}-{uuid.uuid4().hex[:8]}.parquet") as path:
        rows.to_parquet(path, index=False)


def read_batches(since: datetime) -> pd.DataFrame:
    """Read the rows of all batches since a time, oldest first.

    Returns:
        The columns of `measure`; `chapter_minutes`, NaN for other texts than chapters; `fallback`, whether the model
        wrote no title; `version`, NAME/NUMBER; `when`. Without batches, an empty frame without columns.
    """
    files = [file for file in sorted(BATCHES.glob("*.parquet")) if _when(file) >= since]
    return pd.concat(map(pd.read_parquet, files), ignore_index=True) if files else pd.DataFrame()


def days_ago(days: float) -> datetime:
    """Return the time so many days before now, in UTC."""
    return datetime.now(UTC) - timedelta(days=days)


def _when(file: Path) -> datetime:
    return datetime.strptime(file.stem.partition("-")[0], _WHEN).replace(tzinfo=UTC)
