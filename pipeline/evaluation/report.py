"""Render the report: one HTML file without external resources, with the titles of the models next to their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Template
from markupsafe import Markup
from matplotlib.figure import Figure

from pipeline.data.lesson_openings import is_opening
from pipeline.data.single_values import as_clock
from pipeline.data.workbook_schema import LESSON
from pipeline.errors import Rejected
from pipeline.evaluation.costs import Cost
from pipeline.evaluation.figures import as_svg, curves_figure, score_figure
from pipeline.evaluation.leaderboard import Leaderboard
from pipeline.evaluation.leaderboard_text import conditions, format_count, format_duration, headline
from pipeline.evaluation.predicted_titles import EXAMPLE
from pipeline.evaluation.results import ModelMetrics
from pipeline.evaluation.score_names import SCORES
from pipeline.evaluation.slices import LENGTH_BANDS, length_bands
from pipeline.evaluation.templates import template_environment
from pipeline.training.record import Training

if TYPE_CHECKING:
    from pipeline.chapters.boundary_board import BoundaryBoard
    from pipeline.evaluation.joint_board import JointBoard

_KEY = EXAMPLE[1:]  # identifies an example within a split
_MAX_SIDE_BY_SIDE = 60  # evenly spaced examples of a larger split
_MAX_EXTREMES = 8
_EXCERPT_CHARACTERS = 1500


@dataclass(frozen=True)
class _TestTitles:
    """The test split with the titles and the scores of every model, row by row."""

    examples: pd.DataFrame  # course_title, lesson_num, start_seconds, title, text, words, length
    titles: pd.DataFrame  # one column per model
    scores: pd.DataFrame  # one column per model: the leaderboard's metric


def render_report(
    leaderboard: Leaderboard,
    metrics: Mapping[str, ModelMetrics],
    predictions: Mapping[str, pd.DataFrame],
    test: pd.DataFrame,
    training: Mapping[str, Training],
    costs: Mapping[str, Cost],
    boundaries: BoundaryBoard | None = None,
    joint: JointBoard | None = None,
) -> str:
    """Render the report as one HTML page. All text from the workbook and the models is escaped.

    Args:
        leaderboard: the leaderboard.
        metrics: the mean scores of every model on the leaderboard, by name.
        predictions: the scored titles of every model on the leaderboard, by name.
        test: the test split, for its texts.
        training: the trainings by model; baselines have none.
        costs: the costs by model; baselines have none.
        boundaries: the leaderboard of boundaries.
        joint: the joint scores of the best model.

    Raises:
        Rejected: the predictions belong to another test split.
    """
    shown = _align_titles(leaderboard, predictions, test)
    ranked = np.argsort(shown.scores[leaderboard.best].to_numpy(), kind="stable")
    opening = is_opening(shown.examples).to_numpy()
    without_openings = ranked[~opening[ranked]]  # no credit for the usual title of an opening
    extremes = min(_MAX_EXTREMES, (len(ranked) + 1) // 2)  # a small split appears only once
    return _template().render(
        board=leaderboard,
        boundaries=boundaries,
        joint=joint,
        headline=headline(leaderboard),
        conditions=conditions(leaderboard),
        scores=SCORES,
        cost_of=costs,
        score_plot=_inline(score_figure(leaderboard), f"{leaderboard.metric} of every model, with its interval"),
        side_by_side=_cards(shown, _evenly_spaced(len(shown.examples))),
        best_titles=_cards(shown, without_openings[::-1][:extremes]),
        worst_titles=_cards(shown, ranked[:extremes]),
        by_course=_means_by(shown, "course_title", sorted(shown.examples["course_title"].unique())),
        by_length=_means_by(shown, "length", list(LENGTH_BANDS)),
        curves={
            model: _inline(
                curves_figure(trained.curves, trained.run.bertscore), f"Losses and scores of {model} by epoch"
            )
            for model, trained in training.items()
            if len(trained.curves) > 1  # one epoch is a dot
        },
        costs=[
            (row, training[row.model].run if row.model in training else None, metrics[row.model])
            for row in leaderboard.rows
        ],
    )


def _inline(figure: Figure, label: str) -> Markup:
    return Markup(as_svg(figure, label))  # matplotlib escapes names


def _align_titles(leaderboard: Leaderboard, predictions: Mapping[str, pd.DataFrame], test: pd.DataFrame) -> _TestTitles:
    """Put the titles and scores of all models in the order of the test split.

    Raises:
        Rejected: a model was evaluated on another test split.
    """
    words = test["text"].str.split().str.len()
    examples = test.assign(words=words, length=length_bands(test["text"])).set_index(_KEY)
    titles, scores = {}, {}
    for row in leaderboard.rows:
        scored = predictions[row.model].query("split == 'test'").set_index(_KEY)
        if not scored.index.sort_values().equals(examples.index.sort_values()):
            raise Rejected(
                f"'{row.model}' was evaluated on another test split. "
                "Run `dvc repro`, which evaluates outdated models again."
            )
        titles[row.model] = scored["prediction"].reindex(examples.index)
        scores[row.model] = scored[leaderboard.metric].reindex(examples.index)
    frames = (examples, pd.DataFrame(titles), pd.DataFrame(scores))
    return _TestTitles(*(frame.reset_index(drop=frame is not examples) for frame in frames))


def _evenly_spaced(count: int) -> np.ndarray:
    """Return at most `_MAX_SIDE_BY_SIDE` evenly spaced positions."""
    return np.unique(np.linspace(0, count - 1, min(count, _MAX_SIDE_BY_SIDE)).round().astype(int))


def _cards(shown: _TestTitles, places: np.ndarray) -> list[dict[str, Any]]:
    """Return the content of the report's cards for the examples at `places`."""
    return [
        {
            "course": example["course_title"],
            "lesson": example["lesson_num"],
            "start": as_clock(int(example["start_seconds"])),
            "words": example["words"],
            "excerpt": example["text"][:_EXCERPT_CHARACTERS],
            "is_cut": len(example["text"]) > _EXCERPT_CHARACTERS,
            "title": example["title"],
            "given": {
                model: (shown.titles[model].iloc[place], shown.scores[model].iloc[place]) for model in shown.titles
            },
        }
        for place, example in ((place, shown.examples.iloc[place]) for place in places)
    ]


def _means_by(shown: _TestTitles, column: str, order: list[str]) -> list[tuple[str, int, int, list[float]]]:
    """Return each value of a column with its numbers of examples and lessons, and the mean score of every model."""
    groups = shown.scores.groupby(shown.examples[column])
    means, sizes = groups.mean(), groups.size()
    lessons = shown.examples.drop_duplicates([column, *LESSON])[column].value_counts()
    return [
        (value, int(sizes[value]), int(lessons[value]), means.loc[value].tolist())
        for value in order
        if value in sizes.index
    ]


def _template() -> Template:
    environment = template_environment("pipeline.evaluation")
    environment.filters |= {"duration": format_duration, "count": format_count}
    return environment.get_template("report.html.j2")
