"""Transcripts as JSON, from speech recognition services, video sites and podcasts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from pipeline.data.single_values import MAX_SECONDS, replace_control_characters
from pipeline.errors import Rejected
from pipeline.transcripts.timestamps import unescape_html
from pipeline.transcripts.transcript import RawLine

_WORDS_OF_A_LINE = 15  # a service that gives words only: lines end here, at the latest
_PAUSE = 1.0  # seconds of silence that end such a line
_LONGEST_LINE = 600.0  # seconds; longer "lines" are milliseconds
_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")


class _Entry(NamedTuple):
    """A timed piece of a transcript, as its file holds it."""

    text: Any
    start: Any
    end: Any = None
    duration: Any = None
    speaker: Any = None


@dataclass(frozen=True)
class _Format:
    """A kind of JSON transcript.

    recognise: returns the part that holds the lines, or None if the content is of another kind.
    entries: yields the lines of that part.
    per_second: units of time per second.
    """

    name: str
    recognise: Callable[[Any], Any]
    entries: Callable[[Any], Iterator[_Entry]]
    per_second: float = 1.0


def read_json(content: Any, name: str) -> list[RawLine]:
    """Read the lines of a JSON transcript of any known kind.

    Args:
        content: the content of the file, from `parse_json`.
        name: the file's name, for messages.

    Raises:
        Rejected: the content is of no known kind, or a value is not a time or a text.
    """
    for kind in FORMATS:
        part = kind.recognise(content)
        if part is not None:
            return [_spoken(entry, number, kind, name) for number, entry in enumerate(kind.entries(part), start=1)]
    known = ", ".join(dict.fromkeys(kind.name for kind in FORMATS))
    raise Rejected(f"{name} is JSON of a kind that Lectern does not read. It reads: {known}.")


class NotJson(Rejected):
    """The text is not JSON that a caption program writes."""


def is_json_transcript(text: str) -> bool:
    """Return whether a text is JSON of a known kind, and not a sentence that begins with a bracket."""
    try:
        return find_json_transcript(text, "") is not None
    except Rejected:  # JSON with half a character
        return True


def find_json_transcript(text: str, name: str) -> Any:
    """Return the content of a text that is JSON of a known kind; None for other text.

    Raises:
        Rejected: it is JSON that holds half a character.
    """
    if not text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        return None
    try:
        content = parse_json(text.lstrip("\ufeff"), name)
    except NotJson:
        return None
    return content if any(kind.recognise(content) is not None for kind in FORMATS) else None


def parse_json(text: str, name: str) -> Any:
    """Parse JSON.

    Raises:
        NotJson: the text is not JSON.
        Rejected: it holds half a character.
    """
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise Rejected(f"{name} holds half a character ({half}). Download or export it again.") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"{name}, line {error.lineno:,}: not JSON ({error.msg}). Download or export it again.") from None
    except (RecursionError, ValueError):  # nested without end, or a number of thousands of digits
        raise NotJson(f"{name} is JSON that no caption program writes. Download or export it again.") from None


def _spoken(entry: _Entry, number: int, kind: _Format, name: str) -> RawLine:
    where = f"{name}, entry {number:,} ({kind.name})"
    if not isinstance(entry.text, str):
        raise Rejected(f"{where}: the text is {str(entry.text)[:60]!r}. Download or export the file again.")
    start = _seconds(entry.start, kind, where)
    end = None if entry.end is None else _seconds(entry.end, kind, where)
    if end is None and entry.duration is not None:
        end = start + _seconds(entry.duration, kind, where)
    speaker = entry.speaker if isinstance(entry.speaker, str | int) and not isinstance(entry.speaker, bool) else ""
    return RawLine(start, end, replace_control_characters(unescape_html(entry.text)), str(speaker).strip())


def _seconds(value: Any, kind: _Format, where: str) -> float:
    try:
        number = float(value) / kind.per_second if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= MAX_SECONDS:
        raise Rejected(f"{where}: {str(value)[:60]!r} is not a time. Download or export the file again.")
    return number


def _listed(key: str, *needed: str) -> Callable[[Any], Any]:
    """Recognise an object whose entry `key` lists objects that have all the keys needed."""

    def recognise(content: Any) -> Any:
        return _objects(content.get(key), *needed) if isinstance(content, Mapping) else None

    return recognise


def _bare(*needed: str) -> Callable[[Any], Any]:
    """Recognise a list of objects that have all the keys needed, also inside a list of one."""

    def recognise(content: Any) -> Any:
        if isinstance(content, list) and content and all(isinstance(part, list) for part in content):
            content = [entry for part in content for entry in part]
        return _objects(content, *needed)

    return recognise


def _objects(content: Any, *needed: str) -> Any:
    if not isinstance(content, list) or not content:
        return None
    if not all(isinstance(each, Mapping) and all(key in each for key in needed) for each in content):
        return None
    return content


def _fields(**names: str) -> Callable[[Any], Iterator[_Entry]]:
    """Read entries from objects; `names` maps fields of an entry to keys, of nested objects with a dot."""

    def entries(part: Any) -> Iterator[_Entry]:
        for each in part:
            yield _Entry(**{"text": None, "start": None, **{field: _at(each, key) for field, key in names.items()}})

    return entries


def _at(content: Any, path: str) -> Any:
    for key in path.split("."):
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _events(content: Any) -> Any:
    return _objects(content.get("events")) if isinstance(content, Mapping) else None


def _event_entries(events: Any) -> Iterator[_Entry]:
    for event in events:
        pieces = event.get("segs") or []
        text = "".join(str(piece.get("utf8") or "") for piece in pieces if isinstance(piece, Mapping))
        yield _Entry(text, event.get("tStartMs", 0), duration=event.get("dDurationMs"))


def _chunk_entries(chunks: Any) -> Iterator[_Entry]:
    for chunk in chunks:
        times = chunk["timestamp"] if isinstance(chunk["timestamp"], Sequence) else ()
        start, end = (*times, None, None)[:2]
        yield _Entry(chunk["text"], start, end)


def _parallel_lists(content: Any) -> Any:
    if not isinstance(content, Mapping):
        return None
    lists = [each for key in ("start", "end", "text") if isinstance(each := content.get(key), list)]
    return lists if len(lists) == 3 and len({len(each) for each in lists}) == 1 else None


def _parallel_entries(lists: Any) -> Iterator[_Entry]:
    for start, end, text in zip(*lists, strict=True):
        yield _Entry("" if text is None else text, start, end)


def _aws_words(content: Any) -> Any:
    return _objects(_at(content, "results.items"), "alternatives")


def _aws_entries(items: Any) -> Iterator[_Entry]:
    words: list[_Entry] = []
    for item in items:
        text = item["alternatives"][0].get("content") if item["alternatives"] else ""
        if "start_time" in item:
            words.append(_Entry(text, item["start_time"], item.get("end_time"), speaker=item.get("speaker_label")))
        elif words:  # punctuation has no time of its own
            words[-1] = words[-1]._replace(text=f"{words[-1].text}{text}")
    return _lines_of_words(words)


def _deepgram(content: Any) -> Any:
    return _objects(_at(content, "results.utterances"), "transcript", "start")


def _deepgram_words(content: Any) -> Any:
    channels = _objects(_at(content, "results.channels"), "alternatives")
    if not channels or not _objects(channels[0]["alternatives"]):
        return None
    return _objects(channels[0]["alternatives"][0].get("words"), "word", "start")


def _word_entries(*keys: str, per_second: float = 1.0) -> Callable[[Any], Iterator[_Entry]]:
    """Join single words to lines. A word's text is the value of the first of `keys` that it has."""

    def entries(words: Any) -> Iterator[_Entry]:
        return _lines_of_words(
            [
                _Entry(
                    next((word[key] for key in keys if key in word), None),
                    word.get("start"),
                    word.get("end"),
                    speaker=word.get("speaker"),
                )
                for word in words
            ],
            pause=_PAUSE * per_second,
        )

    return entries


def _lines_of_words(words: Sequence[_Entry], pause: float = _PAUSE) -> Iterator[_Entry]:
    """Join words to lines: one per sentence, pause or speaker, and never more than 15 words."""
    line: list[_Entry] = []
    for number, word in enumerate(words, start=1):
        line.append(word)
        is_last = number == len(words)
        if is_last or len(line) == _WORDS_OF_A_LINE or _ends_line(word, words[number], pause):
            yield _Entry(" ".join(str(each.text) for each in line), line[0].start, word.end, speaker=line[0].speaker)
            line = []


def _ends_line(word: _Entry, following: _Entry, pause: float) -> bool:
    if word.speaker != following.speaker or str(word.text).endswith(_SENTENCE_ENDS):
        return True
    try:
        return float(following.start) - float(word.end) >= pause
    except (TypeError, ValueError):
        return False


def _offsets_in(unit: str) -> Callable[[Any], Any]:
    """Recognise {text, duration, offset}, which one library writes in seconds and, since, in milliseconds."""
    bare = _bare("text", "duration", "offset")

    def recognise(content: Any) -> Any:
        part = bare(content)
        if part is None:
            return None
        numbers = [each["duration"] for each in part if isinstance(each["duration"], int | float)]
        is_milliseconds = bool(numbers) and median(numbers) > _LONGEST_LINE
        return part if is_milliseconds == (unit == "ms") else None

    return recognise


_WHISPER = {"text": "text", "start": "start", "end": "end", "speaker": "speaker"}
_SNIPPETS = {"text": "text", "start": "start", "duration": "duration"}
_OFFSETS = {"text": "text", "start": "offset", "duration": "duration"}

FORMATS = (
    _Format("YouTube timed text (json3)", _events, _event_entries, 1000),
    _Format("youtube-transcript-api", _bare("text", "start", "duration"), _fields(**_SNIPPETS)),
    _Format("youtube-transcript-api", _listed("snippets", "text", "start"), _fields(**_SNIPPETS)),
    _Format("youtube-transcript", _offsets_in("s"), _fields(**_OFFSETS)),
    _Format("youtube-transcript", _offsets_in("ms"), _fields(**_OFFSETS), 1000),
    _Format("Whisper", _listed("segments", "text", "start", "end"), _fields(**_WHISPER)),
    _Format("faster-whisper", _bare("text", "start", "end"), _fields(**_WHISPER)),
    _Format("Whisper words", _listed("words", "word", "start", "end"), _word_entries("word")),
    _Format(
        "whisper.cpp",
        _listed("transcription", "text", "offsets"),
        _fields(text="text", start="offsets.from", end="offsets.to"),
        1000,
    ),
    _Format("transformers' speech recognition", _listed("chunks", "text", "timestamp"), _chunk_entries),
    _Format("AssemblyAI", _listed("utterances", "text", "start", "end"), _fields(**_WHISPER), 1000),
    _Format("AssemblyAI", _listed("words", "text", "start", "end"), _word_entries("text", per_second=1000), 1000),
    _Format("Deepgram", _deepgram, _fields(text="transcript", start="start", end="end", speaker="speaker")),
    _Format("Deepgram", _deepgram_words, _word_entries("punctuated_word", "word")),
    _Format("AWS Transcribe", _aws_words, _aws_entries),
    _Format(
        "Podcasting 2.0",
        _listed("segments", "body", "startTime"),
        _fields(text="body", start="startTime", end="endTime", speaker="speaker"),
    ),
    _Format("edX (sjson)", _parallel_lists, _parallel_entries, 1000),
    _Format("Panopto", _bare("Caption", "Time"), _fields(text="Caption", start="Time", duration="CaptionDuration")),
    _Format("a list of {text, start}", _bare("text", "start"), _fields(**_SNIPPETS)),
)
"""The kinds of JSON transcripts, in the order in which they are tried."""
