"""Captions as YouTube hands them out in JSON: timed text (`events`), or a list of {text, start, duration}."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pipeline.data.cell_values import MAX_SECONDS, replace_control_characters
from pipeline.errors import Rejected
from pipeline.transcripts.timestamps import unescaped
from pipeline.transcripts.transcript import Spoken

_Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
_Milliseconds = Annotated[float, Field(ge=0, le=MAX_SECONDS * 1000)]


class _Segment(BaseModel):
    utf8: str = ""


class _Event(BaseModel):
    tStartMs: _Milliseconds = 0
    dDurationMs: _Milliseconds = 0
    segs: list[_Segment] = []


class _Snippet(BaseModel):
    text: str
    start: _Seconds
    duration: _Seconds = 0


def read_json(text: str, name: str) -> list[Spoken]:
    """What is said in each event or entry.

    Args:
        name: of the file, for messages.

    Raises:
        Rejected: it is not JSON, or none of YouTube's.
    """
    content = parse_json(text, name)
    if isinstance(content, dict) and "events" in content:
        events = _checked(TypeAdapter(list[_Event]), content["events"], f"{name}, events")
        return [
            _spoken(event.tStartMs / 1000, event.dDurationMs / 1000, "".join(part.utf8 for part in event.segs))
            for event in events
        ]
    if not isinstance(content, list):
        raise Rejected(f"{name} holds neither YouTube's 'events' nor a list of {{text, start, duration}}.")
    snippets = _checked(TypeAdapter(list[_Snippet]), content, name)
    return [_spoken(said.start, said.duration, said.text) for said in snippets]


def parse_json(text: str, name: str) -> Any:
    """Raises:
    Rejected: `text` is not JSON.
    """
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise Rejected(f"{name} holds half a character ({half}), which is no text. Fetch it anew.") from None
    except json.JSONDecodeError as error:
        raise Rejected(f"{name}, line {error.lineno:,}: it is not JSON ({error.msg}). Save or fetch it anew.") from None
    except (RecursionError, ValueError):  # nested without end, or a number of thousands of digits
        raise Rejected(f"{name} is JSON that no program for captions writes. Fetch it anew.") from None


def _spoken(start: float, duration: float, text: str) -> Spoken:
    return Spoken(start, start + duration, replace_control_characters(unescaped(text)))


def _checked(kind: TypeAdapter, content: Any, name: str) -> Any:
    try:
        return kind.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        entry, *within = first["loc"] or ("",)
        place = f"entry {entry + 1:,}" if isinstance(entry, int) else "the list"
        where = " ".join([place, *map(str, within)])
        raise Rejected(f"{name}, {where}: {first['msg']} (it is {str(first['input'])[:60]!r}).") from None
