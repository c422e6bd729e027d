"""Recognise transcripts that were given to a command for something else."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import Rejected, UsageError
from pipeline.transcripts.captions import has_cues
from pipeline.transcripts.json_transcripts import is_json_transcript
from pipeline.transcripts.subtitle_files import subtitle_format
from pipeline.transcripts.table_transcripts import is_table
from pipeline.transcripts.timed_text import read_timed_text
from pipeline.transcripts.word_documents import is_word_document
from pipeline.transcripts.xml_transcripts import is_xml

_COLUMN_OF_A_WORKBOOK = "lesson_num"
_START = 2000  # characters of a table among which its header is


def captions_kind(text: str) -> str | None:
    """Name the kind of captions that a text is, or return None. Plain text, with times or without, is no captions."""
    if kind := subtitle_format(text):
        return f"captions ({kind.upper()})"
    if has_cues(text):
        return "captions (WebVTT)" if text.startswith("WEBVTT") else "captions (SubRip or SBV)"
    if is_json_transcript(text):
        return "a transcript (JSON)"
    if is_xml(text):
        return "captions (XML)"
    return "a transcript (table)" if is_table(text) else None


def check_not_a_transcript(path: Path) -> None:
    """Check that a file that should be a workbook is not a transcript.

    Raises:
        UsageError: it is one. The message names the commands for transcripts.
    """
    if path.is_file() and (kind := _kind_of_file(path)):
        raise UsageError(
            f"{path.name} is {kind}, not a workbook. `lectern chapters {path}` writes its chapters. "
            "`lectern transcripts FOLDER` turns a folder of such files into a workbook."
        )


def _kind_of_file(path: Path) -> str | None:
    if is_word_document(path):
        return "a Word document"
    from pipeline.transcripts.reading import read_text  # with the readers of workbooks, which a passage does not need

    try:
        text = read_text(path, [])
        if _COLUMN_OF_A_WORKBOOK in text[:_START]:
            return None
        kind = captions_kind(text)
        return kind or (read_timed_text(text, path.name) and "a transcript (text with times)") or None
    except Rejected:  # it is not text, or text without times
        return None
