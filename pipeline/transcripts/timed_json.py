"""Read captions in YouTube's JSON: timed text with `events`, or a list of {text, start, duration}."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pipeline.data.cell_values import MAX_SECONDS, replace_control_characters
from pipeline.errors import Rejected
from pipeline.transcripts.timestamps import unescape_html
from pipeline.transcripts.transcript import RawLine

_Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
_Milliseconds = Annotated[float, Field(ge=0, le=MAX_SECONDS * 1000)]
_Content = TypeVar("_Content")


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


def read_json(text: str, file_name: str) -> list[RawLine]:
    """Read the captions in `text`.

    Args:
        file_name: the file's name, for messages.

    Raises:
        Rejected: `text` is not JSON, or has neither of YouTube's forms.
    """
    content = parse_json(text, file_name)
    if isinstance(content, dict) and "events" in content:
        events = _validate(TypeAdapter(list[_Event]), content["events"], f"{file_name}, events")
        return [
            _line(event.tStartMs / 1000, event.dDurationMs / 1000, "".join(part.utf8 for part in event.segs))
            for event in events
        ]
    if not isinstance(content, list):
        raise Rejected(
            f"{file_name} has neither YouTube's 'events' nor a list of {{text, start, duration}}. Download the "
            "captions again, or give them as .vtt or .srt."
        )
    snippets = _validate(TypeAdapter(list[_Snippet]), content, file_name)
    return [_line(snippet.start, snippet.duration, snippet.text) for snippet in snippets]


def parse_json(text: str, file_name: str) -> Any:
    """Parse JSON that can be written as UTF-8.

    Raises:
        Rejected: `text` is not such JSON.
    """
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except UnicodeEncodeError as error:
        surrogate = error.object[error.start].encode("unicode_escape").decode()
        raise Rejected(
            f"{file_name} contains half a character ({surrogate}). Download or export the file again."
        ) from None
    except json.JSONDecodeError as error:
        raise Rejected(
            f"{file_name}, line {error.lineno:,}: this is not JSON ({error.msg}). Download or export the file again."
        ) from None
    except (RecursionError, ValueError):  # nested too deeply, or a number with thousands of digits
        raise Rejected(
            f"{file_name} is nested too deeply or has a number that is too long. Download or export the file again."
        ) from None


def _line(start: float, duration: float, text: str) -> RawLine:
    return RawLine(start, start + duration, replace_control_characters(unescape_html(text)))


def _validate(kind: TypeAdapter[_Content], content: Any, place: str) -> _Content:
    try:
        return kind.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        entry, *fields = first["loc"] or ("",)
        part = f"entry {entry + 1:,}" if isinstance(entry, int) else "the list"
        where = " ".join([part, *map(str, fields)])
        raise Rejected(
            f"{place}, {where}: {first['msg']}, but found {str(first['input'])[:60]!r}. Correct the value, or download "
            "the captions again."
        ) from None
