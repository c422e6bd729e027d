"""Small talks whose words tell where topics start."""

from __future__ import annotations

import numpy as np

from pipeline.chapters.boundary_board import build_segmenter
from pipeline.chapters.boundary_features import describe_passages
from pipeline.chapters.segmentation import ChaptersSettings, split_passages
from pipeline.chapters.segmenter_training import Lesson, SegmentSettings
from pipeline.evaluation.joint_board import build_joint_board
from pipeline.files import write_json
from pipeline.paths import BOUNDARIES, JOINT, SEGMENTER
from pipeline.transcripts.transcript import Line, Topic, Transcript
from tests.conftest import ROOT

CHAPTERS = ChaptersSettings.read(ROOT / "params.yaml")
SETTINGS = SegmentSettings(lessons=8, folds=4, seed=1)
FILLER = ["the", "loss", "of", "this", "network", "and", "its", "rate", "on", "data"]


def talk(seed: int, cue: str = "okay so next", course: str = "C") -> Transcript:
    """Make a talk of ten minutes, with a line of 25 words every 10 s, of which six start a topic with `cue`."""
    chance = np.random.default_rng(seed)
    begins = [0, *sorted(chance.choice(np.arange(4, 58, 4), 5, replace=False).tolist())]
    lines = []
    for n in range(60):
        words = chance.choice(FILLER, 25).tolist()
        if n in begins[1:]:
            words[:3] = cue.split()
        lines.append(Line(10.0 * n, " ".join(words)))
    return Transcript(course, str(seed), lines, 600.0, [Topic(10.0 * n, f"T{n}") for n in begins])


def lesson(seed: int, cue: str = "okay so next") -> Lesson:
    """Describe a talk whose passages have random vectors: only its words tell where topics start."""
    made = talk(seed, cue)
    passages = split_passages(made, CHAPTERS.words)
    times = np.append(passages.starts, made.end_seconds)
    vectors = np.random.default_rng(seed).normal(size=(len(passages.texts), 8))
    return Lesson(made, passages, CHAPTERS.words, times, vectors, describe_passages(made, passages, vectors, times))


def write_boundaries() -> None:
    """Write the outputs of the stage `segment` for a workbook that teaches nothing."""
    segmenter, board = build_segmenter(
        [], [lesson(1), lesson(2)], CHAPTERS, SETTINGS, unlearnable="too few lessons", confidence=0.95
    )
    SEGMENTER.mkdir()
    segmenter.save(SEGMENTER)
    write_json(BOUNDARIES, board.model_dump(mode="json"))


def write_joint_scores(model: str) -> None:
    """Write the output of the stage `joint` for six test lessons."""
    own, simple = [0.3, 0.4, 0.5, 0.3, 0.4, 0.5], [0.1, 0.2, 0.1, 0.2, 0.1, 0.2]
    scores = {("chapters as served", model): own, ("content vectors", "keyphrases"): simple}
    write_json(JOINT, build_joint_board(model, scores, 0.95).model_dump(mode="json"))
