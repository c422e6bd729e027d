"""Behavioural tests of a model's titles, which complement its scores.

They are of the kinds of Ribeiro et al., 2020, "Beyond Accuracy: Behavioral Testing of NLP models with CheckList":
minimum functionality, invariance and directional expectation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from string import punctuation

from pipeline.data.lesson_openings import remove_opening_mark
from pipeline.models.title_cleanup import remove_sound_marks
from pipeline.settings import Settings

_TEXTS = 12  # the longest of the test split; only these are modified, so that the tests stay quick
_FILLERS = ("um", "you know", "so yeah")
_ARTEFACTS = ("[Music]", "[Applause]", "[Laughter]")
_LONG_TEXT_WORDS = 100_000
# Thai, Lao, Burmese, Khmer, Japanese and Chinese are written without spaces: each letter counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class BehaviourSettings(Settings):
    """Limits of the behavioural tests. Shares are of the texts of a test."""

    words: int  # most words in a title
    copied: float  # largest share of titles that are the first words of their text
    repeated: float = 0.1  # largest share of titles that repeat a word or two
    agreement: float  # smallest mean ROUGE-1 between the titles of a text and of its modified copy
    different: float  # smallest share of texts whose title no other text has
    repeats: float = 0.05  # how much larger the share of repeated titles in lessons may be than among the true titles
    support: float = 0.05  # how much lower the support of titles may be than that of the true titles


@dataclass(frozen=True)
class Finding:
    """The result of one test."""

    passed: bool
    text: str  # with the measured number


@dataclass(frozen=True)
class Behaviour:
    """One test: the texts that need a title, and a check of these titles."""

    name: str
    texts: list[str]
    check: Callable[[Sequence[str]], Finding]


_SURVIVED = Finding(True, "it does")  # otherwise the trial would have failed


def behaviours(texts: Sequence[str], settings: BehaviourSettings) -> list[Behaviour]:
    """Return the tests. Those that need titles of modified texts use the longest of `texts`, the others all of them.

    Args:
        texts: the texts as the model receives them, with the marks of openings.
    """
    everything = list(texts)
    longest = sorted(dict.fromkeys(map(remove_opening_mark, texts)), key=len, reverse=True)[:_TEXTS]
    with_fillers = [_insert(_FILLERS, text, every=12) for text in longest]
    with_marks = [_insert(_ARTEFACTS, text, every=10) for text in longest]
    return [
        Behaviour("gives every text a title", everything, lambda titles: _share(titles, lambda title: not title, 0)),
        Behaviour(
            f"writes no more than {settings.words} words",
            everything,
            lambda titles: _share(titles, lambda title: len(title.split()) > settings.words, 0),
        ),
        Behaviour(
            "repeats no words within a title",
            everything,
            lambda titles: _share(titles, _repeats, settings.repeated),
        ),
        Behaviour(
            "does not copy the text's first words",
            everything,
            lambda titles: _share(
                [title for title, text in zip(titles, everything, strict=True) if _is_beginning(title, text)],
                bool,
                settings.copied,
                len(everything),
            ),
        ),
        Behaviour(
            "gives different texts different titles",
            longest,
            lambda titles: _at_least(settings.different, _unique_share(titles), "share of texts with a unique title"),
        ),
        Behaviour(
            "is not disturbed by filler words",
            [*longest, *with_fillers],
            lambda titles: _at_least(settings.agreement, _agreement(titles), "ROUGE-1 between the titles"),
        ),
        Behaviour(
            "is not disturbed by capital letters",
            [*longest, *(text.upper() for text in longest)],
            lambda titles: _at_least(settings.agreement, _agreement(titles), "ROUGE-1 between the titles"),
        ),
        Behaviour(
            "copies no marks such as [Music]",
            with_marks,
            lambda titles: _share(titles, _is_mark, 0),
        ),
        Behaviour("survives an empty text", [""], lambda titles: _SURVIVED),
        Behaviour(f"survives {_LONG_TEXT_WORDS:,} words", [_long_text(longest)], lambda titles: _SURVIVED),
    ]


def _share(titles: Sequence[str], wrong: Callable[[str], bool], tolerated: float, count: int | None = None) -> Finding:
    found = [title for title in titles if wrong(title)]
    total = count if count is not None else len(titles)
    if len(found) > tolerated * total:
        return Finding(False, f"{len(found)} of {total} fail, such as {found[0]!r}")
    return Finding(True, f"{total - len(found)} of {total} pass")


def _at_least(minimum: float, found: float, what: str) -> Finding:
    return Finding(found >= minimum, f"{what}: {found:.2f}, at least {minimum:.2f} required")


def _repeats(title: str) -> bool:
    """Return whether a word or a pair of words is repeated. A name such as `datetime.datetime` is one word."""
    words = [word.strip(punctuation) for word in title.lower().split()]
    pairs = list(pairwise(words))
    return any(one == other for one, other in pairs) or len(set(pairs)) < len(pairs)


def _is_mark(title: str) -> bool:
    """Return whether the title contains a mark, or is empty because the clean-up has removed one."""
    return not title or any(mark.lower() in title.lower() for mark in _ARTEFACTS)


def _is_beginning(title: str, text: str) -> bool:
    """Return whether the title consists of the first words of the text, apart from marks such as [Music]."""
    spoken_words, title_words = (
        _WORD.findall(remove_sound_marks(remove_opening_mark(text)).lower()),
        _WORD.findall(title.lower()),
    )
    return bool(title_words) and spoken_words[: len(title_words)] == title_words


def _unique_share(titles: Sequence[str]) -> float:
    """Return the share of titles that occur once, ignoring case."""
    times = Counter(map(str.casefold, titles))
    return sum(count == 1 for count in times.values()) / max(1, len(titles))


def _agreement(titles: Sequence[str]) -> float:
    """Return the mean ROUGE-1 between the titles of the texts, the first half, and of their copies, the second half."""
    from pipeline.evaluation.unicode_rouge import rouge1  # takes a second, for a stemmer that is not used here

    half = len(titles) // 2
    return mean(rouge1(titles[:half], titles[half:]) or [1.0])


def _insert(additions: Sequence[str], text: str, *, every: int) -> str:
    """Insert the additions in turn: one before the first word, and one after each further `every` words."""
    words = text.split()
    return " ".join(
        f"{additions[place % len(additions)]} {word}" if place % every == 0 else word
        for place, word in enumerate(words)
    )


def _long_text(texts: Sequence[str]) -> str:
    words = " ".join(texts).split() or ["word"]
    return " ".join((words * (_LONG_TEXT_WORDS // len(words) + 1))[:_LONG_TEXT_WORDS])
