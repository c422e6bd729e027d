"""Count words, also in scripts that put no spaces between them."""

from __future__ import annotations

import re

_UNSPACED = re.compile(
    "["
    "\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e45\u0e81-\u0eb0\u0ec0-\u0ec4"  # Thai, Lao
    "\u1000-\u102a\u1780-\u17b3"  # Myanmar, Khmer
    "]"
)
"""A letter of Chinese, Japanese, Thai, Lao, Burmese or Khmer. Signs above and below a letter belong to it."""
_UNSPACED_LETTER = re.compile(
    rf"{_UNSPACED.pattern}[\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ebc\u0ec8-\u0ecd\u102b-\u103e\u17b4-\u17d3]*"
)
_WORD = re.compile(r"\S*\w\S*")


def count_words(text: str) -> int:
    """Count the words between spaces. In a script without spaces, each letter counts as a word."""
    letters = len(_UNSPACED.findall(text))
    return letters + len(_WORD.findall(_UNSPACED.sub(" ", text))) if letters else len(text.split())


def unspaced_letters(text: str) -> list[str]:
    """Return the letters of scripts without spaces, each with the signs above and below it."""
    return _UNSPACED_LETTER.findall(text)


def space_out(text: str) -> str:
    """Put spaces around each letter of a script without spaces, so that tools that split at spaces see words."""
    return _UNSPACED.sub(r" \g<0> ", text)
