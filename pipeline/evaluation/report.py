"""The report: one HTML file, with nothing from elsewhere, that shows what the models do beside what they score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Template
from markupsafe import Markup
from matplotlib.figure import Figure

from pipeline.data.lessons import LESSON
from pipeline.data.openings import of_openings
from pipeline.errors import Rejected
from pipeline.evaluation.figures import as_svg, curves_figure, score_figure
from pipeline.evaluation.leaderboard import Leaderboard, conditions, headline
from pipeline.evaluation.predictions import EXAMPLE, ModelMetrics
from pipeline.evaluation.scores import SCORES
from pipeline.evaluation.slices import LENGTH_BANDS, length_bands
from pipeline.evaluation.templates import templates
from pipeline.training.record import Training

_KEY = EXAMPLE[1:]  # within a split
_SHOWN_EXAMPLES = 60  # side by side; of a larger split, evenly spaced ones
_SHOWN_EXTREMES = 8
_EXCERPT_CHARACTERS = 1500


@dataclass(frozen=True)
class _Shown:
    """The test split and what every model made of it, row by row."""

    examples: pd.DataFrame  # course_title, lesson_num, start_seconds, title, text, words, length
    titles: pd.DataFrame  # a column a model
    scores: pd.DataFrame  # a column a model: the leaderboard's metric


def render_report(
    leaderboard: Leaderboard,
    metrics: Mapping[str, ModelMetrics],
    predictions: Mapping[str, pd.DataFrame],
    test: pd.DataFrame,
    training: Mapping[str, Training],
) -> str:
    """The report as one HTML page. All that comes from a workbook or a model is escaped.

    Args:
        metrics: of every model on the leaderboard, by name.
        predictions: of every model on the leaderboard, by name.
        test: the test split, for its texts.
        training: of the models that have one, by name.

    Raises:
        Rejected: the predictions are not of this test split.
    """
    shown = _shown(leaderboard, predictions, test)
    ranked = np.argsort(shown.scores[leaderboard.best].to_numpy(), kind="stable")
    own = ranked[~of_openings(shown.examples).to_numpy()[ranked]]  # an opening's usual title is no model's merit
    extremes = min(_SHOWN_EXTREMES, (len(ranked) + 1) // 2)  # a small split is not shown twice over
    return _template().render(
        board=leaderboard,
        headline=headline(leaderboard),
        conditions=conditions(leaderboard),
        scores=SCORES,
        score_plot=_inline(score_figure(leaderboard), f"{leaderboard.metric} of every model, with its interval"),
        side_by_side=_cards(shown, _spread(len(shown.examples))),
        best_titles=_cards(shown, own[::-1][:extremes]),
        worst_titles=_cards(shown, ranked[:extremes]),
        by_course=_means_by(shown, "course_title", sorted(shown.examples["course_title"].unique())),
        by_length=_means_by(shown, "length", list(LENGTH_BANDS)),
        curves={
            model: _inline(
                curves_figure(trained.curves, trained.run.bertscore), f"Losses and scores of {model} by epoch"
            )
            for model, trained in training.items()
            if len(trained.curves)
        },
        costs=[
            (row, training[row.model].run if row.model in training else None, metrics[row.model])
            for row in leaderboard.rows
        ],
    )


def _inline(figure: Figure, label: str) -> Markup:
    return Markup(as_svg(figure, label))  # matplotlib escapes the names in it


def _shown(leaderboard: Leaderboard, predictions: Mapping[str, pd.DataFrame], test: pd.DataFrame) -> _Shown:
    words = test["text"].str.split().str.len()
    examples = test.assign(words=words, length=length_bands(test["text"])).set_index(_KEY)
    titles, scores = {}, {}
    for row in leaderboard.rows:
        scored = predictions[row.model].query("split == 'test'").set_index(_KEY)
        if not scored.index.sort_values().equals(examples.index.sort_values()):
            raise Rejected(
                f"'{row.model}' was evaluated on other examples than the test split holds now. "
                "`dvc repro` evaluates it again."
            )
        titles[row.model] = scored["prediction"].reindex(examples.index)
        scores[row.model] = scored[leaderboard.metric].reindex(examples.index)
    frames = (examples, pd.DataFrame(titles), pd.DataFrame(scores))
    return _Shown(*(frame.reset_index(drop=frame is not examples) for frame in frames))


def _spread(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _SHOWN_EXAMPLES)).round().astype(int))


def _cards(shown: _Shown, places: np.ndarray) -> list[dict[str, Any]]:
    """What a card of the report says of each of the examples at `places`."""
    return [
        {
            "course": example["course_title"],
            "lesson": example["lesson_num"],
            "start": _clock(example["start_seconds"]),
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


def _means_by(shown: _Shown, column: str, order: list[str]) -> list[tuple[str, int, int, list[float]]]:
    """For each value of `column` in `order` that occurs: examples, lessons, and the mean score of every model."""
    groups = shown.scores.groupby(shown.examples[column])
    means, sizes = groups.mean(), groups.size()
    lessons = shown.examples.drop_duplicates([column, *LESSON])[column].value_counts()
    return [
        (value, int(sizes[value]), int(lessons[value]), means.loc[value].tolist())
        for value in order
        if value in sizes.index
    ]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _count(number: int | None) -> str:
    if number is None:
        return "-"
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"


def _template() -> Template:
    environment = templates("pipeline.evaluation")
    environment.filters |= {"duration": _duration, "count": _count}
    return environment.get_template("report.html.j2")
