"""Measure the titles of every model that works offline, against the baselines, with each lesson held out once.

    python benchmarks/quality.py [WORKBOOK] [--models t5-zero-shot t5 smollm2] [--folds 5] [--kept FOLDER]

A model is trained on the other folds as `params.yaml` says and titles the held-out one. Openings of lessons get the
usual title of openings in the other folds; one column leaves these out. WORKBOOK is an .xlsx file; by default one in
$LECTERN_SHARED, else the embedded workbook. FOLDER keeps finished work, so that an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
import transformers
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from workbooks import read_examples

from pipeline.data.lesson_openings import usual_opening_title
from pipeline.data.workbook_schema import LESSON
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.intervals import interval_of_mean, units_of
from pipeline.evaluation.metrics import EvaluateSettings, score_titles
from pipeline.evaluation.rouge import mean_rouge
from pipeline.models.checkpoints import ModelSettings
from pipeline.models.generation import GenerateSettings, Titler
from pipeline.registry.lineage import checkpoint_tags
from pipeline.training.prepare import prepare
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import fit

SHOWN = ("rouge1", "rouge2", "rougeL", "bertscore_f1")
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", nargs="?", type=Path, help="an .xlsx file with lessons")
    parser.add_argument("--models", nargs="*", default=["t5-zero-shot", "t5", "smollm2"], help="entries of params.yaml")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--kept", type=Path, default=Path(".lectern/quality"), help="folder for finished work")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.kept.mkdir(parents=True, exist_ok=True)
    examples = read_examples(options.workbook, options.kept)
    models = [*BASELINES, *options.models]
    titled = pd.concat(
        [
            kept_titles(options.kept, model, fold, train, test)
            for fold, (train, test) in enumerate(folds(examples, options.folds))
            for model in models
        ]
    )
    print(as_markdown(titled, models, examples, options.folds))


def folds(examples: pd.DataFrame, count: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the training part and the held-out part of each fold; no lesson is on both sides."""
    lessons = examples.groupby(LESSON).ngroup()
    for train, test in GroupKFold(count, shuffle=True, random_state=SEED).split(examples, groups=lessons):
        yield examples.iloc[train].reset_index(drop=True), examples.iloc[test].reset_index(drop=True)


def kept_titles(kept: Path, model: str, fold: int, train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Return the result of `titles_of`, if possible from an earlier run, with the usual title for openings.

    The column `own` holds the titles that the model wrote; course_title and lesson_num name the lesson.
    """
    path = kept / f"{model}-{fold}-{digest(model, train, test)}.parquet"
    if not path.exists():
        titled = titles_of(model, train, test).assign(model=model, fold=fold)
        titled.to_parquet(path, index=False)
        logging.info(
            "fold %d, %s: ROUGE-1 %.4f", fold, model, mean_rouge([*titled.prediction], [*titled.title])["rouge1"]
        )
    titled, usual = pd.read_parquet(path), usual_opening_title(train)
    called = titled["prediction"].mask(test["opens"], usual) if usual else titled["prediction"]
    lessons = {column: test[column] for column in LESSON}
    return titled.assign(own=titled["prediction"], prediction=called, **lessons)


def digest(model: str, train: pd.DataFrame, test: pd.DataFrame) -> str:
    """Hash everything that decides a model's titles, except the code."""
    found = hashlib.sha256()
    for frame in (train, test):
        found.update(frame[[*LESSON, "text", "title"]].to_json().encode())
    if model not in BASELINES:
        entry = ModelSettings.read(model)
        for settings in (entry, TrainSettings.of_model(model, entry), GenerateSettings.read(model)):
            found.update(settings.model_dump_json().encode())
        found.update(repr(checkpoint_tags(entry)).encode())
    return found.hexdigest()[:16]


def titles_of(model: str, train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Return a row per held-out example: title, prediction, and the seconds of training and titling all of them."""
    start = time.monotonic()
    texts = test["text"].tolist()
    if model in BASELINES:
        trained, predicted = start, BASELINES[model](train, texts)
    else:
        titler = trained_titler(model, train)
        trained, predicted = time.monotonic(), titler.best_titles(texts)
    end = time.monotonic()
    return test[["title"]].assign(prediction=predicted, trained=trained - start, titled=end - trained)


def trained_titler(model: str, train: pd.DataFrame) -> Titler:
    model_settings = ModelSettings.read(model)
    settings = TrainSettings.of_model(model, model_settings)
    # The best epoch is chosen by lessons that are neither trained on nor held out.
    sides = GroupShuffleSplit(1, test_size=0.1, random_state=SEED).split(train, groups=train.groupby(LESSON).ngroup())
    trained_on, validation = (train.iloc[side].reset_index(drop=True) for side in next(sides))
    prepared = prepare(model, model_settings, settings, [*trained_on["text"], *trained_on["title"]])
    if settings.epochs:
        with tempfile.TemporaryDirectory() as checkpoints:
            fit(
                prepared.trained,
                prepared.inputs,
                trained_on,
                validation,
                settings,
                score=mean_rouge,
                resume_from=Path(checkpoints),
            )
        prepared.merge()
    return Titler(prepared.network.eval(), prepared.inputs, GenerateSettings.read(model))


def as_markdown(titled: pd.DataFrame, models: list[str], examples: pd.DataFrame, count: int) -> str:
    evaluation = EvaluateSettings.read()
    machine = f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} thread(s)"
    lessons = len(examples[LESSON].drop_duplicates())
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}, torch {torch.__version__}, transformers {transformers.__version__}. "
        f"{len(examples)} examples of {lessons} lessons, each lesson held out once in {count} folds. In brackets: "
        f"{evaluation.confidence:.0%} intervals over lessons (docs/measuring.md). BERTScore by "
        f"{evaluation.bertscore_model}, layer {evaluation.bertscore_layers}.",
        "",
        f"| model | {' | '.join(SHOWN)} | rouge1 by fold | mean without the rule for openings | "
        "training, s a fold | titles, s a fold |",
        f"|---|{'--:|' * len(SHOWN)}---|--:|--:|--:|",
    ]
    for model in models:
        mine = titled[titled["model"] == model]
        scores = score_titles([*mine["prediction"]], [*mine["title"]], evaluation)
        units = units_of(mine, "lesson")
        intervals = {name: interval_of_mean(scores[name], units, confidence=evaluation.confidence) for name in SHOWN}
        cells = [f"{each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in intervals.values()]
        fold = mine["fold"].to_numpy()
        by_fold = scores["rouge1"].groupby(fold).mean()
        cells += [f"{', '.join(f'{value:.3f}' for value in by_fold)}; mean {by_fold.mean():.3f}"]
        own = score_titles([*mine["own"]], [*mine["title"]], evaluation, bertscore=False)["rouge1"]
        cells += [f"{own.groupby(fold).mean().mean():.3f}"]
        cells += [f"{mine.groupby('fold')[step].first().mean():.0f}" for step in ("trained", "titled")]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
