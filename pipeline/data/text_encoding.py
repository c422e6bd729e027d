"""Recognise the encoding of a text file."""

from __future__ import annotations

import codecs
import re
from itertools import islice

_WESTERN = "cp1252"
_ALIKE_CHAOS, _ALIKE_COHERENCE = 0.08, 0.1  # differences below which two encodings fit a text about equally well
_HIGH_BYTE = re.compile(rb"[\x80-\xff]")
_LINE_WITH_HIGH_BYTE = re.compile(rb"[^\n]*[\x80-\xff][^\n]*")
_LINES_READ = 10_000
_LONE_BYTE = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
_EAST_ASIAN = [
    "big5", "big5hkscs", "cp932", "cp949", "cp950", "euc_jis_2004", "euc_jisx0213", "euc_jp", "euc_kr", "gb18030",
    "gb2312", "gbk", "hz", "johab", "shift_jis", "shift_jis_2004", "shift_jisx0213",
]  # fmt: skip
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def declared_encoding(content: bytes) -> str:
    """Return the encoding that the first bytes of a text show; UTF-8 if they show none.

    UTF-16 without a byte order mark is recognised by the zero byte in its first character, which is a digit, a letter
    or a bracket.
    """
    if marked := next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None):
        return marked
    if content[1:2] == b"\0" and content[:1] != b"\0":
        return "utf-16-le"
    return "utf-16-be" if content[:1] == b"\0" and content[1:2] != b"\0" else "utf-8"


def guess_encoding(content: bytes) -> str | None:
    """Return the likeliest encoding of a text that is not UTF-8, or None if the bytes are not text."""
    if b"\0" in content:
        return None
    from charset_normalizer import from_bytes  # few files need it

    content = b"\n".join(line[0] for line in islice(_LINE_WITH_HIGH_BYTE.finditer(content), _LINES_READ))
    # Accented letters stand alone among ASCII; the bytes of East Asian text come in runs.
    alone = 2 * len(_LONE_BYTE.findall(content)) > len(_HIGH_BYTE.findall(content))
    matches = from_bytes(content, cp_exclusion=_EAST_ASIAN if alone else None)
    best = matches.best()
    if best is None:
        return None
    # Of encodings that fit about equally well, the one of Western Windows is the most common by far.
    western = any(
        _WESTERN in match.could_be_from_charset
        and match.chaos <= best.chaos + _ALIKE_CHAOS
        and match.coherence >= best.coherence - _ALIKE_COHERENCE
        for match in matches
    )
    return _WESTERN if western else best.encoding
