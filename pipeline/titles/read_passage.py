"""Read one passage: from the command line, from a file or from standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.data.text_encoding import declared_encoding
from pipeline.errors import Rejected, UsageError
from pipeline.transcripts.file_sizes import LARGEST, check_size
from pipeline.transcripts.recognise import captions_kind


def read_passage(source: str) -> str:
    """Return the passage: standard input for `-`, a file's content for its path, else `source` itself.

    Raises:
        UsageError: the passage is empty or a transcript, or the file is not UTF-8 text.
        Rejected: the passage is too large.
    """
    try:
        text = sys.stdin.read(LARGEST).removeprefix("\ufeff") if source == "-" else _file_content(source)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"'{source}' is not a text file in UTF-8: {error.reason} at byte {error.start}. Save it as UTF-8."
        ) from None
    if text is None:
        if _looks_like_a_path(source):
            raise UsageError(
                f"File '{source}' does not exist. Give a passage in quotes, the path of a text file, or -."
            )
        text = source
    if len(text) >= LARGEST:
        raise Rejected(
            f"The text is larger than {LARGEST // 1_000_000} MB, too large for a passage. Give a part of it."
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("The text is not UTF-8. Save it in a UTF-8 file and give the file's path.") from None
    if not text.strip():
        raise UsageError("The passage is empty. Give a passage, the path of a text file, or - for standard input.")
    if kind := captions_kind(text):
        what, file = ("The text", "FILE") if source in ("-", text) else (f"'{source}'", source)
        raise UsageError(f"{what} is {kind}, not a passage. `lectern chapters {file}` writes its chapters with titles.")
    return text


def _file_content(source: str) -> str | None:
    """Return the content of the file at `source`; None if there is no such file."""
    try:
        path = Path(source)
        if not path.is_file():
            return None
        check_size(path)
        content = path.read_bytes()
        return content.decode(declared_encoding(content))
    except UnicodeDecodeError:
        raise
    except (OSError, ValueError):  # a passage may be too long for a path, or have characters that a path cannot have
        return None


def _looks_like_a_path(source: str) -> bool:
    return len(source.split()) == 1 and ("/" in source or bool(Path(source).suffix[1:]))
