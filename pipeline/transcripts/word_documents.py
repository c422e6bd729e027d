"""Text of Word documents, such as the transcripts that Teams saves."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from pipeline.errors import Rejected

_DOCUMENT = "word/document.xml"
_LARGEST = 200_000_000  # bytes of a member when unpacked; a document of 1,000 pages has about five million


def is_word_document(path: Path) -> bool:
    """Return whether a file is a Word document (.docx), whatever its name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _DOCUMENT in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def read_word_document(path: Path) -> str:
    """Return the text of a Word document, a line for each paragraph and each line break.

    Raises:
        Rejected: the document is damaged or unpacks to too much.
    """
    import docx  # loads lxml, which few files need

    try:
        with zipfile.ZipFile(path) as archive:
            size = max(member.file_size for member in archive.infolist())
        if size > _LARGEST:
            raise Rejected(f"{path} unpacks to more than {_LARGEST // 1_000_000} MB, too large for a transcript.")
        return "\n".join(paragraph.text for paragraph in docx.Document(str(path)).paragraphs)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, OSError, SyntaxError) as error:
        raise Rejected(
            f"{path} is a damaged Word document ({error}). Save it again, or download the transcript as WebVTT (.vtt)."
        ) from None
