"""What the server of titles and its page take on, and for how long they let anyone wait."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from pipeline.settings import Section

PAGE = "/page"  # where the page is, below the server's address


class ServeSettings(Section):
    section: ClassVar[str] = "serve"

    texts: int = Field(ge=1)  # of a request, at most
    megabytes: float = Field(gt=0)  # of a request's body, at most
    seconds: float = Field(gt=0)  # that a request may take to arrive, and again to be answered
    waiting: int = Field(
        ge=1
    )  # requests that may wait, and as many whole bodies all may hold; beyond, one is told to come back
    batch: int = Field(ge=1)  # texts that are titled together, of several requests if need be
    refresh: float = Field(gt=0)  # seconds between two looks at which version counts


class PageSettings(Section):
    section: ClassVar[str] = "page"

    words: int = Field(ge=1)  # of a talk, at most
    chapters: int = Field(ge=1)  # of a talk, at most
    corrections: Path  # the folder for workbooks of corrected chapters
