"""The leaderboard: the best model, and whether it beats the baselines. docs/measuring.md explains the rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict
from rich.table import Table
from rich.text import Text

from pipeline.errors import Rejected
from pipeline.evaluation.comparison import Comparison, compare, fewest_units
from pipeline.evaluation.intervals import Interval, Unit, counted, standard_error, totals, units_of
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.predictions import EXAMPLE, ModelMetrics
from pipeline.evaluation.scores import SCORES, Score
from pipeline.paths import LEADERBOARD
from pipeline.settings import Section


class CompareSettings(Section):
    """How models are ranked."""

    section: ClassVar[str] = "compare"

    metric: Score  # models are ranked by its mean on the validation split


class Record(BaseModel):
    """What is written once and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(Record):
    """One model's place."""

    model: str
    is_baseline: bool
    validation: dict[str, float]  # the mean of every score
    tied: bool  # no other model is better on the validation split with confidence; always false for a baseline
    test: dict[str, Interval]  # the mean of every score with its interval
    difference: Comparison | None  # from the best baseline, on the same test examples; none for itself
    verdict: str
    seen_validation: int = 0  # validation examples that it was trained on, so that its mean there is too good
    seen_test: int = 0  # test examples that it was trained or selected on


class Leaderboard(Record):
    """All models, the best first. The same predictions always give the same leaderboard."""

    metric: str
    bertscore_model: str
    bertscore_layers: int
    confidence: float  # of every interval and every claim
    unit: Unit  # that varies independently
    validation_examples: int
    validation_lessons: int
    validation_needed: int  # units without which no two models can be told apart on the validation split
    test_examples: int
    test_lessons: int
    leader: str  # the model with the best mean on the validation split, of those that may be registered
    best: str  # the model to register: the leader, or a smaller one within a standard error of it
    best_baseline: str
    best_beats_baselines: bool
    rows: list[Row]

    def row(self, model: str) -> Row:
        """The row of `model`, which takes part."""
        return next(row for row in self.rows if row.model == model)

    @property
    def ties(self) -> list[str]:
        """The models that cannot be told apart from the leader on the validation split, the leader first."""
        return [row.model for row in self.rows if row.tied]

    @property
    def validation_tells(self) -> bool:
        """True if the validation split has enough units to tell two models apart."""
        units = self.validation_lessons if self.unit == "lesson" else self.validation_examples
        return units >= self.validation_needed


def build_leaderboard(
    contestants: Sequence[str],
    baselines: Sequence[str],
    metrics: Mapping[str, ModelMetrics],
    predictions: Mapping[str, pd.DataFrame],
    settings: CompareSettings,
    *,
    evaluation: EvaluateSettings,
    parameters: Mapping[str, int],
) -> Leaderboard:
    """Order models by the validation mean of the metric, choose the best, and compare each with the best baseline.

    The comparison with the baseline is made on the test split, which has no part in the order or the choice. A model
    that was trained on validation examples is not chosen where another one was not.

    Args:
        metrics: of every contestant and baseline, by name.
        predictions: of every contestant and baseline, by name, with both splits.
        parameters: the number of weights of every contestant, by name.

    Raises:
        Rejected: two models were not evaluated on the same examples or with the same BERTScore model, or the intervals
            of one have another confidence than `evaluation` asks for, or another unit than those of the others.
    """
    models = [*baselines, *contestants]
    aligned = _same_examples({model: predictions[model] for model in models})
    reference = metrics[models[0]]
    unit = reference.unit
    for model in models:
        _check_bertscore(metrics[model], reference)
        _check_intervals(metrics[model], reference, evaluation)

    def on_validation(model: str) -> float:
        return metrics[model].validation[settings.metric]

    validation, test = (
        {model: scored.loc[split, settings.metric].to_numpy() for model, scored in aligned.items()}
        for split in ("validation", "test")
    )
    validation_units, test_units = (
        units_of(aligned[models[0]].loc[split].reset_index(), unit) for split in ("validation", "test")
    )
    level = 1 - evaluation.confidence
    eligible = [model for model in contestants if not metrics[model].seen_validation] or contestants
    level_of_a_tie = level / max(1, len(eligible) - 1)
    leader, best_baseline = max(eligible, key=on_validation), max(baselines, key=on_validation)
    scores = {model: validation[model] for model in eligible}
    tied = _tied(leader, scores, validation_units, level_of_a_tie)
    best = _smallest_near(leader, {model: scores[model] for model in tied}, validation_units, parameters)

    def row(model: str) -> Row:
        against = None if model == best_baseline else test[best_baseline]
        difference = None if against is None else compare(test[model], against, test_units, level=level)
        return Row(
            model=model,
            is_baseline=model in baselines,
            validation={score: metrics[model].validation[score] for score in SCORES},
            tied=model in tied,
            test={score: metrics[model].on_test(score) for score in SCORES},
            difference=difference,
            verdict=_verdict(difference, best_baseline, unit),
            seen_validation=metrics[model].seen_validation,
            seen_test=metrics[model].seen_test,
        )

    rows = [row(model) for model in sorted(models, key=on_validation, reverse=True)]
    difference = next(row.difference for row in rows if row.model == best)
    return Leaderboard(
        metric=settings.metric,
        bertscore_model=reference.bertscore_model,
        bertscore_layers=reference.bertscore_layers,
        confidence=evaluation.confidence,
        unit=unit,
        validation_examples=len(validation_units),
        validation_lessons=reference.validation["lessons"],
        validation_needed=fewest_units(level_of_a_tie),
        test_examples=len(test_units),
        test_lessons=reference.test["lessons"],
        leader=leader,
        best=best,
        best_baseline=best_baseline,
        best_beats_baselines=difference.finding == "better",
        rows=rows,
    )


def _tied(leader: str, scores: Mapping[str, np.ndarray], units: np.ndarray, level: float) -> list[str]:
    """The leader and the models that are not worse than it with confidence.

    With `level` divided among the leader's rivals, the truly best model is among them with the stated confidence,
    whichever model happens to lead.
    """
    found = {model: compare(scores[leader], own, units, level=level).finding for model, own in scores.items()}
    return [model for model in scores if model == leader or found[model] != "better"]


def _smallest_near(
    leader: str, scores: Mapping[str, np.ndarray], units: np.ndarray, parameters: Mapping[str, int]
) -> str:
    """The model with the fewest parameters within a standard error of the leader; of equally large ones, the better.

    The one-standard-error rule of Breiman et al., 1984, "Classification and Regression Trees", section 3.4.3, with the
    standard error of the paired difference. A single unit has none, and then the leader is taken.
    """
    behind = {model: totals(scores[leader] - own, units) for model, own in scores.items()}
    near = [model for model, lag in behind.items() if model == leader or lag.mean <= standard_error(lag)]
    return min(near, key=lambda model: (parameters[model], behind[model].mean, model != leader))


def _same_examples(predictions: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    aligned = {model: scored.set_index(EXAMPLE).sort_index() for model, scored in predictions.items()}
    first, reference = next(iter(aligned.items()))
    for model, scored in aligned.items():
        if not scored.index.equals(reference.index) or scored["title"].tolist() != reference["title"].tolist():
            raise Rejected(
                f"'{model}' was not evaluated on the same examples as '{first}', so the two cannot be compared. "
                f"Evaluate '{model}' again: `dvc repro` runs whatever is out of date."
            )
    return aligned


def _check_bertscore(metrics: ModelMetrics, reference: ModelMetrics) -> None:
    used = (metrics.bertscore_model, metrics.bertscore_layers)
    if used != (reference.bertscore_model, reference.bertscore_layers):
        raise Rejected(
            f"'{metrics.model}' was scored with BERTScore's model '{used[0]}', layer {used[1]}, "
            f"and '{reference.model}' with '{reference.bertscore_model}', layer {reference.bertscore_layers}. "
            f"Evaluate '{metrics.model}' again: `dvc repro` runs whatever is out of date."
        )


def _check_intervals(metrics: ModelMetrics, reference: ModelMetrics, evaluation: EvaluateSettings) -> None:
    if metrics.confidence != evaluation.confidence:
        raise Rejected(
            f"'{metrics.model}' was measured with intervals of {metrics.confidence:.0%}, and evaluate.confidence is "
            f"{evaluation.confidence} now. Evaluate it again: `dvc repro` runs whatever is out of date."
        )
    if metrics.unit != reference.unit:
        raise Rejected(
            f"The intervals of '{metrics.model}' were computed over {metrics.unit}s, those of '{reference.model}' over "
            f"{reference.unit}s. Evaluate both again: `dvc repro` runs whatever is out of date."
        )


def _verdict(difference: Comparison | None, best_baseline: str, unit: Unit) -> str:
    if difference is None:
        return "the best baseline"
    return {
        "better": "beats the best baseline",
        "worse": f"worse than the best baseline ({best_baseline})",
        "not told apart": f"not told apart from the best baseline ({best_baseline})",
        "too few": f"too few {unit}s to tell",
    }[difference.finding]


def read_leaderboard(path: Path = LEADERBOARD) -> Leaderboard:
    """The leaderboard that the compare stage wrote.

    Raises:
        Rejected: it is not there, or is not a leaderboard.
    """
    try:
        return Leaderboard.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Rejected(f"{path} is not here: the models have not been compared yet. Run `dvc repro compare`.") from None
    except ValueError as error:
        raise Rejected(f"{path} is not a leaderboard: {error}. Run `dvc repro --force compare`.") from None


def headline(leaderboard: Leaderboard) -> str:
    """The result in a few sentences."""
    best, unit = leaderboard.row(leaderboard.best), leaderboard.unit
    baseline, difference = f"the best baseline ({leaderboard.best_baseline})", best.difference
    verdict = {
        "better": f"It beats {baseline} by {show(difference)}.",
        "worse": f"It is worse than {baseline}, by {show(difference)}: not worth promoting.",
        "not told apart": f"It is not told apart from {baseline}, from which it differs by {show(difference)}: "
        "not worth promoting.",
        "too few": f"There are too few {unit}s to tell whether it beats {baseline}: it differs by "
        f"{difference.mean:.3f} on {counted(difference.units, f'test {unit}')}, and "
        f"{fewest_units(difference.level)} are needed.",
    }[difference.finding]
    chosen = (
        ""
        if leaderboard.best == leaderboard.leader
        else f" It was taken instead of {leaderboard.leader}, whose mean on the validation split is better by less "
        "than a standard error, because it has fewer parameters."
    )
    score = f"{leaderboard.metric} {show(best.test[leaderboard.metric])}"
    seen = (
        f" It has seen {best.seen_test} of the {counted(leaderboard.test_examples, 'test example')}, so its score is "
        "too good."
        if best.seen_test
        else ""
    )
    return f"The best model is {best.model}, with {score} on the test split. {verdict}{chosen}{seen}"


def conditions(leaderboard: Leaderboard) -> str:
    """Describe the data and the method behind the numbers, and their limits."""
    board, unit = leaderboard, leaderboard.unit
    validation = counted(board.validation_examples, "example"), counted(board.validation_lessons, "lesson")
    test = counted(board.test_examples, "example"), counted(board.test_lessons, "lesson")
    why = "" if unit == "lesson" else ", because split.by is random"
    return " ".join(
        [
            f"Ordered by {board.metric} on the validation split ({' of '.join(validation)}); every other number is "
            f"from the test split ({' of '.join(test)}).",
            f"In brackets: of a score its {board.confidence:.0%} interval; of a difference its lower and its upper "
            f"{board.confidence:.0%} bound. Both take {unit}s for the independent units{why} (docs/measuring.md).",
            *_about_seen_examples(board),
            *_about_ties(board),
            f"BERTScore by {board.bertscore_model}, layer {board.bertscore_layers}.",
        ]
    )


def _about_seen_examples(board: Leaderboard) -> Iterator[str]:
    best = board.row(board.best)
    for row in board.rows:
        found = []
        if row.seen_validation:
            count = counted(board.validation_examples, "validation example")
            found.append(f"trained on {row.seen_validation} of the {count}")
        if row.seen_test:
            count = counted(board.test_examples, "test example")
            found.append(f"trained or selected on {row.seen_test} of the {count}")
        if found:
            yield (
                f"{row.model}, or a model that it started from, was {', and '.join(found)}: its scores there are too "
                "good."
            )
        if row.seen_validation and not best.seen_validation:
            yield "It is not taken as the best model, because others have not been trained on validation examples."


def _about_ties(board: Leaderboard) -> Iterator[str]:
    if len(board.ties) < 2:
        return
    if board.validation_tells:
        yield f"The validation split does not tell {_listed(board.ties)} apart."
    else:
        units = board.validation_lessons if board.unit == "lesson" else board.validation_examples
        yield (
            f"Warning: the validation split has only {counted(units, board.unit)}, and {board.validation_needed} are "
            "needed to tell the models apart, so their order may be chance. Give the workbook more lessons, or raise "
            "split.validation in params.yaml."
        )
    yield "Of the tied models within a standard error of the best mean, the one with the fewest parameters is taken."


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def show(interval: Interval | Comparison) -> str:
    """The mean with its two ends in brackets, to three places."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _cells(place: int, row: Row, metric: str, *, has_ties: bool) -> list[str]:
    others = [show(row.test[score]) for score in SCORES if score != metric]
    return [
        str(place),
        row.model,
        f"{row.validation[metric]:.3f}{' (tied)' if row.tied and has_ties else ''}",
        show(row.test[metric]),
        show(row.difference) if row.difference else "-",
        *others,
        row.verdict,
    ]


def _header(metric: str) -> list[str]:
    others = [score.replace("bertscore_", "BERTScore ") for score in SCORES if score != metric]
    return ["#", "model", f"{metric}, validation", f"{metric}, test", "over the best baseline", *others, "verdict"]


def as_markdown(leaderboard: Leaderboard) -> str:
    """The leaderboard as a Markdown page."""
    lines = [_header(leaderboard.metric)]
    lines.append(["---"] * len(lines[0]))
    for place, row in enumerate(leaderboard.rows, start=1):
        cells = _cells(place, row, leaderboard.metric, has_ties=len(leaderboard.ties) > 1)
        lines.append([f"**{cell}**" if row.model == leaderboard.best and cell == row.model else cell for cell in cells])
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)
    return f"# Leaderboard\n\n{headline(leaderboard)}\n\n{table}\n\n{conditions(leaderboard)}\n"


def as_rich_table(leaderboard: Leaderboard) -> Table:
    """The leaderboard for a terminal: the metric with its intervals and verdicts."""
    metric = leaderboard.metric
    # As Text, since rich would read a name in brackets as a style.
    title, caption = Text(headline(leaderboard)), Text(conditions(leaderboard))
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in ("#", "model", f"{metric}, validation", f"{metric}, test", "over the best baseline", "verdict"):
        table.add_column(name, justify="left" if name in ("model", "verdict") else "right")
    for place, row in enumerate(leaderboard.rows, start=1):
        cells = _cells(place, row, metric, has_ties=len(leaderboard.ties) > 1)
        style = "bold" if row.model == leaderboard.best else "dim" if row.is_baseline else None
        table.add_row(*map(Text, [*cells[:5], cells[-1]]), style=style)
    return table
