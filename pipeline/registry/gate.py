"""The gate: rules, each with its numbers, that a version must pass on today's test split to become the champion.

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
from pipeline.data.split import LEAKS, SplitSettings
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
from pipeline.registry.repeated_tests import Look, take_look
from pipeline.registry.seen_test_examples import Exposure, exposure, unseen_by_all
from pipeline.registry.serving_trial import Gone, Trial, try_version
from pipeline.settings import Section

_STYLES = {"passed": "green", "FAILED": "red", "not judged": "yellow"}


class PromoteSettings(Section):
    """What is asked of a version that is to become the champion."""

    section: ClassVar[str] = "promote"

    approval: Literal["person", "gate"]  # whether the flow `promote` asks a person, once the gate lets a version pass
    metric: Score  # that decides
    seconds_a_title: float = Field(gt=0)
    megabytes: float = Field(gt=0)
    behaviour: BehaviourSettings


@dataclass(frozen=True)
class Rule:
    """What is asked, what was found, and whether that is enough."""

    rule: str
    passed: bool
    found: str
    judged: bool = True  # False: there is too little to judge by, or nothing, which stops nobody

    @property
    def mark(self) -> str:
        return ("passed" if self.passed else "FAILED") if self.judged else "not judged"


@dataclass(frozen=True)
class Verdict:
    """The outcome of all rules for a version, against the champion of its day where there was one to compare with."""

    version: str
    champion: str | None
    rules: list[Rule]
    look: Look | None = None  # at the test split

    @property
    def passed(self) -> bool:
        return all(rule.passed for rule in self.rules)

    @property
    def _against(self) -> str:
        champion = f"the champion, version {self.champion}" if self.champion else "the baselines alone"
        return f"{champion}: {self.look}" if self.look else champion

    def in_words(self) -> str:
        """A line for each rule that is broken."""
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
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True)
class Evidence:
    """Input of the rules. The scores are the metric's, one per test example, in the order of `test`."""

    test: pd.DataFrame  # course_title, lesson_num, text
    unit: Unit  # that varies independently
    alpha: float  # chance of a wrong claim over all looks at this test split
    level: float  # chance of a wrong claim in this look
    challenger: Sequence[float]
    champion: Sequence[float] | None
    baselines: dict[str, Sequence[float]]
    trial: Trial  # its titles: of the behaviours' texts
    behaviours: Sequence[Behaviour]


def judge(name: str, version: ModelVersion, champion: ModelVersion | None, settings: PromoteSettings) -> Verdict:
    """Try `version` of `name`, and the champion, as they are served.

    The registered model counts this look at the test split, if it can claim anything.

    Scores are compared on the test examples that neither version has seen, since a version that has learnt from an
    example, or was selected by it, scores better on it than on a new lesson. Where too few are left, the comparison
    fails as on any test split that is too small; where none is left, the version does not pass. Behaviour and speed are
    judged on the whole test split.

    Raises:
        UsageError: there is no test split here.
        Rejected: the version does not work at all.
        TemporaryFailure: it, or the champion, could not be tried now.
    """
    train, test = _split("train"), _split("test")
    texts = marked_texts(test)
    tried = behaviours(texts, settings.behaviour)
    probed = [text for behaviour in tried for text in behaviour.texts]
    wanted = list(dict.fromkeys([*texts, *probed]))
    trial = try_version(name, str(version.version), wanted)
    title_of = dict(zip(wanted, trial.titles, strict=True))
    scoring = EvaluateSettings.read()

    beside, gone = _champion_titles(name, champion, texts)
    compared = champion if beside is not None else None
    exposures = {
        who: exposure(one, test) for who, one in (("challenger", version), ("champion", compared)) if one is not None
    }
    unseen = unseen_by_all(exposures.values())
    fair = unseen if unseen.any() else ~unseen  # `_seen` fails then

    def scores(titles: Sequence[str]) -> list[float]:
        found = score_titles(titles, test["title"].tolist(), scoring, bertscore=settings.metric not in ROUGE_SCORES)
        return found.loc[fair, settings.metric].tolist()

    challenger = scores([title_of[text] for text in texts])
    champions = scores(beside) if beside is not None else None
    baselines = {baseline: scores(titles_of(train, texts)) for baseline, titles_of in BASELINES.items()}
    alpha, unit = 1 - scoring.confidence, read_unit()
    question = _question(version, compared, settings.metric, unit, scoring)
    units = len(np.unique(units_of(test[unseen], unit)))
    look = take_look(MlflowClient(), name, question, digest_of(test), units=units, alpha=alpha)
    evidence = Evidence(
        test=test[fair],
        unit=unit,
        alpha=alpha,
        level=look.level,
        challenger=challenger,
        champion=champions,
        baselines=baselines,
        trial=replace(trial, titles=[title_of[text] for text in probed]),
        behaviours=tried,
    )
    against = str(compared.version) if compared is not None else None
    return Verdict(str(version.version), against, [*rules(evidence, settings), *_seen(exposures), *gone], look)


def rules(evidence: Evidence, settings: PromoteSettings) -> Iterator[Rule]:
    """Each rule, in the order in which a person would ask."""
    best = max(evidence.baselines, key=lambda name: sum(evidence.baselines[name]))
    yield _beats(f"beats the best baseline, {best}", evidence, evidence.baselines[best], settings.metric)
    if evidence.champion is not None:
        yield _beats("beats the champion", evidence, evidence.champion, settings.metric)
        yield from _slices(evidence)
    titles = iter(evidence.trial.titles)
    for behaviour in evidence.behaviours:
        found = behaviour.look([next(titles) for _ in behaviour.texts])
        yield Rule(behaviour.name, found.enough, found.words)
    seconds, megabytes = evidence.trial.seconds_a_title, evidence.trial.megabytes
    limit = settings.seconds_a_title
    yield Rule(f"takes no more than {limit:g} s a title", seconds <= limit, f"{seconds:.2f} s")
    limit = settings.megabytes
    yield Rule(f"takes no more than {limit:,.0f} MB", megabytes <= limit, f"{megabytes:,.0f} MB")


def _beats(rule: str, evidence: Evidence, theirs: Sequence[float], metric: str) -> Rule:
    ours, unit = evidence.challenger, evidence.unit
    found = compare(ours, theirs, units_of(evidence.test, unit), level=evidence.level)
    if found.finding == "too few":
        return Rule(
            rule,
            False,
            f"too few {unit}s to tell: {found.units} are compared, and a level of {found.level:.2%} needs "
            f"{fewest_units(found.level)}. Give the workbook more lessons",
        )
    return Rule(
        rule,
        found.finding == "better",
        f"{metric} {sum(ours) / len(ours):.3f}, difference {found.mean:+.3f}, at least {found.low:+.3f} "
        f"(p = {found.p_value:.2g}, level {found.level:.2%}) on {_size(len(ours), found.units, unit)}",
    )


def _slices(evidence: Evidence) -> Iterator[Rule]:
    """One rule for each course and each band of lengths with enough lessons, and one that names the others."""
    units, found = units_of(evidence.test, evidence.unit), list(slice_masks(evidence.test))
    several = Counter(by for by, *_ in found)
    found = [(by, name, its) for by, name, its in found if several[by] > 1]  # a single one is all of the examples
    level = level_for_many_tests([len(set(units[its])) for *_, its in found], evidence.alpha)
    ours, theirs, small = np.asarray(evidence.challenger), np.asarray(evidence.champion), []
    for by, name, its in found:
        compared, slice_ = compare(ours[its], theirs[its], units[its], level=level), _in_words(by, name)
        if compared.finding == "too few":
            small.append(f"{slice_} ({count_noun(compared.units, evidence.unit)})")
            continue
        size = _size(int(its.sum()), compared.units, evidence.unit)
        found_out = f"{compared.mean:+.3f}, at most {compared.high:+.3f} (level {level:.2%}) on {size}"
        yield Rule(f"is not worse on {slice_}", compared.finding != "worse", found_out)
    if small:
        rule = f"is not worse where there are fewer than {fewest_units(level)} {evidence.unit}s"
        yield Rule(rule, True, f"too few to tell: {', '.join(small)}", judged=False)


def _size(examples: int, units: int, unit: Unit) -> str:
    return count_noun(examples, "example") + (f" of {count_noun(units, unit)}" if unit == "lesson" else "")


def _in_words(by: str, name: str) -> str:
    return name if by == "course" else f"texts of {name.removesuffix(' words')} words"


def _question(
    version: ModelVersion, champion: ModelVersion | None, metric: Score, unit: Unit, scoring: EvaluateSettings
) -> dict[str, str]:
    """All that decides the scores which are compared on a test split: another choice is another look."""
    against = str(champion.version) if champion else "baselines"
    question = {"version": str(version.version), "against": against, "metric": metric, "unit": unit}
    if metric not in ROUGE_SCORES:
        question["bertscore"] = f"{scoring.bertscore_model}, layer {scoring.bertscore_layers}"
    return question


def _champion_titles(name: str, champion: ModelVersion | None, texts: list[str]) -> tuple[list[str] | None, list[Rule]]:
    """The champion's titles, and a rule that says so where there are none to be had."""
    if champion is None:
        return None, []
    try:
        return try_version(name, str(champion.version), texts).titles, []
    except Gone as error:
        return None, [Rule("is compared with the champion unless that is gone", True, str(error), judged=False)]
    except Rejected as error:
        remedy = (
            "Mend that, go back to the champion before with `lectern rollback`, or promote with --force and --because"
        )
        return None, [Rule("is compared with the champion", False, f"{str(error).rstrip('.')}. {remedy}.")]


def _seen(exposures: Mapping[str, Exposure]) -> Iterator[Rule]:
    """Report the test examples that each side has seen, and a split that divides lessons."""
    for who, one in exposures.items():
        clean = not one.unknown and not one.seen.any()
        yield Rule(f"the {who} has not seen these examples", True, one.in_words(), judged=clean)
    unseen = unseen_by_all(exposures.values())
    if not unseen.all():
        found = f"{unseen.sum()} of {len(unseen)} test examples are compared; seen ones are left out"
        if not unseen.any():
            found = "each test example is a seen one. Give the workbook new lessons, or train from another checkpoint"
        yield Rule("is compared on unseen examples", bool(unseen.any()), found)
    if SplitSettings.read().by == "random":
        yield Rule("neighbouring topics of these examples were not trained on", True, LEAKS, judged=False)


def _split(name: str) -> pd.DataFrame:
    path = SPLITS / f"{name}.parquet"
    if not path.exists():
        raise UsageError(f"{path} is not here, and a version is judged on it. Run `dvc repro split`, or `dvc pull`.")
    return pd.read_parquet(path)
