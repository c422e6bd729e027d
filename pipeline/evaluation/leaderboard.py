"""Which model is the best, and whether it is any better than no training at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pandas as pd
from pydantic import BaseModel, ConfigDict
from rich.table import Table
from rich.text import Text

from pipeline.errors import Refused
from pipeline.evaluation.intervals import Interval, paired_difference
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.predictions import EXAMPLE, ModelMetrics
from pipeline.evaluation.scores import SCORES, Score
from pipeline.paths import LEADERBOARD
from pipeline.settings import Section

FEW_EXAMPLES = 30  # with fewer, an interval says less than it seems to


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
    test: dict[str, Interval]  # the mean of every score, and how far it may be a matter of chance
    difference: Interval | None  # from the best baseline, on the same test examples; none for itself
    verdict: str


class Leaderboard(Record):
    """All models, the best first. The same predictions always give the same leaderboard."""

    metric: str
    bertscore_model: str
    bertscore_layers: int
    confidence: float  # of every interval
    validation_examples: int
    test_examples: int
    best: str  # the best of those that are not baselines
    best_baseline: str
    best_beats_baselines: bool
    rows: list[Row]

    def row(self, model: str) -> Row:
        """The row of `model`, which takes part."""
        return next(row for row in self.rows if row.model == model)


def build_leaderboard(
    contestants: Sequence[str],
    baselines: Sequence[str],
    metrics: Mapping[str, ModelMetrics],
    predictions: Mapping[str, pd.DataFrame],
    settings: CompareSettings,
    *,
    evaluation: EvaluateSettings,
) -> Leaderboard:
    """Ranks contestants and baselines by the validation mean of the metric, and compares each with the best baseline.

    The comparison is a paired bootstrap on the test split, so what ranked the models does not also judge them.

    Args:
        metrics: of every contestant and baseline, by name.
        predictions: of every contestant and baseline, by name, with both splits.

    Raises:
        Refused: two of them were not evaluated on the same examples, or not with the same BERTScore model; or the
            intervals of one are of another confidence than `evaluation` asks for.
    """
    models = [*baselines, *contestants]
    aligned = _same_examples({model: predictions[model] for model in models})
    reference = metrics[models[0]]
    for model in models:
        _check_bertscore(metrics[model], reference)
        _check_confidence(metrics[model], evaluation)

    def on_validation(model: str) -> float:
        return metrics[model].validation[settings.metric]

    test = {model: scored.loc["test", settings.metric] for model, scored in aligned.items()}
    bootstrap = {"resamples": evaluation.bootstrap, "confidence": evaluation.confidence, "seed": evaluation.seed}
    best = max(contestants, key=on_validation)
    best_baseline = max(baselines, key=on_validation)

    def row(model: str) -> Row:
        difference = (
            None if model == best_baseline else paired_difference(test[model], test[best_baseline], **bootstrap)
        )
        return Row(
            model=model,
            is_baseline=model in baselines,
            validation={score: metrics[model].validation[score] for score in SCORES},
            test={score: metrics[model].on_test(score) for score in SCORES},
            difference=difference,
            verdict=_verdict(difference, best_baseline),
        )

    rows = [row(model) for model in sorted(models, key=on_validation, reverse=True)]
    beats = next(row.difference for row in rows if row.model == best).low > 0
    return Leaderboard(
        metric=settings.metric,
        bertscore_model=reference.bertscore_model,
        bertscore_layers=reference.bertscore_layers,
        confidence=evaluation.confidence,
        validation_examples=len(aligned[best].loc["validation"]),
        test_examples=len(aligned[best].loc["test"]),
        best=best,
        best_baseline=best_baseline,
        best_beats_baselines=beats,
        rows=rows,
    )


def _same_examples(predictions: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    aligned = {model: scored.set_index(EXAMPLE).sort_index() for model, scored in predictions.items()}
    first, reference = next(iter(aligned.items()))
    for model, scored in aligned.items():
        if not scored.index.equals(reference.index) or scored["title"].tolist() != reference["title"].tolist():
            raise Refused(
                f"'{model}' was not evaluated on the same examples as '{first}', so the two cannot be compared. "
                f"Evaluate '{model}' again: `dvc repro` runs whatever is out of date."
            )
    return aligned


def _check_bertscore(metrics: ModelMetrics, reference: ModelMetrics) -> None:
    used = (metrics.bertscore_model, metrics.bertscore_layers)
    if used != (reference.bertscore_model, reference.bertscore_layers):
        raise Refused(
            f"'{metrics.model}' was scored with BERTScore's model '{used[0]}', layer {used[1]}, "
            f"and '{reference.model}' with '{reference.bertscore_model}', layer {reference.bertscore_layers}. "
            f"Evaluate '{metrics.model}' again: `dvc repro` runs whatever is out of date."
        )


def _check_confidence(metrics: ModelMetrics, evaluation: EvaluateSettings) -> None:
    if metrics.confidence != evaluation.confidence:
        raise Refused(
            f"'{metrics.model}' was measured with intervals of {metrics.confidence:.0%}, and evaluate.confidence is "
            f"{evaluation.confidence} now. Evaluate it again: `dvc repro` runs whatever is out of date."
        )


def _verdict(difference: Interval | None, best_baseline: str) -> str:
    if difference is None:
        return "the best baseline"
    return "beats the best baseline" if difference.low > 0 else f"no better than the best baseline ({best_baseline})"


def read_leaderboard(path: Path = LEADERBOARD) -> Leaderboard:
    """The leaderboard that the compare stage wrote.

    Raises:
        Refused: it is not there, or is not a leaderboard.
    """
    try:
        return Leaderboard.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"{path} is not here: the models have not been compared yet. Run `dvc repro compare`.") from None
    except ValueError as error:
        raise Refused(f"{path} is not a leaderboard: {error}. Run `dvc repro --force compare`.") from None


def headline(leaderboard: Leaderboard) -> str:
    """The result in two sentences."""
    best = leaderboard.row(leaderboard.best)
    if leaderboard.best_beats_baselines:
        verdict = f"It beats the best baseline ({leaderboard.best_baseline}) by {show(best.difference)}."
    else:
        verdict = (
            f"It is no better than the best baseline ({leaderboard.best_baseline}), from which it differs by "
            f"{show(best.difference)}: not worth promoting."
        )
    score = f"{leaderboard.metric} {show(best.test[leaderboard.metric])}"
    return f"The best model is {best.model}, with {score} on the test split. {verdict}"


def conditions(leaderboard: Leaderboard) -> str:
    """What the numbers rest on."""
    few = (
        f" With only {leaderboard.test_examples} test examples the intervals say less than they seem to."
        if leaderboard.test_examples < FEW_EXAMPLES
        else ""
    )
    return (
        f"Ranked by {leaderboard.metric} on the validation split ({leaderboard.validation_examples} examples); every "
        f"other number is from the test split ({leaderboard.test_examples} examples). In brackets: "
        f"{leaderboard.confidence:.0%} bootstrap intervals. BERTScore by {leaderboard.bertscore_model}, "
        f"layer {leaderboard.bertscore_layers}.{few}"
    )


def show(interval: Interval) -> str:
    """The mean and its interval in brackets, to three places."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _cells(place: int, row: Row, metric: str) -> list[str]:
    others = [show(row.test[score]) for score in SCORES if score != metric]
    return [
        str(place),
        row.model,
        f"{row.validation[metric]:.3f}",
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
        cells = _cells(place, row, leaderboard.metric)
        lines.append([f"**{cell}**" if row.model == leaderboard.best and cell == row.model else cell for cell in cells])
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)
    return f"# Leaderboard\n\n{headline(leaderboard)}\n\n{table}\n\n{conditions(leaderboard)}\n"


def as_rich_table(leaderboard: Leaderboard) -> Table:
    """The leaderboard for a terminal: the metric alone, with its intervals and verdicts."""
    metric = leaderboard.metric
    # As Text, since rich would read a name in brackets as a style.
    title, caption = Text(headline(leaderboard)), Text(conditions(leaderboard))
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in ("#", "model", f"{metric}, validation", f"{metric}, test", "over the best baseline", "verdict"):
        table.add_column(name, justify="left" if name in ("model", "verdict") else "right")
    for place, row in enumerate(leaderboard.rows, start=1):
        cells = _cells(place, row, metric)
        style = "bold" if row.model == leaderboard.best else "dim" if row.is_baseline else None
        table.add_row(*map(Text, [*cells[:5], cells[-1]]), style=style)
    return table
