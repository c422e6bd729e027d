"""Compare titles by their words: equal titles, and the support of a title in its text."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from snowballstemmer import stemmer

from pipeline.data.word_count import space_out

_BRACKETED = re.compile(r"[(\[]\s*([^\W\d_][\w.&/-]*)\s*[)\]]")
_WORD = re.compile(r"[^\W_]+")


def stems(text: str, leave_out: Collection[str] = ()) -> list[str]:
    """Return the words of a text in lower case, stemmed by Snowball. Letters of unspaced scripts count as words.

    Args:
        leave_out: words in lower case, such as stop words.
    """
    return [_stem(word) for word in _WORD.findall(space_out(text.casefold())) if word not in leave_out]


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    # NLTK, which has the stemmer of ROUGE, takes seconds to import. A stemmer of Snowball serves one thread only.
    return str(stemmer("english").stemWord(word)) if len(word) > 3 else word


def title_key(title: str) -> str:
    """Return a text that two titles share if they differ only in capitals, word endings and bracketed abbreviations."""
    without = _BRACKETED.sub(
        lambda found: "" if _is_abbreviation(found[1], title[: found.start()]) else found[0], title
    )
    return " ".join(stems(without) or stems(title)) or title


def _is_abbreviation(word: str, before: str) -> bool:
    """Return whether a word has several capitals, such as CNNs, or is made of the initials of the words before."""
    letters = word.removesuffix("s").casefold()
    initials = "".join(each[0] for each in _WORD.findall(before.casefold()))
    return sum(map(str.isupper, word)) > 1 or (len(letters) > 1 and initials.endswith(letters))


def support(title: str, text: str, stop_words: Collection[str] = ()) -> float:
    """Return the share of a title's content words that its text has, compared by their stems; 1 without such words."""
    words = set(stems(title, stop_words))
    return len(words.intersection(stems(text))) / len(words) if words else 1.0
