"""A title for one passage, from the version that counts."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import mlflow

from pipeline.errors import Rejected, UsageError
from pipeline.models.title_cleanup import is_usable_title
from pipeline.titles.titling import load, present_version
from pipeline.transcripts.reading import LARGEST, refuse_too_large

_log = logging.getLogger(__name__)


def read_passage(source: str) -> str:
    """The text that `source` stands for: `-` is standard input, a file's path its content, anything else itself.

    Raises:
        UsageError: there is no text, or the file is not text.
        Rejected: it is larger than any talk.
    """
    try:
        text = sys.stdin.read(LARGEST) if source == "-" else _content(source)
    except UnicodeDecodeError as error:
        raise UsageError(f"'{source}' is not a text file in UTF-8: {error.reason} at byte {error.start}.") from None
    if len(text) >= LARGEST:
        raise Rejected(f"The text has more than {LARGEST // 1_000_000} MB, which no passage has. Give one passage.")
    if text is source and _looks_like_a_path(source):
        raise UsageError(f"There is no file '{source}'. Give a passage in quotes, the path of a text file, or -.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("The text is not UTF-8. Put it into a file in UTF-8, and give its path.") from None
    if not text.strip():
        raise UsageError("There is no text to title. Give a passage, the path of a text file, or - for standard input.")
    return text


def _content(source: str) -> str:
    try:
        path = Path(source)
        if not path.is_file():
            return source
        refuse_too_large(path)
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise
    except (OSError, ValueError):  # a passage may be too long to be a path, or hold what none can
        return source


def _looks_like_a_path(source: str) -> bool:
    return len(source.split()) == 1 and ("/" in source or bool(Path(source).suffix[1:]))


def title_passage(text: str, knobs: dict[str, object], *, fast: bool = False) -> list[str]:
    """Candidate titles for `text`, the best first, from the champion, else the challenger.

    Where the version writes none of use, the text's best keyphrase stands in, and a warning says so.

    Args:
        knobs: what the registered model's signature lets a caller turn.
        fast: whether by its export.

    Raises:
        Rejected: nothing is registered, the version cannot be loaded, or there is not even a keyphrase.
        UsageError: a knob's value is out of its range, or there is no export.
    """
    version = present_version(fast=fast)
    predict = load(version)
    try:
        written = predict([text], knobs).iloc[0]
    except (ValueError, mlflow.MlflowException) as error:
        raise UsageError(str(error)) from None
    if not written["fallback"]:
        return list(filter(is_usable_title, written["candidates"]))
    if not written["title"]:
        raise Rejected(
            f"Version {version.number} wrote no title of use, and the text has no keyphrase. Give more of it."
        )
    _log.warning("%s wrote no title of use; this is a keyphrase of the text instead", f"version {version.number}")
    return [written["title"]]
