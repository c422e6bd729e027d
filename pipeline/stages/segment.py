"""The stage `segment`: what finds chapters, learnt from the topics of the workbook, and its leaderboard."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.utils.time import get_current_time_millis

from pipeline.chapters.boundary_board import BoundaryBoard, BoundaryRow, build_segmenter, too_few
from pipeline.chapters.known_lessons import LessonName, known_lessons, lesson_names
from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.chapters.segmenter_training import SegmentSettings, read_lesson
from pipeline.data.sample_workbook import COURSES
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.files import folder_aside, write_json
from pipeline.models.seen_examples import SeenExamples
from pipeline.paths import BOUNDARIES, SEGMENTER, STAGE_METRICS, TEST, TRAINING_SPLITS
from pipeline.registry.lineage import lineage_tags
from pipeline.registry.tracking import training_run

_SAMPLE = "the embedded workbook is written text with invented times, so there is nothing to learn from"


def run() -> None:
    """Train the segmenter, measure it, and write it with its leaderboard."""
    settings, chapters = SegmentSettings.read(), ChaptersSettings.read()
    confidence = EvaluateSettings.read().confidence
    known, tested = map(known_lessons, _lessons())
    real = [talk for talk in known if talk.course_title not in COURSES]
    learnt_from = real if len(real) >= settings.lessons else []
    params = {**settings.model_dump(), "encoder": chapters.encoder, "words": chapters.words}
    with training_run(
        "segmenter", params=params, tags={"model": "segmenter", **lineage_tags()}, splits=TRAINING_SPLITS
    ) as run_id:
        segmenter, board = build_segmenter(
            [read_lesson(talk, chapters) for talk in learnt_from],
            [read_lesson(talk, chapters) for talk in tested],
            chapters,
            settings,
            unlearnable=_SAMPLE if known and not real else too_few(len(real), settings),
            confidence=confidence,
        )
        board = board.model_copy(update={"run_id": run_id})
        _log(MlflowClient(), run_id, board)
    examples = pd.concat([pd.read_parquet(path) for path in TRAINING_SPLITS.values()])
    none = examples.head(0)
    seen = SeenExamples.of_training(examples if learnt_from else none, none, None, "")
    with folder_aside(SEGMENTER, durable=False) as folder:
        replace(segmenter, seen=seen).save(folder)
    write_json(BOUNDARIES, board.model_dump(mode="json"), durable=False)
    # One score only: `dvc exp show` is read in a terminal.
    shown = {"test": {"f1_30s": round(board.in_use.test["f1_30s"].mean, 4)}} if tested else {}
    write_json(STAGE_METRICS / "segment.json", shown, durable=False)
    print(board.summary)


def _lessons() -> tuple[set[LessonName], set[LessonName]]:
    """Return the lessons to learn from and the test lessons.

    With `split.by: random` a lesson may be in several splits. Then it counts as a test lesson only.
    """
    train, validation, test = (lesson_names(pd.read_parquet(path)) for path in (*TRAINING_SPLITS.values(), TEST))
    return (train | validation) - test, test


def _log(client: MlflowClient, run_id: str, board: BoundaryBoard) -> None:
    """Log the leaderboard and the learning curve, whose step is the number of training lessons."""
    now = get_current_time_millis()
    scores = [
        Metric(f"{_metric_group(row)}.{side}.{name}", score.mean, now, 0)
        for row in board.rows
        for side in ("validation", "test")
        for name, score in getattr(row, side).items()
    ]
    curve = [
        Metric(f"curve.{name}", value, now, lessons)
        for lessons, means in board.curve.items()
        for name, value in means.items()
    ]
    client.log_batch(run_id, metrics=[*scores, *curve])
    client.log_text(run_id, board.model_dump_json(indent=1), "boundaries.json")
    client.set_tag(run_id, "method", board.method)


def _metric_group(row: BoundaryRow) -> str:
    return f"{row.method.replace(' ', '_')}.{'number_given' if row.number_given else 'number_found'}"
