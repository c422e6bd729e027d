"""Whether the texts that are titled, and their titles, still are like those that the model was trained on.

A measure has drifted if it differs by more than its bound, and if that is no matter of chance. Numbers are compared by
Kolmogorov and Smirnov's distance, the greatest gap between two cumulative shares; languages by the total variation of
their shares, with a chi-squared test; fallbacks by their share alone, with a binomial test, for training has none.
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
    """How far each measure may differ, from 0, alike, to 1."""

    words: float = Field(ge=0, le=1)
    characters: float = Field(ge=0, le=1)
    unknown_words: float = Field(ge=0, le=1)
    language: float = Field(ge=0, le=1)
    title_words: float = Field(ge=0, le=1)
    fallback: float = Field(ge=0, lt=1)


class DriftSettings(Section):
    section: ClassVar[str] = "drift"

    days: float = Field(gt=0)  # of titles that are looked at, up to now
    fewest: int = Field(ge=2)  # texts that are judged; fewer say too little
    confidence: float = Field(gt=0, lt=1)  # that a difference is no matter of chance
    bounds: Bounds


@dataclass(frozen=True)
class Finding:
    """What was found of one measure."""

    measure: str
    training: str  # its values there, in short
    titled: str
    distance: float
    bound: float
    p_value: float  # how likely chance alone makes such a difference
    drifted: bool


@dataclass(frozen=True)
class Drift:
    """How the texts that `version` has titled differ from the training split. No findings: too few to judge."""

    version: str
    texts: int
    fewest: int
    days: float
    findings: list[Finding]
    notes: list[str]

    @property
    def drifted(self) -> list[str]:
        """The measures that have."""
        return [finding.measure for finding in self.findings if finding.drifted]

    @property
    def headline(self) -> str:
        titled = f"{self.texts:,} texts that {self.version} titled within {self.days:g} days"
        if not self.findings:
            return f"Not judged: {titled}, and {self.fewest:,} are asked for."
        if self.drifted:
            return f"Drifted in {', '.join(self.drifted)}: {titled}."
        return f"Like the training split: {titled}."

    def as_json(self) -> dict[str, Any]:
        return {"drifted": self.drifted, **asdict(self)}

    def as_table(self) -> Table:
        table = Table(title=Text(self.headline), caption=Text(" ".join(self.notes)), title_justify="left")
        for column in ("measure", "training", "titled", "distance", "bound", "p", ""):
            table.add_column(column)
        for finding in self.findings:
            mark = Text("DRIFTED", style="red") if finding.drifted else Text("like", style="green")
            table.add_row(*map(Text, cells(finding)), mark)
        return table

    def as_markdown(self) -> str:
        lines = [self.headline, "", *self.notes, ""]
        if self.findings:
            lines += ["| measure | training | titled | distance | bound | p | |", "|---|---|---|--:|--:|--:|---|"]
        for finding in self.findings:
            lines.append(f"| {' | '.join(cells(finding))} | {'**drifted**' if finding.drifted else 'like'} |")
        return "\n".join(lines)


def cells(finding: Finding) -> list[str]:
    """As every table shows them."""
    numbers = (f"{finding.distance:.3f}", f"{finding.bound:g}", f"{finding.p_value:.2g}")
    return [finding.measure.replace("_", " "), finding.training, finding.titled, *numbers]


def compare(
    training: pd.DataFrame, titled: pd.DataFrame, settings: DriftSettings, *, version: str, notes: list[str]
) -> Drift:
    """The order of rows does not matter.

    Args:
        training: what `measure_training` returns.
        titled: of one version, what `read_batches` returns.
        notes: what whoever reads the result must know beside it.
    """
    found = list(_findings(training, titled, settings)) if len(titled) >= settings.fewest else []
    return Drift(version, len(titled), settings.fewest, settings.days, found, notes)


def _findings(training: pd.DataFrame, titled: pd.DataFrame, settings: DriftSettings) -> Iterator[Finding]:
    alpha = 1 - settings.confidence

    def finding(measure: str, distance: float, p_value: float) -> Finding:
        bound = getattr(settings.bounds, measure)
        was, now = in_short(training, measure), in_short(titled, measure)
        return Finding(measure, was, now, distance, bound, p_value, bool(distance > bound and p_value < alpha))

    for measure in NUMBERS:
        was, now = training[measure].dropna(), titled[measure].dropna()
        if len(was) and len(now):
            # Of words that are unknown only more than before are a loss.
            side = "less" if measure == "unknown_words" else "two-sided"
            tested = ks_2samp(now, was, alternative=side, method="asymp")
            yield finding(measure, float(tested.statistic), float(tested.pvalue))
    yield finding("language", *_language(training["language"], titled["language"]))
    lost, bound = int(titled["fallback"].sum()), settings.bounds.fallback
    p_value = binomtest(lost, len(titled), bound, alternative="greater").pvalue
    yield finding("fallback", lost / len(titled), float(p_value))


def _language(was: pd.Series, now: pd.Series) -> tuple[float, float]:
    """The distance, and how likely chance alone makes it."""
    counts = pd.DataFrame({"was": was.value_counts(), "now": now.value_counts()}).fillna(0).sort_index()
    if len(counts) == 1:
        return 0.0, 1.0
    shares = counts / counts.sum()
    distance = float((shares["was"] - shares["now"]).abs().sum() / 2)
    # By resampling: most languages are too rare for the usual approximation.
    method = MonteCarloMethod(n_resamples=_RESAMPLES, rng=np.random.default_rng(_SEED))
    tested = chi2_contingency(counts.to_numpy(dtype=int), correction=False, method=method)
    return distance, float(tested.pvalue)


def in_short(measured: pd.DataFrame, measure: str) -> str:
    """The values of a measure as a person reads them; a dash where there are none."""
    if measure not in measured or not measured[measure].notna().any():
        return "-"
    values = measured[measure].dropna()
    if measure == "language":
        shares = values.value_counts(normalize=True).sort_index().sort_values(ascending=False, kind="stable")
        return ", ".join(f"{name} {share:.0%}" for name, share in shares[:_SHOWN_LANGUAGES].items())
    if measure == "fallback":
        return f"{values.mean():.1%}"
    shown = "{:.1%}" if measure == "unknown_words" else "{:,.0f}"
    low, middle, high = map(shown.format, values.quantile([0.1, 0.5, 0.9]))
    return f"{middle} ({low} to {high})"
