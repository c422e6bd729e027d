"""Draw the figures of the reports and of MLflow runs."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.evaluation.leaderboard import Leaderboard

# In a page, a CSS variable replaces each colour, so that a figure follows the light or dark theme.
INK, MUTED, GRID = "#1b1f27", "#667084", "#dfe3ea"
FIRST, SECOND, THIRD = "#2458d3", "#b4540a", "#0b7a6b"
CSS_COLOURS = {INK: "ink", MUTED: "muted", GRID: "line", FIRST: "first", SECOND: "second", THIRD: "third"}

_STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a model's name may contain a dollar sign
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "svg.fonttype": "none",
}


def score_figure(leaderboard: Leaderboard) -> Figure:
    """Draw each model's mean and interval on the test split, the best at the top, and its validation mean (hollow)."""
    rows = leaderboard.rows[::-1]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 0.9 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        bar = leaderboard.row(leaderboard.best_baseline).test[leaderboard.metric]
        axes.axvline(bar.mean, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for height, row in enumerate(rows):
            colour = MUTED if row.is_baseline else FIRST
            score = row.test[leaderboard.metric]
            axes.plot([score.low, score.high], [height, height], color=colour, solid_capstyle="round")
            axes.plot(score.mean, height, "o", color=colour, markersize=7)
            axes.plot(row.validation[leaderboard.metric], height, "o", color=colour, markersize=7, fillstyle="none")
        axes.set_yticks(range(len(rows)), [row.model for row in rows])
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_color(MUTED if row.is_baseline else INK)
            label.set_fontweight("bold" if row.model == leaderboard.best else "normal")
        axes.tick_params(length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(left=0)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(
            f"{leaderboard.metric} (filled: test, with its interval; hollow: validation; dashed: best baseline)"
        )
    return figure


def curves_figure(curves: pd.DataFrame, bertscore: str | None = None) -> Figure:
    """Draw the losses and scores of one training by epoch.

    Args:
        curves: one row per epoch, with the column epoch and any of train_loss, validation_loss, rouge1, rouge2, rougeL
            and bertscore_f1. Missing values are skipped.
        bertscore: the model that computed BERTScore.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 2.9), layout="constrained")
        losses, scores = figure.subplots(1, 2)
        labels = {
            "train_loss": "train loss",
            "validation_loss": "validation loss",
            "bertscore_f1": f"BERTScore F1 by {bertscore}",
        }
        _draw_curves(losses, curves, {"train_loss": SECOND, "validation_loss": FIRST}, labels, "loss")
        colours = {"rouge1": FIRST, "rougeL": THIRD, "rouge2": SECOND, "bertscore_f1": INK}
        _draw_curves(scores, curves, colours, labels, "score on the validation split")
    return figure


def cumulative_figure(pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], names: tuple[str, str]) -> Figure:
    """Draw two cumulative distributions for each measure.

    Args:
        pairs: by name of the measure, the values of both groups.
        names: the names of the groups.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 2.9), layout="constrained")
        for place, (measure, values) in enumerate(pairs.items(), start=1):
            axes = figure.add_subplot(1, len(pairs), place)
            for side, name, colour in zip(values, names, (FIRST, SECOND), strict=True):
                axes.ecdf(side, color=colour, label=name)
            axes.set_title(measure, color=MUTED)
            axes.tick_params(length=0)
            axes.legend()
    return figure


def _draw_curves(axes: Axes, curves: pd.DataFrame, colours: dict[str, str], labels: dict[str, str], title: str) -> None:
    for name, colour in colours.items():
        if name in curves and curves[name].notna().any():
            known = curves[["epoch", name]].dropna()
            axes.plot(known["epoch"], known[name], "o-", color=colour, label=labels.get(name, name))
    axes.set_title(title, color=MUTED)
    axes.set_xlabel("epoch")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(length=0)
    axes.grid(axis="x", visible=False)
    if axes.lines:
        axes.legend()


def as_svg(figure: Figure, label: str) -> str:
    """Convert a figure to an `<svg>` element of a page, in the page's colours. The same figure gives the same text.

    Args:
        figure: the figure.
        label: a description of the figure for screen readers.
    """
    target = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": label}):
        no_dates = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(target, format="svg", facecolor="none", metadata=no_dates)
    svg = target.getvalue()
    for colour, variable in CSS_COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    # Only a separate file needs namespaces and a fixed size.
    tag, rest = svg[svg.index("<svg") :].split(">", maxsplit=1)
    [view] = re.findall(r'viewBox="[^"]*"', tag)
    return f'<svg role="img" aria-label="{html.escape(label)}" {view}>{rest}'
