"""The stage `joint`: the score of whole test lessons, cut and titled as the version will be served."""

from __future__ import annotations

import pandas as pd

from pipeline.chapters.known_lessons import known_lessons, lesson_names
from pipeline.chapters.segmentation import DEFAULT_MINUTES
from pipeline.chapters.segmenter import ChapterLengths, Segmenter
from pipeline.evaluation.joint_board import Way, build_joint_board
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.files import write_json
from pipeline.models.checkpoints import Card
from pipeline.models.generation import GenerateSettings, Titler, open_titler
from pipeline.models.title_cleanup import PLAIN
from pipeline.paths import BEST_MODEL, JOINT, SEGMENTER, STAGE_METRICS, TEST
from pipeline.registry.fallback_title import Shown, choose_titles
from pipeline.registry.joint_scores import CutLessons


def run() -> None:
    """Score the best model with its segmenter, and simpler ways to write chapters with titles."""
    model = Card.model_validate_json((BEST_MODEL / "lectern.json").read_text(encoding="utf-8")).model
    segmenter = Segmenter.load(BEST_MODEL / SEGMENTER.name)
    plain = Segmenter(segmenter.card.model_copy(update={"lengths": ChapterLengths(minutes=DEFAULT_MINUTES)}))
    talks = known_lessons(lesson_names(pd.read_parquet(TEST)))
    served, simple = CutLessons(talks, segmenter), CutLessons(talks, plain)
    titled = _titles([*served.texts, *simple.texts], open_titler(BEST_MODEL, GenerateSettings.read(model)))
    by_content = f"content vectors, {DEFAULT_MINUTES:g} minutes a chapter"
    scores: dict[Way, list[float]] = {("chapters as served", model): served.scores(titled)}
    if simple.texts != served.texts:
        scores[by_content, model] = simple.scores(titled)
    scores[by_content, "keyphrases"] = simple.scores(_keyphrases(simple.texts))
    board = build_joint_board(model, scores, EvaluateSettings.read().confidence)
    write_json(JOINT, board.model_dump(mode="json"), durable=False)
    shown = {"test": {"soda_c": round(board.rows[0].score.mean, 4)}} if board.rows else {}
    write_json(STAGE_METRICS / "joint.json", shown, durable=False)
    print(board.summary)


def _titles(texts: list[str], titler: Titler) -> dict[str, Shown]:
    """Return the title of each distinct text with all candidates that the model finds on the way."""
    distinct = list(dict.fromkeys(texts))
    candidates = titler.with_overrides({"candidates": 0}).titles(distinct, progress="whole lessons")
    return dict(zip(distinct, choose_titles(distinct, candidates, titler.style), strict=True))


def _keyphrases(texts: list[str]) -> dict[str, Shown]:
    """Return the title of each text that a model without a usable title would give it."""
    return dict(zip(texts, choose_titles(texts, [[] for _ in texts], PLAIN), strict=True))
