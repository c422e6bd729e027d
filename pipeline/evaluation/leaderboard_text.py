"""Describe a leaderboard in words, and format it as Markdown or as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from pipeline.evaluation.comparison import Comparison, fewest_units, format_interval
from pipeline.evaluation.intervals import count_noun
from pipeline.evaluation.leaderboard import FEW_EXAMPLES, Leaderboard, Row
from pipeline.evaluation.score_names import SCORES

if TYPE_CHECKING:
    from pipeline.evaluation.costs import Cost
    from pipeline.evaluation.joint_board import JointBoard


def headline(leaderboard: Leaderboard) -> str:
    """Return the result in a few sentences."""
    best = leaderboard.row(leaderboard.best)
    score = format_interval(best.test[leaderboard.metric])
    sentences = [f"The best model is {best.model}, with {leaderboard.metric} {score} on the test split."]
    if best.difference:
        sentences.append(_against_baseline(best.difference, leaderboard))
    if leaderboard.best != leaderboard.leader:
        sentences.append(
            f"It was chosen over {leaderboard.leader}, which is better by less than a standard error on the validation "
            "split, because it has fewer parameters."
        )
    if best.seen_test:
        examples = count_noun(leaderboard.test_examples, "test example")
        sentences.append(f"It has seen {best.seen_test} of the {examples}, so its score is too good.")
    return " ".join(sentences)


def _against_baseline(difference: Comparison, leaderboard: Leaderboard) -> str:
    baseline, unit = f"the best baseline ({leaderboard.best_baseline})", leaderboard.unit
    match difference.finding:
        case "better":
            return f"It beats {baseline} by {format_interval(difference)}."
        case "worse":
            return f"It is worse than {baseline} by {format_interval(difference)}: not worth promoting."
        case "not told apart":
            return (
                f"It cannot be told apart from {baseline}; the difference is {format_interval(difference)}: not worth "
                "promoting."
            )
        case "too few":
            return (
                f"There are too few {unit}s to tell whether it beats {baseline}: the difference is "
                f"{difference.mean:.3f} on {count_noun(difference.units, f'test {unit}')}, and "
                f"{fewest_units(difference.level)} are needed."
            )


def conditions(leaderboard: Leaderboard) -> str:
    """Describe the data and the method behind the numbers, and their limits."""
    board, unit = leaderboard, leaderboard.unit
    validation = count_noun(board.validation_examples, "example"), count_noun(board.validation_lessons, "lesson")
    test = count_noun(board.test_examples, "example"), count_noun(board.test_lessons, "lesson")
    reason = "" if unit == "lesson" else ", because split.by is random"
    return " ".join(
        [
            f"Ranked by {board.metric} on the validation split ({' of '.join(validation)}); all other numbers are from "
            f"the test split ({' of '.join(test)}).",
            f"Brackets show the {board.confidence:.0%} interval of a score, or the lower and the upper "
            f"{board.confidence:.0%} bound of a difference. The independent units are {unit}s{reason} "
            "(docs/measuring.md).",
            *_about_seen_examples(board),
            *_about_ties(board),
            *_about_scratch(board),
            *_about_titles(board),
            f"BERTScore is from {board.bertscore_model}, layer {board.bertscore_layers}.",
        ]
    )


def _about_seen_examples(board: Leaderboard) -> Iterator[str]:
    best = board.row(board.best)
    for row in board.rows:
        found = []
        if row.seen_validation:
            count = count_noun(board.validation_examples, "validation example")
            found.append(f"trained on {row.seen_validation} of the {count}")
        if row.seen_test:
            count = count_noun(board.test_examples, "test example")
            found.append(f"trained or selected on {row.seen_test} of the {count}")
        if found:
            yield f"{row.model}, or a model it started from, was {', and '.join(found)}: its scores there are too good."
        if row.seen_validation and not best.seen_validation:
            yield "It cannot be the best model, because other models were not trained on validation examples."


def _about_ties(board: Leaderboard) -> Iterator[str]:
    if board.validation_examples < FEW_EXAMPLES:
        yield (
            f"Warning: the validation split has fewer than {FEW_EXAMPLES} examples, so the ranking may be chance. Add "
            "lessons to the workbook, or raise split.validation in params.yaml."
        )
    if len(board.ties) < 2:
        return
    if board.validation_tells:
        yield f"The validation split cannot tell {_join(board.ties)} apart."
    else:
        units = board.validation_lessons if board.unit == "lesson" else board.validation_examples
        yield (
            f"Warning: the validation split has {count_noun(units, board.unit)}, but {board.validation_needed} are "
            "needed to tell the models apart, so their order may be chance. Add lessons to the workbook, or raise "
            "split.validation in params.yaml."
        )
    yield "Of the tied models within a standard error of the best mean, the one with the fewest parameters is chosen."


def _about_scratch(board: Leaderboard) -> Iterator[str]:
    if names := [row.model for row in board.rows if row.from_scratch]:
        yield (
            f"{_join(names)} started from random weights. From a few hundred examples, such a model learns which words "
            "are common in titles, and not what a text is about: expect it behind the baselines."
        )


def _about_titles(board: Leaderboard) -> Iterator[str]:
    if true := board.true_titles:
        yield (
            f"Repeats: the share of titles that another topic of the lesson has too ({true.repeats:.3f} of the true "
            f"titles). Support: the share of a title's words that its text has ({true.support:.3f} of the true ones)."
        )


def _join(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def as_markdown(leaderboard: Leaderboard, costs: Mapping[str, Cost], joint: JointBoard | None = None) -> str:
    """Format the leaderboard as a Markdown page, with the joint score of the best model if it is known."""
    lines = [_header(leaderboard.metric)]
    lines.append(["---"] * len(lines[0]))
    for place, row in enumerate(leaderboard.rows, start=1):
        cells = _cells(place, row, leaderboard, costs.get(row.model))
        lines.append([f"**{cell}**" if row.model == leaderboard.best and cell == row.model else cell for cell in cells])
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)
    whole_lessons = f"{joint.summary}\n\n" if joint else ""
    return f"# Leaderboard\n\n{headline(leaderboard)}\n\n{table}\n\n{whole_lessons}{conditions(leaderboard)}\n"


def as_rich_table(leaderboard: Leaderboard, costs: Mapping[str, Cost], joint: JointBoard | None = None) -> Table:
    """Format the leaderboard for a terminal: the metric with its intervals, the cost and the verdict."""
    metric = leaderboard.metric
    # As Text, because rich would read a name in square brackets as a style.
    title = Text(headline(leaderboard))
    caption = Text(f"{joint.summary} {conditions(leaderboard)}" if joint else conditions(leaderboard))
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    shown = ("#", "model", f"{metric}, validation", f"{metric}, test", "training", "titles/s", "size", "verdict")
    for name in shown:
        table.add_column(name, justify="left" if name in ("model", "verdict") else "right")
    models = sum(not row.is_baseline for row in leaderboard.rows)
    for place, row in enumerate(leaderboard.rows, start=1):
        cells = dict(zip(_header(metric), _cells(place, row, leaderboard, costs.get(row.model)), strict=True))
        style = "bold" if row.model == leaderboard.best else "dim" if row.is_baseline else None
        table.add_row(*(Text(cells[name]) for name in shown), style=style, end_section=place == models)
    return table


def _header(metric: str) -> list[str]:
    others = [score.replace("bertscore_", "BERTScore ") for score in SCORES if score != metric]
    measured = [f"{metric}, validation", f"{metric}, test", "over the best baseline", *others]
    return ["#", "model", *measured, "repeats", "support", "training", "titles/s", "size", "verdict"]


def _cells(place: int, row: Row, board: Leaderboard, cost: Cost | None) -> list[str]:
    metric = board.metric
    others = [format_interval(row.test[score]) for score in SCORES if score != metric]
    return [
        "" if row.is_baseline else str(place),
        f"{row.model} (from scratch)" if row.from_scratch else row.model,
        f"{row.validation[metric]:.3f}{' (tied)' if row.tied and len(board.ties) > 1 else ''}",
        format_interval(row.test[metric]),
        format_interval(row.difference) if row.difference else "",
        *others,
        f"{row.titles.repeats:.3f}" if row.titles else "",
        f"{row.titles.support:.3f}" if row.titles else "",
        format_duration(cost.training_seconds) if cost else "",
        f"{cost.titles_per_second:.1f}" if cost else "",
        format_count(row.parameters),
        row.verdict,
    ]


def format_duration(seconds: float | None) -> str:
    """Format seconds for people; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def format_count(number: int | None) -> str:
    """Format a number of parameters for people; nothing for None."""
    if number is None:
        return ""
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"
