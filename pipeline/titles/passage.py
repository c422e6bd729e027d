"""Title one passage."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import mlflow

from pipeline.errors import Rejected, UsageError
from pipeline.models.title_cleanup import is_usable_title, shorten_title
from pipeline.titles.served_version import ServedVersion, load_version
from pipeline.titles.settings import TitlesSettings
from pipeline.transcripts.reading import LARGEST, check_size

_log = logging.getLogger(__name__)


def read_passage(source: str) -> str:
    """Return the passage: standard input for `-`, a file's content for its path, else `source` itself.

    Raises:
        UsageError: the passage is empty, or the file is not UTF-8 text.
        Rejected: the passage is too large.
    """
    try:
        text = sys.stdin.read(LARGEST) if source == "-" else _file_content(source)
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
    return text


def _file_content(source: str) -> str | None:
    """Return the content of the file at `source`; None if there is no such file."""
    try:
        path = Path(source)
        if not path.is_file():
            return None
        check_size(path)
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise
    except (OSError, ValueError):  # a passage may be too long for a path, or have characters that a path cannot have
        return None


def _looks_like_a_path(source: str) -> bool:
    return len(source.split()) == 1 and ("/" in source or bool(Path(source).suffix[1:]))


def title_passage(text: str, version: ServedVersion, parameters: Mapping[str, object]) -> list[str]:
    """Write candidate titles for a passage, best first.

    If the model writes no usable title, the result is the best keyphrase of the text, and a warning is logged.

    Args:
        parameters: generation parameters that the signature of the registered model allows.

    Raises:
        Rejected: the version cannot be loaded, or the text has no keyphrase either.
        UsageError: a parameter is out of range.
    """
    predict = load_version(version)
    try:
        written = predict([text], parameters).iloc[0]
    except (ValueError, mlflow.MlflowException) as error:
        raise UsageError(str(error)) from None
    longest = TitlesSettings.read().longest
    if not written["fallback"]:
        return [shorten_title(title, longest) for title in written["candidates"] if is_usable_title(title)]
    if not written["title"]:
        raise Rejected(
            f"Version {version.number} wrote no usable title, and the text has no keyphrase. Give a longer passage."
        )
    _log.warning("Version %s wrote no usable title. This is a keyphrase of the text.", version.number)
    return [shorten_title(written["title"], longest)]
