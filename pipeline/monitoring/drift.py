"""Compare recently titled texts and their titles with the training split.

A measure has drifted if its distance is above its bound and too large for chance. Numbers: the Kolmogorov-Smirnov
distance, the largest gap between two cumulative distributions, with its test. Languages: the total variation of their
shares, with a chi-squared test. Fallbacks: their share, with a binomial test, because the training split has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field
from rich.table import Table
from rich.text import Text
from scipy.stats import MonteCarloMethod, binomtest, chi2_contingency, ks_2samp

from pipeline.monitoring.measures import NUMBERS
from pipeline.settings import Section, Settings

_RESAMPLES = 9999
_SEED = 1
_SHOWN_LANGUAGES = 3


class Bounds(Settings):
    """Largest tolerated distance of each measure, between 0, equal, and 1."""

    words: float = Field(ge=0, le=1)
    characters: float = Field(ge=0, le=1)
    unknown_words: float = Field(ge=0, le=1)
    language: float = Field(ge=0, le=1)
    title_words: float = Field(ge=0, le=1)
    chapter_minutes: float = Field(ge=0, le=1)
    fallback: float = Field(ge=0, lt=1)


class DriftSettings(Section):
    """The section `drift` of params.yaml."""

    section: ClassVar[str] = "drift"

    days: float = Field(gt=0)  # length of the period up to now
    fewest: int = Field(ge=2)  # smallest number of texts that is judged
    confidence: float = Field(gt=0, lt=1)  # required to exclude chance
    bounds: Bounds


@dataclass(frozen=True)
class Finding:
    """The result for one measure."""

    measure: str
    training: str  # summary of its values
    titled: str
    distance: float
    bound: float
    p_value: float  # probability of such a distance by chance
    drifted: bool


@dataclass(frozen=True)
class Drift:
    """Differences between the texts that `version` titled and the training split. No findings: too few texts."""

    version: str
    texts: int
    fewest: int
    days: float
    findings: list[Finding]
    notes: list[str]

    @property
    def drifted(self) -> list[str]:
        """The names of the measures that drifted."""
        return [finding.measure for finding in self.findings if finding.drifted]

    @property
    def headline(self) -> str:
        titled = f"{self.texts:,} texts that {self.version} titled within {self.days:g} days"
        if not self.findings:
            return f"Not judged: {titled}; at least {self.fewest:,} are needed."
        if self.drifted:
            return f"Drift in {', '.join(self.drifted)}: {titled}."
        return f"No drift from the training split: {titled}."

    def as_json(self) -> dict[str, Any]:
        return {"drifted": self.drifted, **asdict(self)}

    def as_table(self) -> Table:
        table = Table(title=Text(self.headline), caption=Text(" ".join(self.notes)), title_justify="left")
        for column in ("measure", "training", "titled", "distance", "bound", "p", ""):
            table.add_column(column)
        for finding in self.findings:
            mark = Text("DRIFT", style="red") if finding.drifted else Text("no drift", style="green")
            table.add_row(*map(Text, cells(finding)), mark)
        return table

    def as_markdown(self) -> str:
        lines = [self.headline, "", *self.notes, ""]
        if self.findings:
            lines += ["| measure | training | titled | distance | bound | p | |", "|---|---|---|--:|--:|--:|---|"]
        for finding in self.findings:
            lines.append(f"| {' | '.join(cells(finding))} | {'**drift**' if finding.drifted else 'no drift'} |")
        return "\n".join(lines)


def cells(finding: Finding) -> list[str]:
    """Format a finding for the cells of a table."""
    numbers = (f"{finding.distance:.3f}", f"{finding.bound:g}", f"{finding.p_value:.2g}")
    return [finding.measure.replace("_", " "), finding.training, finding.titled, *numbers]


def compare(
    training: pd.DataFrame, titled: pd.DataFrame, settings: DriftSettings, *, version: str, notes: list[str]
) -> Drift:
    """Compare titled texts with the training split. The order of rows does not matter.

    Args:
        training: the result of `measure_training`.
        titled: the rows of one version from `read_batches`.
        notes: remarks for the reader of the result.
    """
    found = list(_findings(training, titled, settings)) if len(titled) >= settings.fewest else []
    return Drift(version, len(titled), settings.fewest, settings.days, found, notes)


def _findings(training: pd.DataFrame, titled: pd.DataFrame, settings: DriftSettings) -> Iterator[Finding]:
    alpha = 1 - settings.confidence

    def finding(measure: str, distance: float, p_value: float) -> Finding:
        bound = getattr(settings.bounds, measure)
        before, now = summarise(training, measure), summarise(titled, measure)
        return Finding(measure, before, now, distance, bound, p_value, bool(distance > bound and p_value < alpha))

    for measure in NUMBERS:
        if measure not in titled:  # batches from before it was measured
            continue
        was, now = training[measure].dropna(), titled[measure].dropna()
        if len(was) and len(now):
            # Fewer unknown words are no problem, so the test is one-sided.
            side = "less" if measure == "unknown_words" else "two-sided"
            tested = ks_2samp(now, was, alternative=side, method="asymp")
            yield finding(measure, float(tested.statistic), float(tested.pvalue))
    yield finding("language", *_language(training["language"], titled["language"]))
    lost, bound = int(titled["fallback"].sum()), settings.bounds.fallback
    p_value = binomtest(lost, len(titled), bound, alternative="greater").pvalue
    yield finding("fallback", lost / len(titled), float(p_value))


def _language(was: pd.Series, now: pd.Series) -> tuple[float, float]:
    """Return the distance and its p-value."""
    counts = pd.DataFrame({"was": was.value_counts(), "now": now.value_counts()}).fillna(0).sort_index()
    if len(counts) == 1:
        return 0.0, 1.0
    shares = counts / counts.sum()
    distance = float((shares["was"] - shares["now"]).abs().sum() / 2)
    # By resampling, because most languages are too rare for the usual approximation.
    method = MonteCarloMethod(n_resamples=_RESAMPLES, rng=np.random.default_rng(_SEED))
    tested = chi2_contingency(counts.to_numpy(dtype=int), correction=False, method=method)
    return distance, float(tested.pvalue)


def summarise(measured: pd.DataFrame, measure: str) -> str:
    """Summarise the values of a measure for a person; a dash if there are none."""
    if measure not in measured or not measured[measure].notna().any():
        return "-"
    values = measured[measure].dropna()
    if measure == "language":
        shares = values.value_counts(normalize=True).sort_index().sort_values(ascending=False, kind="stable")
        return ", ".join(f"{name} {share:.0%}" for name, share in shares[:_SHOWN_LANGUAGES].items())
    if measure == "fallback":
        return f"{values.mean():.1%}"
    shown = {"unknown_words": "{:.1%}", "chapter_minutes": "{:,.1f}"}.get(measure, "{:,.0f}")
    low, middle, high = map(shown.format, values.quantile([0.1, 0.5, 0.9]))
    return f"{middle} ({low} to {high})"
