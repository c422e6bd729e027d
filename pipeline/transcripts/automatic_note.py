"""Add a note that chapters were written automatically, in the formats that have room for a comment.

Readers of these formats, Lectern's own too, skip the note.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pipeline.errors import UsageError

NOTE = "Chapters written automatically"


def add_note(text: str, name: str) -> str:
    """Add the note to chapters that are written in the format `name`."""
    return NOTES[name](text)


def require_room(name: str) -> None:
    """Check that the format `name` has room for the note.

    Raises:
        UsageError: it has none.
    """
    if name not in NOTES:
        raise UsageError(f"--note: the format {name} has no room for a note. Use one of {', '.join(NOTES)}.")


def _in_json(text: str) -> str:
    content: list[dict[str, Any]] = json.loads(text)
    return _as_json([{"note": NOTE, **lesson} for lesson in content])


def _in_podcast(text: str) -> str:
    return _as_json({"description": NOTE, **json.loads(text)})


def _as_json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _below_first_line(written: str) -> Callable[[str], str]:
    def add(text: str) -> str:
        first, rest = text.split("\n", 1)
        return f"{first}\n{written}\n{rest}"

    return add


NOTES: dict[str, Callable[[str], str]] = {
    "youtube": lambda text: f"{text}\n{NOTE}\n",
    "vtt": _below_first_line(f"\nNOTE {NOTE}"),
    "md": lambda text: f"{text}\n*{NOTE}*\n",
    "json": _in_json,
    "podcast": _in_podcast,
    "ffmetadata": _below_first_line(f"comment={NOTE}"),
    "podlove": _below_first_line(f"<!-- {NOTE} -->"),
    "cue": lambda text: f'REM COMMENT "{NOTE}"\n{text}',
}
"""The formats with room for the note, with the function that adds it to a text."""
