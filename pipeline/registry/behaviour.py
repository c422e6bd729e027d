"""How a model behaves, whatever it scores: what every title must be, what must not change it, and what must.

The three kinds of test are those of Ribeiro et al., 2020: "Beyond Accuracy: Behavioral Testing of NLP models with
CheckList": minimum functionality, invariance and directional expectation.
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
from pipeline.models.title_cleanup import without_marks
from pipeline.settings import Settings

_TEXTS = 12  # of the test split, the longest, that are disturbed: enough for a share, and few enough to be quick
_FILLERS = ("um", "you know", "so yeah")
_ARTEFACTS = ("[Music]", "[Applause]", "[Laughter]")
_ENDLESS_WORDS = 100_000
# Thai, Lao, Burmese, Khmer, Japanese and Chinese are written without spaces: each letter counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class BehaviourSettings(Settings):
    """How much is tolerated. Shares are of the texts that are tried."""

    words: int  # that a title may have
    copied: float  # share of titles that may be the text's first words
    repeated: float = 0.1  # share of titles that may say a word or two twice
    agreement: float  # mean ROUGE-1 between the titles of a text and of its disturbed twin, at least
    different: float  # share of texts whose title no other text has, at least


@dataclass(frozen=True)
class Finding:
    """What the titles are found to be, with its number, and whether that is enough."""

    enough: bool
    words: str


@dataclass(frozen=True)
class Behaviour:
    """One test: texts to be titled, and what is found of the titles."""

    name: str
    texts: list[str]
    look: Callable[[Sequence[str]], Finding]  # at the titles of `texts`


_SURVIVED = Finding(True, "it does")  # a version that does not fails when it is tried


def behaviours(texts: Sequence[str], settings: BehaviourSettings) -> list[Behaviour]:
    """The tests, on all of `texts`, or the longest where more must be asked than their titles.

    Args:
        texts: as titles are asked for them.
    """
    everything = list(texts)
    chosen = sorted(dict.fromkeys(map(remove_opening_mark, texts)), key=len, reverse=True)[:_TEXTS]
    noisy = [_strewn(text, _FILLERS, every=12) for text in chosen]
    marked = [_strewn(text, _ARTEFACTS, every=10) for text in chosen]
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
            "writes titles, and not the text's first words",
            everything,
            lambda titles: _share(
                [title for title, text in zip(titles, everything, strict=True) if _begins(text, title)],
                bool,
                settings.copied,
                len(everything),
            ),
        ),
        Behaviour(
            "gives different texts different titles",
            chosen,
            lambda titles: _at_least(_unshared(titles), settings.different, "of the texts have a title of their own"),
        ),
        Behaviour(
            "is not disturbed by filler words",
            [*chosen, *noisy],
            lambda titles: _at_least(_agreement(titles), settings.agreement, "ROUGE-1 between the titles"),
        ),
        Behaviour(
            "is not disturbed by capital letters",
            [*chosen, *(text.upper() for text in chosen)],
            lambda titles: _at_least(_agreement(titles), settings.agreement, "ROUGE-1 between the titles"),
        ),
        Behaviour(
            "copies no marks such as [Music]",
            marked,
            lambda titles: _share(titles, _is_of_marks, 0),
        ),
        Behaviour("survives an empty text", [""], lambda titles: _SURVIVED),
        Behaviour(f"survives {_ENDLESS_WORDS:,} words", [_endless(chosen)], lambda titles: _SURVIVED),
    ]


def _share(titles: Sequence[str], wrong: Callable[[str], bool], tolerated: float, count: int | None = None) -> Finding:
    found = [title for title in titles if wrong(title)]
    total = count if count is not None else len(titles)
    if len(found) > tolerated * total:
        return Finding(False, f"{len(found)} of {total} do not, such as {found[0]!r}")
    return Finding(True, f"{total - len(found)} of {total} do")


def _at_least(found: float, wanted: float, what: str) -> Finding:
    return Finding(found >= wanted, f"{found:.2f} {what}; {wanted:.2f} are wanted")


def _repeats(title: str) -> bool:
    """A word twice in a row, or two words that come again. A name such as `datetime.datetime` is one word."""
    words = [word.strip(punctuation) for word in title.lower().split()]
    pairs = list(pairwise(words))
    return any(one == other for one, other in pairs) or len(set(pairs)) < len(pairs)


def _is_of_marks(title: str) -> bool:
    """Titles are tidied, which takes known marks out: nothing is left of one that was no more."""
    return not title or any(mark.lower() in title.lower() for mark in _ARTEFACTS)


def _begins(text: str, title: str) -> bool:
    """True if the title equals the first whole words of the text, as a reader sees both.

    A title is tidied, which takes marks such as [Music] out of it.
    """
    said, written = _WORD.findall(without_marks(remove_opening_mark(text)).lower()), _WORD.findall(title.lower())
    return bool(written) and said[: len(written)] == written


def _unshared(titles: Sequence[str]) -> float:
    """The share of titles that stand only once, in whichever case they are written."""
    times = Counter(map(str.casefold, titles))
    return sum(count == 1 for count in times.values()) / max(1, len(titles))


def _agreement(titles: Sequence[str]) -> float:
    """Of each text's title with that of its twin, which stands in the second half."""
    from pipeline.evaluation.unicode_rouge import rouge1  # a second to load, for a stemmer, which is not used here

    half = len(titles) // 2
    return mean(rouge1(titles[:half], titles[half:]) or [1.0])


def _strewn(text: str, additions: Sequence[str], every: int) -> str:
    """`text` with one of `additions` ahead of every so many words, beginning with the first."""
    words = text.split()
    return " ".join(
        f"{additions[place % len(additions)]} {word}" if place % every == 0 else word
        for place, word in enumerate(words)
    )


def _endless(texts: Sequence[str]) -> str:
    words = " ".join(texts).split() or ["word"]
    return " ".join((words * (_ENDLESS_WORDS // len(words) + 1))[:_ENDLESS_WORDS])
