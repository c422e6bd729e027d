"""Whether a version may become the champion: rules, each with its numbers, on today's test split."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from pydantic import Field
from rich.table import Table
from rich.text import Text

from pipeline.data.openings import asked
from pipeline.data.split import LEAKS, SplitSettings
from pipeline.errors import Misused, Refused
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.intervals import paired_difference
from pipeline.evaluation.metrics import EvaluateSettings, score_titles
from pipeline.evaluation.scores import ROUGE_SCORES, Score
from pipeline.evaluation.slices import groups
from pipeline.paths import SPLITS
from pipeline.registry.behaviour import Behaviour, BehaviourSettings, behaviours
from pipeline.registry.exposure import Exposure, exposure, unseen_by_all
from pipeline.registry.trial import Gone, Trial, try_version
from pipeline.settings import Section

_STYLES = {"passed": "green", "FAILED": "red", "not judged": "yellow"}


class PromoteSettings(Section):
    """What is asked of a version that is to become the champion."""

    section: ClassVar[str] = "promote"

    approval: Literal["person", "gate"]  # whether the flow `promote` asks a person, once the gate lets a version pass
    metric: Score  # that decides
    confidence: float = Field(gt=0, lt=1)  # of the paired bootstrap
    resamples: int = Field(ge=100)
    slice_drop: float = Field(ge=0)  # of the metric's mean, that a course or a band of lengths may lose
    slice_examples: int = Field(ge=1)  # that a slice must have to be judged
    seconds_a_title: float = Field(gt=0)
    megabytes: float = Field(gt=0)
    behaviour: BehaviourSettings
    seed: int


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
    """On a version, against the champion of its day where there was one to compare with."""

    version: str
    champion: str | None
    rules: list[Rule]

    @property
    def passed(self) -> bool:
        return all(rule.passed for rule in self.rules)

    @property
    def _against(self) -> str:
        return f"the champion, version {self.champion}" if self.champion else "the baselines alone"

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
    """What the rules look at. The scores are the metric's, one a test example, in the order of `test`."""

    test: pd.DataFrame  # course_title, text
    challenger: Sequence[float]
    champion: Sequence[float] | None
    baselines: dict[str, Sequence[float]]
    trial: Trial  # its titles: of the behaviours' texts
    behaviours: Sequence[Behaviour]


def judge(name: str, version: ModelVersion, champion: ModelVersion | None, settings: PromoteSettings) -> Verdict:
    """Try `version` of `name`, and the champion, as they are served.

    Scores are compared on the test examples that neither version has seen, since a version that has learnt from an
    example, or was selected by it, scores better on it than on a new lesson. Where too few are left, the comparison
    fails as on any test split that is too small; where none is left, the version does not pass. Behaviour and speed are
    judged on the whole test split.

    Raises:
        Misused: there is no test split here.
        Refused: the version does not work at all.
        Unavailable: it, or the champion, could not be tried now.
    """
    train, test = _split("train"), _split("test")
    texts = asked(test)
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

    evidence = Evidence(
        test=test[fair],
        challenger=scores([title_of[text] for text in texts]),
        champion=scores(beside) if beside is not None else None,
        baselines={baseline: scores(titles_of(train, texts)) for baseline, titles_of in BASELINES.items()},
        trial=replace(trial, titles=[title_of[text] for text in probed]),
        behaviours=tried,
    )
    against = str(compared.version) if compared is not None else None
    return Verdict(str(version.version), against, [*rules(evidence, settings), *_seen(exposures), *gone])


def rules(evidence: Evidence, settings: PromoteSettings) -> Iterator[Rule]:
    """Each rule, in the order in which a person would ask."""
    bootstrap = {"resamples": settings.resamples, "confidence": settings.confidence, "seed": settings.seed}
    best = max(evidence.baselines, key=lambda name: sum(evidence.baselines[name]))
    yield _wins(f"beats the best baseline, {best}", evidence.challenger, evidence.baselines[best], bootstrap, settings)
    if evidence.champion is not None:
        yield _wins("beats the champion", evidence.challenger, evidence.champion, bootstrap, settings)
        yield from _slices(evidence, settings)
    titles = iter(evidence.trial.titles)
    for behaviour in evidence.behaviours:
        found = behaviour.look([next(titles) for _ in behaviour.texts])
        yield Rule(behaviour.name, found.enough, found.words)
    seconds, megabytes = evidence.trial.seconds_a_title, evidence.trial.megabytes
    limit = settings.seconds_a_title
    yield Rule(f"takes no more than {limit:g} s a title", seconds <= limit, f"{seconds:.2f} s")
    limit = settings.megabytes
    yield Rule(f"takes no more than {limit:,.0f} MB", megabytes <= limit, f"{megabytes:,.0f} MB")


def _wins(
    rule: str, ours: Sequence[float], theirs: Sequence[float], bootstrap: dict[str, float], settings: PromoteSettings
) -> Rule:
    sure = f"{settings.confidence:.0%} confidence"
    # Of fewer, that all are better is more likely to be chance than the confidence allows; the bootstrap, which draws
    # from them alone, would be sure of a single one.
    fewest = math.ceil(-math.log2(1 - settings.confidence))
    if len(ours) < fewest:
        return Rule(f"{rule}, with {sure}", False, f"{len(ours)} examples; at least {fewest} are needed for {sure}")
    difference = paired_difference(ours, theirs, **bootstrap)
    mean = sum(ours) / len(ours)
    found = (
        f"{settings.metric} {mean:.3f}, better by {difference.mean:+.3f} "
        f"[{difference.low:+.3f}, {difference.high:+.3f}] on {len(ours)} examples"
    )
    return Rule(f"{rule}, with {sure}", difference.low > 0, found)


def _slices(evidence: Evidence, settings: PromoteSettings) -> Iterator[Rule]:
    """One rule a slice, by course and by length, that has examples enough; and one for those that have not."""
    change = np.subtract(evidence.challenger, evidence.champion)
    found = list(groups(evidence.test))
    several = Counter(by for by, *_ in found)
    limit, fewest = f"loses no more than {settings.slice_drop:g}", settings.slice_examples
    small = []
    for by, name, its in found:
        lost, slice_ = change[its], _in_words(by, name)
        if several[by] == 1:
            continue  # it is all of the examples
        if len(lost) >= fewest:
            found_out = f"{lost.mean():+.3f} on {len(lost)} examples"
            yield Rule(f"{limit} on {slice_}", bool(lost.mean() >= -settings.slice_drop), found_out)
        else:
            small.append(f"{slice_} ({len(lost)})")
    if small:
        yield Rule(f"{limit} where there are fewer than {fewest} examples", True, ", ".join(small), judged=False)


def _in_words(by: str, name: str) -> str:
    return name if by == "course" else f"texts of {name.removesuffix(' words')} words"


def _champion_titles(name: str, champion: ModelVersion | None, texts: list[str]) -> tuple[list[str] | None, list[Rule]]:
    """The champion's titles, and a rule that says so where there are none to be had."""
    if champion is None:
        return None, []
    try:
        return try_version(name, str(champion.version), texts).titles, []
    except Gone as error:
        return None, [Rule("is compared with the champion unless that is gone", True, str(error), judged=False)]
    except Refused as error:
        remedy = (
            "Mend that, go back to the champion before with `lectern rollback`, or promote with --force and --because"
        )
        return None, [Rule("is compared with the champion", False, f"{str(error).rstrip('.')}. {remedy}.")]


def _seen(exposures: Mapping[str, Exposure]) -> Iterator[Rule]:
    """What each side has seen of the test split, and whether lessons stand on several sides of it."""
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
        raise Misused(f"{path} is not here, and a version is judged on it. Run `dvc repro split`, or `dvc pull`.")
    return pd.read_parquet(path)
