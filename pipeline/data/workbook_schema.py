"""Sheets and columns of a workbook, and the names of the columns in our tables."""

from __future__ import annotations

TOPICS = "lesson_topics"
LINES = "lesson_transcripts"

COLUMN_NAMES = {
    TOPICS: {
        "course_title": "course_title",
        "lesson_num": "lesson_num",
        "timestamp": "start_seconds",
        "topic": "title",
    },
    LINES: {
        "course_title": "course_title",
        "lesson_num": "lesson_num",
        "timestamp": "seconds",
        "transcript": "text",
    },
}
"""For each sheet the columns it must have, with their names in our tables."""

OTHER_NAMES = {
    TOPICS: ("topics", "topic", "chapters", "lessons", "toc"),
    LINES: ("transcripts", "transcript", "lines", "captions", "subtitles", "text"),
    "course_title": ("course", "course name", "title of course", "class", "module", "series"),
    "lesson_num": (
        "lesson",
        "lesson number",
        "lecture",
        "number",
        "session",
        "episode",
        "unit",
        "week",
        "no",
        "nr",
        "#",
    ),
    "timestamp": ("time", "start", "start time", "begin", "from", "time stamp", "timecode", "time code", "seconds"),
    "topic": ("title", "topic title", "chapter", "heading", "subject", "section", "name"),
    "transcript": ("text", "line", "words", "caption", "subtitle", "spoken text", "utterance", "content"),
}
"""Names that people give to sheets and columns. A message proposes to rename them."""

SPEAKER = "speaker"
"""The column of `LINES` that names who speaks. No model reads it."""

OPTIONAL_COLUMNS = ("video_url", SPEAKER)

FALLBACK = "fallback"
"""The column that marks fallback titles in a titled workbook."""

LESSON = ["course_title", "lesson_num"]
"""The columns that identify a lesson."""
