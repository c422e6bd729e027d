"""Settings of the server and its page: sizes, waiting times and folders."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from pipeline.settings import Section

PAGE_PATH = "/page"
"""Path of the page below the server's address."""


class ServeSettings(Section):
    """Limits of the HTTP API and the page."""

    section: ClassVar[str] = "serve"

    texts: int = Field(ge=1, description="most texts in a request")
    megabytes: float = Field(gt=0, description="largest body of a request, and largest uploaded file")
    seconds: float = Field(gt=0, description="time limit for a request to arrive, and again for its answer")
    waiting: int = Field(
        ge=1, description="most waiting requests; all bodies together hold at most this many times `megabytes`"
    )
    batch: int = Field(ge=1, description="most texts titled together, from several requests if needed")
    refresh: float = Field(gt=0, description="seconds between two checks of the registry for a new version")


class PageSettings(Section):
    """Limits of a transcript on the page, and the place of corrections."""

    section: ClassVar[str] = "page"

    words: int = Field(ge=1, description="most words in a transcript")
    chapters: int = Field(ge=1, description="most chapters of a transcript")
    corrections: Path = Field(description="folder for workbooks of corrected chapters")
