"""Compare recently titled texts with the training split, and write reports/drift.html and drift.json."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from pipeline.chapters.known_lessons import known_lessons, lesson_names
from pipeline.errors import UsageError
from pipeline.evaluation.figures import as_svg, cumulative_figure
from pipeline.evaluation.templates import template_environment
from pipeline.files import write_json, write_text
from pipeline.monitoring.batch_log import days_ago, read_batches
from pipeline.monitoring.drift import Drift, DriftSettings, cells, compare
from pipeline.monitoring.measures import NUMBERS, measure_training
from pipeline.paths import DRIFT, DRIFT_JSON, LINES, TOPICS, TRAINING_SPLITS
from pipeline.registry.lineage import is_of_current_split
from pipeline.registry.tracking import connect
from pipeline.registry.versions import get_version

_NAMES = ("training split", "titled")


def report_drift(settings: DriftSettings) -> Drift | None:
    """Compare the texts that the latest version has titled within `settings.days`, and write the reports.

    Returns:
        The comparison; None if nothing was titled in that time.

    Raises:
        UsageError: there is no training split.
    """
    batches = read_batches(days_ago(settings.days))
    if batches.empty:
        return None
    path = TRAINING_SPLITS["train"]
    if not path.exists():
        raise UsageError(f"{path} is missing; titled texts are compared with it. Run `dvc repro split`.")
    version = batches["version"].iloc[-1]
    training = _measure_split(path)
    titled = batches[batches["version"] == version]
    drift = compare(training, titled, settings, version=version, notes=_notes(version))
    write_json(DRIFT_JSON, drift.as_json(), durable=False)
    write_text(DRIFT, _page(drift, training, titled), durable=False)
    return drift


def _measure_split(path: Path) -> pd.DataFrame:
    train = pd.read_parquet(path)
    has_lessons = TOPICS.exists() and LINES.exists()  # else lengths of chapters are not compared
    return measure_training(train, known_lessons(lesson_names(train)) if has_lessons else ())


def _notes(version: str) -> list[str]:
    name, _, number = version.rpartition("/")
    try:
        tags = get_version(connect(), name, int(number)).tags
    except UsageError:
        return [f"{version} is no longer registered."]
    if is_of_current_split(tags):
        return []
    return [f"{version} was trained on an earlier split, but is compared with the current one here."]


def _page(drift: Drift, training: pd.DataFrame, titled: pd.DataFrame) -> str:
    shown = {
        each.replace("_", " "): (training[each].dropna(), titled[each].dropna()) for each in NUMBERS if each in titled
    }
    shown = {name: pair for name, pair in shown.items() if all(map(len, pair))}
    label = "Cumulative distributions of the training split and of the titled texts"
    return (
        template_environment("pipeline.monitoring")
        .get_template("drift.html.j2")
        .render(
            drift=drift,
            cells=cells,
            figure=Markup(as_svg(cumulative_figure(shown, _NAMES), label)),  # safe: only numbers and fixed words
            when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )
