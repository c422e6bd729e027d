"""Subtitles of video players: ASS, SSA, SAMI, MPL2 and MicroDVD, read by pysubs2."""

from __future__ import annotations

import re
from typing import NoReturn

from pysubs2 import SSAFile
from pysubs2.exceptions import Pysubs2Error, UnknownFPSError

from pipeline.data.single_values import MAX_SECONDS, replace_control_characters
from pipeline.errors import Rejected
from pipeline.transcripts.transcript import RawLine

_SIGNS = {
    "ass": re.compile(r"^\[Script Info\]|^Dialogue:", re.MULTILINE | re.IGNORECASE),
    "sami": re.compile(r"^\s*<SAMI>", re.IGNORECASE),
    "microdvd": re.compile(r"^\{\d+\}\{\d+\}"),
    "mpl2": re.compile(r"^\[\d+\]\[\d+\]"),
}
_SCC = "Scenarist_SCC"


def subtitle_format(text: str) -> str | None:
    """Return the format of a subtitle file as pysubs2 names it, `scc` for broadcast captions, or None."""
    start = text.lstrip("\ufeff\r\n ")
    if start.startswith(_SCC):
        return "scc"
    return next((name for name, sign in _SIGNS.items() if sign.search(start)), None)


def read_subtitles(text: str, name: str, kind: str) -> list[RawLine]:
    """Read the lines of a subtitle file.

    Args:
        text: the content of the file.
        name: the file's name, for messages.
        kind: as `subtitle_format` returns it.

    Raises:
        Rejected: the file has frame numbers in place of times, holds broadcast captions, or is damaged.
    """
    if kind == "scc":
        raise Rejected(
            f"{name} holds broadcast captions (Scenarist SCC), whose text is encoded for television. Export the "
            "captions as WebVTT (.vtt) or SubRip (.srt)."
        )
    try:
        subtitles = SSAFile.from_string(text, format_=kind)
    except UnknownFPSError:
        raise Rejected(
            f"{name} counts frames (MicroDVD) and does not say how many there are per second. Convert it to SubRip "
            "(.srt) with the frame rate of the video."
        ) from None
    except (Pysubs2Error, ValueError, IndexError, OverflowError) as error:
        _refuse(name, str(error))
    lines = [event for event in subtitles if not event.is_comment]
    if any(not 0 <= event.start <= MAX_SECONDS * 1000 for event in lines):
        _refuse(name, "a time is out of range")
    return [
        RawLine(
            event.start / 1000,
            event.end / 1000,
            replace_control_characters(" ".join(event.plaintext.split())),
            replace_control_characters(event.name.strip()),
        )
        for event in lines
    ]


def _refuse(name: str, why: str) -> NoReturn:
    raise Rejected(f"{name} is a damaged subtitle file ({why}). Export the captions again, as WebVTT (.vtt).") from None
