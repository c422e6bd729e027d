"""Find the best keyphrase of a text, in the language of the text."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

from pipeline.data.word_count import count_words, unspaced_letters

if TYPE_CHECKING:
    from yake import KeywordExtractor

_MAX_WORDS = 3  # as in the paper on YAKE
_VERY_LONG_WORD = re.compile(r"\S{200,}+")  # YAKE's time grows with the square of a word's length
_ENGLISH = "en"
_LANGUAGES = (
    "ar", "bg", "cz", "da", "de", "el", "es", "et", "fa", "fi", "fr", "hi", "hr", "hu", "hy", "id", "it", "lv",
    "nl", "no", "pl", "pt", "ro", "ru", "sl", "sv", "tr", "uk",
)  # fmt: skip
"""Languages with spaces for which YAKE has a list of stop words in UTF-8, besides English."""
_UNSPACED_LANGUAGES = ("ja", "zh")
_WORDS_READ = 1000  # of a text, to recognise its language
_CLEARLY = 1.5  # so many times as many stop words as in English make a text another language
_MAX_LETTERS = 16  # of a keyphrase without spaces


def best_phrase(text: str) -> str:
    """Return the keyphrase that YAKE ranks first, or "" for a text without one.

    Campos et al., 2020: "YAKE! Keyword Extraction from Single Documents using Multiple Local Features".
    YAKE needs spaces between words. In a script without them, the phrase is the one that is repeated most.
    """
    return next(iter(best_phrases(text, 1)), "")


def best_phrases(text: str, count: int) -> list[str]:
    """Return the keyphrases that `best_phrase` chooses from, best first. A text without spaces has at most one."""
    letters = unspaced_letters(text)
    if 2 * len(letters) > count_words(text):
        return list(filter(None, [_most_repeated(text)]))
    extractor = _extractor(_language(text), count)
    return [str(phrase) for phrase, _ in extractor.extract_keywords(_VERY_LONG_WORD.sub(" ", text))]


def stop_words(text: str) -> frozenset[str]:
    """Return the stop words of the text's language, in lower case."""
    return frozenset(_extractor(_language(text)).stopword_set)


@cache
def _extractor(language: str, count: int = 1) -> KeywordExtractor:
    from yake import KeywordExtractor  # takes a second, and most texts get a title of the model's

    return KeywordExtractor(lan=language, n=_MAX_WORDS, top=count)


def _language(text: str) -> str:
    """Return the language whose stop words a text has most often; English unless another has clearly more."""
    words = Counter(word.strip(".,;:!?()\"'") for word in text.casefold().split()[:_WORDS_READ])

    def stop_words(language: str) -> int:
        return sum(words[word] for word in _extractor(language).stopword_set & words.keys())

    best = max(_LANGUAGES, key=stop_words)
    return best if stop_words(best) > _CLEARLY * stop_words(_ENGLISH) else _ENGLISH


def _most_repeated(text: str) -> str:
    """Return the letters between stop words that are repeated most; if none are, the longest sequence of letters."""
    pieces = [unspaced_letters(piece) for piece in _unspaced_stop_words().split(text)]
    counts = Counter(
        tuple(piece[start:end])
        for piece in pieces
        for start in range(len(piece))
        for end in range(start + 2, min(start + _MAX_LETTERS, len(piece)) + 1)
    )
    repeated = [(count * (len(phrase) - 1), len(phrase), phrase) for phrase, count in counts.items() if count > 1]
    if repeated:
        return "".join(max(repeated)[-1])
    return "".join(max(pieces, key=len, default=[])[:_MAX_LETTERS])


@cache
def _unspaced_stop_words() -> re.Pattern[str]:
    """Match a stop word of Chinese or Japanese, or what stands between letters."""
    words = {word for language in _UNSPACED_LANGUAGES for word in _extractor(language).stopword_set if word.isalpha()}
    return re.compile(
        "|".join([*sorted(words, key=len, reverse=True), r"[^\w\u0e31-\u0ecd\u102b-\u109f\u17b4-\u17d3]+"])
    )
