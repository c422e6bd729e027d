"""The gate's rules for the titles of talks: do they repeat, and do their texts support them, as the true titles do?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from pipeline.data.lesson_openings import is_opening
from pipeline.evaluation.comparison import Comparison, compare, fewest_units
from pipeline.evaluation.intervals import Unit, count_noun, units_of
from pipeline.evaluation.title_measures import find_repeats, find_supports
from pipeline.registry.behaviour import BehaviourSettings
from pipeline.registry.talk_titles import choose_lesson_titles


def compare_talk_titles(
    test: pd.DataFrame, candidates: Sequence[list[str]], settings: BehaviourSettings, unit: Unit, *, level: float
) -> Iterator[tuple[str, str, Comparison]]:
    """Choose the titles of each test lesson together, as they are served, and compare them with the true titles.

    Args:
        test: the test split.
        candidates: the titles that the version wrote for each example, best first.
        settings: how much worse than the true titles they may be.
        unit: the independent unit.
        level: the chance of a wrong claim in each comparison.

    Yields:
        A rule, a description, and a comparison that finds "worse" if the version breaks the rule.
    """
    titled = test.assign(title=_own_titles(test, candidates))
    yield _compare(
        "repeats no more titles within a lesson than the true titles",
        1 - find_repeats(titled),
        1 - find_repeats(test),
        settings.repeats,
        units_of(test, unit).tolist(),
        unit,
        level,
    )
    within, inner = ~is_opening(test), test[~is_opening(test)]
    if len(inner):
        yield _compare(
            "is supported by the texts as well as the true titles",
            find_supports(titled)[within],
            find_supports(test)[within],
            settings.support,
            units_of(inner, unit).tolist(),
            unit,
            level,
        )


def _own_titles(test: pd.DataFrame, candidates: Sequence[list[str]]) -> list[str]:
    """Choose the titles of each lesson together.

    A fallback title would hide that the model wrote no title of its own, so the model's first title replaces it. A
    chapter whose candidates all belong to other chapters therefore counts as a repeat.
    """
    chosen = choose_lesson_titles(test, candidates)
    return [own[0] if each.fallback else each.title for each, own in zip(chosen, candidates, strict=True)]


def _compare(
    rule: str, own: pd.Series, true: pd.Series, tolerated: float, units: Sequence[int], unit: Unit, level: float
) -> tuple[str, str, Comparison]:
    """Compare a share of the version's titles, higher is better, with that of the true titles."""
    found = compare((own + tolerated).tolist(), true.astype(float).tolist(), units, level=level)
    on = f"{count_noun(len(own), 'example')} of {count_noun(found.units, unit)}"
    if found.finding == "too few":
        return rule, f"too few {unit}s to tell: {on}, and {fewest_units(level)} are needed", found
    reach = f"at most {found.high - tolerated:+.3f}, and {-tolerated:+g} is tolerated"
    return rule, f"{own.mean():.3f}, true titles {true.mean():.3f}, difference {reach} on {on}", found
