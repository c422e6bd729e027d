"""Choose the titles of a talk together, so that each fits its own chapter and no two are alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import count, pairwise

import numpy as np
import pandas as pd

from pipeline.data.lesson_openings import has_opening_mark, marked_texts, remove_opening_mark
from pipeline.data.workbook_schema import LESSON
from pipeline.evaluation.keyphrases import best_phrases, stop_words
from pipeline.evaluation.title_words import stems, title_key
from pipeline.models.title_cleanup import PLAIN, TitleStyle, clean_up_title, is_usable_title, remove_sound_marks
from pipeline.registry.fallback_title import Shown, choose_titles

_WEIGHTS = (2, 1, 4)  # of rank, fit and support in a score (docs/quality.md)
_NO_TITLE = -10.0  # the score of a chapter without a title of its own: worse than any title
_OPENING = 20.0  # the score of an opening's first title: outweighs any other
_FORBIDDEN = -1000.0
_PHRASES = 10  # keyphrases of a chapter that are tried


def choose_talk_titles(shown: Sequence[Shown], texts: Sequence[str], known: Iterable[str] = ()) -> list[Shown]:
    """Choose a title for each chapter of a talk among the model's candidates.

    The chosen titles have the highest sum of scores. The score of a candidate is a weighted mean of three numbers from
    0 to 1: its rank by the model; how much more frequent its words are in its chapter than in the others; and the share
    of its words that its chapter has. An opening keeps the model's first title, which may be the course's usual one.

    A chapter whose candidates all belong to other chapters gets a keyphrase that no other has, or else its title with a
    number. Both are marked as fallbacks.

    Args:
        shown: the title of each chapter by itself, with its candidates.
        texts: the text of each chapter, the opening marked.
        known: titles of the talk's other chapters, which no chapter gets again.

    Returns:
        A title for each chapter. No two share a `title_key`. A title is empty if it was so before.
    """
    words = _TalkWords(texts)
    taken = set(map(title_key, known))
    candidates = list(map(_own_candidates, shown))
    titles = _assign(candidates, words, taken)
    taken |= {title_key(title) for title in titles if title}
    without = [number for number, title in enumerate(titles) if not title]
    phrases: list[list[str]] = [[] for _ in texts]
    for number in without:
        phrases[number] = _keyphrases(shown[number], texts[number])
    fallbacks = _assign(phrases, words, taken)
    taken |= {title_key(fallback) for fallback in fallbacks if fallback}
    return [
        Shown(title or fallback or _numbered(one.title, taken), one.fallback or not title, one.candidates)
        for title, fallback, one in zip(titles, fallbacks, shown, strict=True)
    ]


def choose_lesson_titles(
    examples: pd.DataFrame, candidates: Sequence[list[str]], style: TitleStyle = PLAIN
) -> list[Shown]:
    """Choose the titles of each lesson together, for the examples of any number of lessons.

    Args:
        examples: one row per example, with its text.
        candidates: of each example, best first.
        style: the course's style, for keyphrases.
    """
    texts = marked_texts(examples)
    shown = choose_titles(texts, candidates, style)
    for rows in examples.groupby(LESSON, sort=False).indices.values():
        chosen = choose_talk_titles([shown[row] for row in rows], [texts[row] for row in rows])
        for row, one in zip(rows, chosen, strict=True):
            shown[row] = one
    return shown


def find_same_topic(shown: Sequence[Shown], texts: Sequence[str]) -> int | None:
    """Find a chapter that the model cannot tell apart from the one before.

    When titles are chosen together, one of the two has no title of its own: all its candidates belong to other
    chapters, and one of them belongs to its neighbour.

    Args:
        shown: the title of each chapter by itself, with its candidates.
        texts: the text of each chapter, the opening marked.

    Returns:
        The index of the later chapter of the first such pair; None if no pair exists.
    """
    candidates = [[] if one.fallback else _own_candidates(one) for one in shown]
    titles = _assign(candidates, _TalkWords(texts), ())
    keys = [set(map(title_key, own)) for own in candidates]
    pairs = enumerate(pairwise(zip(titles, keys, strict=True)), start=1)
    return next(
        (
            number
            for number, ((before, keys_before), (title, own_keys)) in pairs
            if (before and not title and title_key(before) in own_keys)
            or (title and not before and title_key(title) in keys_before)
        ),
        None,
    )


def _numbered(title: str, taken: set[str]) -> str:
    """Add the first number to a title with which its key is not `taken`, and take that key. An empty title stays."""
    if not title:
        return ""
    numbered = next(name for n in count(2) if title_key(name := f"{title} ({n})") not in taken)
    taken.add(title_key(numbered))
    return numbered


def _own_candidates(shown: Shown) -> list[str]:
    """Return the titles that a chapter may get, best first: the model's, else its keyphrase."""
    if shown.fallback or not shown.title:
        return [shown.title] if shown.title else []
    return list(dict.fromkeys([shown.title, *filter(is_usable_title, shown.candidates)]))


def _keyphrases(shown: Shown, text: str) -> list[str]:
    """Return the keyphrases of a chapter, best first. A text without one, such as [Music], has none."""
    if not shown.title:
        return []
    spoken = remove_sound_marks(remove_opening_mark(text))
    phrases = [clean_up_title(phrase, text=spoken) for phrase in best_phrases(spoken, _PHRASES)]
    return list(filter(is_usable_title, phrases))


class _TalkWords:
    """The content words of each chapter of a talk."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._opens = list(map(has_opening_mark, texts))
        texts = [remove_opening_mark(text) for text in texts]
        self._stop_words = stop_words(" ".join(texts))
        counts = [Counter(stems(text)) for text in texts]
        mean_length = sum(each.total() for each in counts) / max(1, len(texts))
        self._counts = [
            {word: times * mean_length / each.total() for word, times in each.items()} for each in counts
        ]  # as if all chapters were equally long
        self._totals: dict[str, float] = defaultdict(float)
        for chapter in self._counts:
            for word, times in chapter.items():
                self._totals[word] += times

    def score(self, title: str, chapter: int, rank: float) -> float:
        """Return the score of a title from 0 to 1, or `_OPENING`.

        Args:
            rank: from 1 for the model's best title down to 0.
        """
        if self._opens[chapter] and rank == 1:
            return _OPENING
        words = set(stems(title, self._stop_words)) or set(stems(title))
        fit = support = 1.0
        if words:
            fit = sum(self._share(word, chapter) for word in words) / len(words)
            support = len(words & self._counts[chapter].keys()) / len(words)
        return float(np.average((rank, fit, support), weights=_WEIGHTS))

    def _share(self, word: str, chapter: int) -> float:
        """Return a chapter's share of a word's occurrences. One is added to them, so that a rare word counts less."""
        return self._counts[chapter].get(word, 0.0) / (1 + self._totals.get(word, 0.0))


def _assign(candidates: Sequence[Sequence[str]], words: _TalkWords, taken: Collection[str]) -> list[str]:
    """Give each chapter one of its candidates, or "", with the highest sum of scores and no two alike.

    Args:
        candidates: of each chapter, best first.
        taken: the keys of titles that no chapter gets.
    """
    from scipy.optimize import linear_sum_assignment  # takes a second, and the titles of passages do not need it

    keys = {key: n for n, key in enumerate(dict.fromkeys(title_key(t) for each in candidates for t in each))}
    scores = np.full((len(candidates), len(keys) + len(candidates)), _FORBIDDEN)
    titles: dict[tuple[int, int], str] = {}
    for chapter, own in enumerate(candidates):
        scores[chapter, len(keys) + chapter] = _NO_TITLE
        for rank, title in enumerate(own):
            place = chapter, keys[title_key(title)]
            score = words.score(title, chapter, 1 - rank / len(own))
            if title_key(title) not in taken and score > scores[place]:
                scores[place], titles[place] = score, title
    chosen = zip(*linear_sum_assignment(scores, maximize=True), strict=True)
    return [titles.get((int(chapter), int(column)), "") for chapter, column in chosen]
