"""The gate: the rules that a version must pass on the current test split to become the champion.

docs/measuring.md explains the statistics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from pydantic import Field
from rich.table import Table
from rich.text import Text

from pipeline.data.lesson_openings import marked_texts
from pipeline.data.split import LEAKS
from pipeline.errors import Rejected, UsageError
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.comparison import compare, fewest_units, level_for_many_tests
from pipeline.evaluation.intervals import Unit, count_noun, read_unit, units_of
from pipeline.evaluation.metrics import EvaluateSettings, score_titles
from pipeline.evaluation.score_names import ROUGE_SCORES, Score
from pipeline.evaluation.slices import slice_masks
from pipeline.models.seen_examples import digest_of
from pipeline.paths import SPLITS
from pipeline.registry.behaviour import Behaviour, BehaviourSettings, behaviours
from pipeline.registry.boundary_rule import compare_boundaries
from pipeline.registry.joint_rule import compare_whole_lessons
from pipeline.registry.repeated_tests import NumberedComparison, number_comparison
from pipeline.registry.seen_test_examples import SeenTestExamples, find_seen, unseen_by_all
from pipeline.registry.serving_trial import Trial, VersionFilesMissing, try_version
from pipeline.registry.talk_title_rules import compare_talk_titles
from pipeline.settings import Section

_STYLES = {"passed": "green", "FAILED": "red", "not judged": "yellow"}


class PromoteSettings(Section):
    """The section `promote` of params.yaml."""

    section: ClassVar[str] = "promote"

    approval: Literal["person", "gate"]  # person: after the gate passes, the flow `promote` waits for a person's yes
    metric: Score  # that the comparisons use
    seconds_a_title: float = Field(gt=0)
    megabytes: float = Field(gt=0)
    behaviour: BehaviourSettings


@dataclass(frozen=True)
class Rule:
    """One rule of the gate and its result."""

    rule: str
    passed: bool
    found: str
    judged: bool = True  # False: the data cannot decide; the rule then counts as passed

    @property
    def mark(self) -> str:
        return ("passed" if self.passed else "FAILED") if self.judged else "not judged"


@dataclass(frozen=True)
class Verdict:
    """The results of all rules for a version."""

    version: str
    champion: str | None  # the version that it was compared with
    rules: list[Rule]
    comparison: NumberedComparison | None = None

    @property
    def passed(self) -> bool:
        return all(rule.passed for rule in self.rules)

    @property
    def _against(self) -> str:
        champion = f"the champion, version {self.champion}" if self.champion else "the baselines only"
        return f"{champion}: {self.comparison}" if self.comparison else champion

    def failures(self) -> str:
        """Return a line for each rule that failed."""
        return "\n".join(f"  {rule.rule}: {rule.found}" for rule in self.rules if not rule.passed)

    def as_table(self) -> Table:
        title = f"Version {self.version} against {self._against}"
        table = Table("rule", "", "found", title=title, title_justify="left")
        for rule in self.rules:
            table.add_row(Text(rule.rule), Text(rule.mark, style=_STYLES[rule.mark]), Text(rule.found))
        return table

    def as_markdown(self) -> str:
        lines = [f"Version {self.version} against {self._against}:", "", "| rule | | found |", "|---|---|---|"]
        cells = ((rule.rule, rule.mark.replace("FAILED", "**failed**"), rule.found) for rule in self.rules)
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        fields = asdict(self)
        comparison = fields.pop("comparison")
        return {"passed": self.passed, **fields, "look": comparison}


@dataclass(frozen=True)
class Evidence:
    """Input of the rules. The scores are of `settings.metric`, one per test example, in the order of `test`."""

    test: pd.DataFrame  # course_title, lesson_num, text
    unit: Unit  # the independent unit
    alpha: float  # chance of a wrong claim over all comparisons on this test split
    level: float  # chance of a wrong claim in this comparison
    challenger: Sequence[float]
    champion: Sequence[float] | None
    baselines: Mapping[str, Sequence[float]]
    trial: Trial  # with the titles for the texts of `behaviours`
    behaviours: Sequence[Behaviour]


def judge(
    client: MlflowClient, version: ModelVersion, champion: ModelVersion | None, settings: PromoteSettings
) -> Verdict:
    """Try `version` and the champion as they are served, and apply the rules.

    Scores are compared on the test examples that neither version has seen: a version scores too well on an example that
    it has learnt from or was selected by. If too few examples remain, the comparison fails as on any test split that is
    too small. If none remains, the version does not pass. Behaviour and speed are judged on the whole test split.

    The registered model counts the comparison, if the comparison can claim anything.

    Raises:
        UsageError: there is no test split.
        Rejected: the version does not work.
        TemporaryFailure: the version or the champion cannot be tried now.
    """
    train, test = _split("train"), _split("test")
    texts = marked_texts(test)
    tests = behaviours(texts, settings.behaviour)
    behaviour_texts = [text for behaviour in tests for text in behaviour.texts]
    distinct = list(dict.fromkeys([*texts, *behaviour_texts]))
    trial = try_version(version, distinct)
    candidates_for = dict(zip(distinct, trial.candidates, strict=True))
    title_of = {text: candidates[0] for text, candidates in candidates_for.items()}
    scoring = EvaluateSettings.read()

    champion_titles, missing_champion = _champion_titles(champion, texts)
    compared = champion if champion_titles is not None else None
    seen = {"challenger": find_seen(version, test)}
    if compared is not None:
        seen["champion"] = find_seen(compared, test)
    unseen = unseen_by_all(seen.values())
    used = unseen if unseen.any() else ~unseen  # if none is unseen, `_seen_rules` fails the version anyway

    def scores(titles: Sequence[str]) -> list[float]:
        found = score_titles(titles, test["title"].tolist(), scoring, bertscore=settings.metric not in ROUGE_SCORES)
        return found.loc[used, settings.metric].tolist()

    alpha, unit = 1 - scoring.confidence, read_unit()
    question = _question(version, compared, settings.metric, unit, scoring)
    units = len(np.unique(units_of(test[unseen], unit)))
    comparison = number_comparison(client, version.name, question, digest_of(test), units=units, alpha=alpha)
    evidence = Evidence(
        test=test[used],
        unit=unit,
        alpha=alpha,
        level=comparison.level,
        challenger=scores([title_of[text] for text in texts]),
        champion=scores(champion_titles) if champion_titles is not None else None,
        baselines={name: scores(write(train, texts)) for name, write in BASELINES.items()},
        trial=replace(trial, candidates=[candidates_for[text] for text in behaviour_texts]),
        behaviours=tests,
    )
    found = [*rules(evidence, settings), *_seen_rules(seen, unit), *missing_champion]
    talks = compare_talk_titles(test, [candidates_for[text] for text in texts], settings.behaviour, unit, level=alpha)
    found += [Rule(rule, each.finding != "worse", text, each.finding != "too few") for rule, text, each in talks]
    if compared is not None:
        found += _boundary_rules(version, compared, test, alpha)
        found.append(_joint_rule(version, compared, test, unseen, alpha))
    return Verdict(str(version.version), str(compared.version) if compared else None, found, comparison)


def rules(evidence: Evidence, settings: PromoteSettings) -> Iterator[Rule]:
    """Apply the rules: quality, then behaviour, then speed and size."""
    best = max(evidence.baselines, key=lambda name: sum(evidence.baselines[name]))
    yield _beats(f"beats the best baseline, {best}", evidence, evidence.baselines[best], settings.metric)
    if evidence.champion is not None:
        yield _beats("beats the champion", evidence, evidence.champion, settings.metric)
        yield from _slices(evidence)
    titles = iter(evidence.trial.titles)
    for behaviour in evidence.behaviours:
        found = behaviour.check([next(titles) for _ in behaviour.texts])
        yield Rule(behaviour.name, found.passed, found.text)
    seconds, megabytes = evidence.trial.seconds_a_title, evidence.trial.megabytes
    limit = settings.seconds_a_title
    yield Rule(f"takes no more than {limit:g} s a title", seconds <= limit, f"{seconds:.2f} s")
    limit = settings.megabytes
    yield Rule(f"takes no more than {limit:,.0f} MB", megabytes <= limit, f"{megabytes:,.0f} MB")


def _beats(rule: str, evidence: Evidence, other: Sequence[float], metric: str) -> Rule:
    own, unit = evidence.challenger, evidence.unit
    found = compare(own, other, units_of(evidence.test, unit).tolist(), level=evidence.level)
    if found.finding == "too few":
        return Rule(
            rule,
            False,
            f"too few {unit}s to tell: {found.units} are compared, and a level of {found.level:.2%} needs "
            f"{fewest_units(found.level)}. Add lessons to the workbook",
        )
    return Rule(
        rule,
        found.finding == "better",
        f"{metric} {sum(own) / len(own):.3f}, difference {found.mean:+.3f}, at least {found.low:+.3f} "
        f"(p = {found.p_value:.2g}, level {found.level:.2%}) on {_size(len(own), found.units, unit)}",
    )


def _slices(evidence: Evidence) -> Iterator[Rule]:
    """Return one rule for each course and each range of lengths with enough lessons, and one for all the others."""
    units, found = units_of(evidence.test, evidence.unit), list(slice_masks(evidence.test))
    slices_by = Counter(by for by, *_ in found)
    found = [(by, name, rows) for by, name, rows in found if slices_by[by] > 1]  # a single slice has all examples
    level = level_for_many_tests([len(set(units[rows])) for *_, rows in found], evidence.alpha)
    own, other, small = np.asarray(evidence.challenger), np.asarray(evidence.champion), []
    for by, name, rows in found:
        compared = compare(own[rows].tolist(), other[rows].tolist(), units[rows].tolist(), level=level)
        slice_ = _slice_name(by, name)
        if compared.finding == "too few":
            small.append(f"{slice_} ({count_noun(compared.units, evidence.unit)})")
            continue
        size = _size(int(rows.sum()), compared.units, evidence.unit)
        numbers = f"{compared.mean:+.3f}, at most {compared.high:+.3f} (level {level:.2%}) on {size}"
        yield Rule(f"is not worse on {slice_}", compared.finding != "worse", numbers)
    if small:
        rule = f"is not worse on slices with fewer than {fewest_units(level)} {evidence.unit}s"
        yield Rule(rule, True, f"too few to tell: {', '.join(small)}", judged=False)


def _size(examples: int, units: int, unit: Unit) -> str:
    return count_noun(examples, "example") + (f" of {count_noun(units, unit)}" if unit == "lesson" else "")


def _slice_name(by: str, name: str) -> str:
    return name if by == "course" else f"texts of {name.removesuffix(' words')} words"


def _question(
    version: ModelVersion, champion: ModelVersion | None, metric: Score, unit: Unit, scoring: EvaluateSettings
) -> dict[str, str]:
    """Return everything that decides the compared scores. A different question is a different comparison."""
    against = str(champion.version) if champion else "baselines"
    question = {"version": str(version.version), "against": against, "metric": metric, "unit": unit}
    if metric not in ROUGE_SCORES:
        question["bertscore"] = f"{scoring.bertscore_model}, layer {scoring.bertscore_layers}"
    return question


def _champion_titles(champion: ModelVersion | None, texts: list[str]) -> tuple[list[str] | None, list[Rule]]:
    """Return the champion's titles, or None and a rule that says why it has none."""
    if champion is None:
        return None, []
    rule = "is compared with the champion"
    try:
        return try_version(champion, texts).titles, []
    except VersionFilesMissing as error:
        return None, [Rule(rule, True, str(error), judged=False)]
    except Rejected as error:
        remedy = "Repair it, return to the previous champion with `lectern rollback`, or use --force with --because."
        return None, [Rule(rule, False, f"{str(error).rstrip('.')}. {remedy}")]


def _boundary_rules(version: ModelVersion, champion: ModelVersion, test: pd.DataFrame, alpha: float) -> Iterator[Rule]:
    for text, found in compare_boundaries(version, champion, test, level=alpha):
        judged = found is not None and found.finding != "too few"
        yield Rule("finds chapters no worse than the champion", not found or found.finding != "worse", text, judged)


def _joint_rule(
    version: ModelVersion, champion: ModelVersion, test: pd.DataFrame, unseen: np.ndarray, alpha: float
) -> Rule:
    text, found = compare_whole_lessons(version, champion, test, unseen, level=alpha)
    worse = found is not None and found.finding == "worse"
    return Rule("writes whole lessons no worse than the champion", not worse, text, judged=found is not None)


def _seen_rules(seen: Mapping[str, SeenTestExamples], unit: Unit) -> Iterator[Rule]:
    """Report the test examples that each version has seen, and a split that divides lessons."""
    for who, one in seen.items():
        clean = not one.unknown and not one.seen.any()
        yield Rule(f"the {who} has not seen these examples", True, one.summary(), judged=clean)
    unseen = unseen_by_all(seen.values())
    if not unseen.all():
        found = f"{unseen.sum()} of {len(unseen)} test examples are compared; the others have been seen"
        if not unseen.any():
            found = "all test examples have been seen. Add lessons to the workbook, or train from another checkpoint"
        yield Rule("is compared on unseen examples", bool(unseen.any()), found)
    if unit == "example":
        yield Rule("neighbouring topics of these examples were not trained on", True, LEAKS, judged=False)


def _split(name: str) -> pd.DataFrame:
    path = SPLITS / f"{name}.parquet"
    if not path.exists():
        raise UsageError(f"{path} is missing; versions are judged on it. Run `dvc repro split` or `dvc pull`.")
    return pd.read_parquet(path)
