"""Settings of all titles that Lectern writes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pipeline.models.title_cleanup import LONGEST
from pipeline.settings import Section


class TitlesSettings(Section):
    """Limits of a title where it is used."""

    section: ClassVar[str] = "titles"

    longest: int = Field(ge=10, le=LONGEST, description="most characters of a title")
