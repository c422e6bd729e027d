"""Measure the titles of every model that works offline, against the baselines, with each lesson held out once.

    python benchmarks/quality.py [WORKBOOK] [--models t5-zero-shot t5 smollm2] [--agreement t5+smollm2]
        [--folds 5] [--only 0 1 2] [--kept FOLDER]

A model is trained on the other folds as `params.yaml` says and titles the held-out one. Openings of lessons get the
usual title of openings in the other folds; one column leaves these out. A second row for each model has the titles
that are chosen together for each lesson, as `lectern chapters` does. WORKBOOK is an .xlsx file; by default one in
$LECTERN_SHARED, else the embedded workbook. FOLDER keeps finished work, so that an interrupted run resumes.

`--agreement` adds rows of several models together: each text gets the candidate that shares most words with the
candidates of all of them. Use models that write several candidates: a single one agrees with itself and always wins.
`--only` leaves out the other folds: choose settings on some, and measure them on the rest. Entries that differ only in
how they write titles are trained once.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from machine import describe_machine
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from workbooks import read_examples

from pipeline.data.lesson_openings import usual_opening_title
from pipeline.data.workbook_schema import LESSON
from pipeline.evaluation.baselines import BASELINES
from pipeline.evaluation.intervals import interval_of_mean, standard_error, sum_by_unit, units_of
from pipeline.evaluation.metrics import EvaluateSettings, score_titles
from pipeline.evaluation.rouge import mean_rouge
from pipeline.evaluation.title_measures import measure_titles
from pipeline.models.checkpoints import ModelSettings
from pipeline.models.generation import GenerateSettings, Titler, rank_by_consensus
from pipeline.registry.lineage import checkpoint_tags
from pipeline.registry.talk_titles import choose_lesson_titles
from pipeline.training.prepare import prepare
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import fit

SHOWN = ("rouge1", "rouge2", "rougeL", "bertscore_f1")
TOGETHER = ", chosen together"
SEED = 1
TRAINED: dict[str, tuple[Titler, float]] = {}
"""The models of the fold, and their seconds of training, by the hash of all that decides what they learn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", nargs="?", type=Path, help="an .xlsx file with lessons")
    parser.add_argument("--models", nargs="*", default=["t5-zero-shot", "t5", "smollm2"], help="entries of params.yaml")
    parser.add_argument("--agreement", nargs="*", default=[], metavar="MODEL+MODEL", help="several models together")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", nargs="*", type=int, metavar="FOLD", help="folds to run, from 0; default: all")
    parser.add_argument("--kept", type=Path, default=Path(".lectern/quality"), help="folder for finished work")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options.kept.mkdir(parents=True, exist_ok=True)
    examples = read_examples(options.workbook, options.kept)
    members = {several: several.split("+") for several in options.agreement}
    models = list(dict.fromkeys([*BASELINES, *options.models, *itertools.chain(*members.values())]))
    rows = []
    for fold, (train, test) in enumerate(folds(examples, options.folds)):
        if options.only and fold not in options.only:
            continue
        TRAINED.clear()
        usual = usual_opening_title(train)
        kept = {model: kept_titles(options.kept, model, fold, train, test) for model in models}
        for several, each in members.items():
            kept[several] = agreed_titles([kept[model] for model in each]).assign(model=several)
        rows += [alone_and_together(titled, usual) for titled in kept.values()]
    titled = pd.concat(rows)
    print(as_markdown(titled, list(dict.fromkeys(titled["model"])), examples, options.folds))
    print(f"\n{about_together(titled, [*models[len(BASELINES) :], *members])}")
    print(about_agreement(titled, {several: each[0] for several, each in members.items()}))


def folds(examples: pd.DataFrame, count: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the training part and the held-out part of each fold; no lesson is on both sides."""
    lessons = examples.groupby(LESSON).ngroup()
    for train, test in GroupKFold(count, shuffle=True, random_state=SEED).split(examples, groups=lessons):
        yield examples.iloc[train].reset_index(drop=True), examples.iloc[test].reset_index(drop=True)


def kept_titles(kept: Path, model: str, fold: int, train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Return the result of `titles_of`, if possible from an earlier run, with the columns of `test`."""
    path = kept / f"{model}-{fold}-{digest(model, train, test)}.parquet"
    if not path.exists():
        titled = titles_of(model, train, test).assign(model=model, fold=fold)
        titled.to_parquet(path, index=False)
        logging.info(
            "fold %d, %s: ROUGE-1 %.4f", fold, model, mean_rouge([*titled.prediction], [*titled.title])["rouge1"]
        )
    return pd.read_parquet(path).assign(**{column: test[column] for column in (*LESSON, "text", "opens")})


def agreed_titles(titled: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rank the candidates of several models by how well each agrees with all of them, as `consensus` does for one.

    Every model has as many votes. One with fewer candidates repeats them, the best first.
    """
    votes = max(len(own) for each in titled for own in each["candidates"])
    candidates = [
        rank_by_consensus([title for own in several for title in itertools.islice(itertools.cycle(own), votes)])
        for several in zip(*(each["candidates"] for each in titled), strict=True)
    ]
    seconds = {step: sum(each[step] for each in titled) for step in ("trained", "titled")}
    return titled[0].assign(candidates=candidates, prediction=[own[0] for own in candidates], **seconds)


def alone_and_together(titled: pd.DataFrame, usual: str) -> pd.DataFrame:
    """Add the usual title for openings. A model has each example twice: by itself, and together with its lesson.

    The column `own` holds the titles without the usual one.
    """
    called = titled["prediction"].mask(titled["opens"], usual) if usual else titled["prediction"]
    alone = titled.assign(own=titled["prediction"], prediction=called)
    model = titled["model"].iloc[0]
    if model in BASELINES:
        return alone
    together = titled.assign(
        model=model + TOGETHER, own=titles_together(titled, ""), prediction=titles_together(titled, usual)
    )
    return pd.concat([alone, together])


def titles_together(titled: pd.DataFrame, usual: str) -> list[str]:
    """Choose the titles of each lesson together among a model's candidates, as a registered version is served.

    Args:
        usual: the usual title of an opening, or "".
    """
    candidates = [
        [usual, *own] if usual and opens else [*own]
        for own, opens in zip(titled["candidates"], titled["opens"], strict=True)
    ]
    return [each.title for each in choose_lesson_titles(titled, candidates)]


def digest(model: str, train: pd.DataFrame, test: pd.DataFrame) -> str:
    """Hash everything that decides a model's titles, except the code."""
    found = hashlib.sha256(test[[*LESSON, "text", "title"]].to_json().encode())
    if model not in BASELINES:
        found.update(training_digest(model, train).encode())
        found.update(GenerateSettings.read(model).model_dump_json().encode())
    return found.hexdigest()[:16]


def training_digest(model: str, train: pd.DataFrame) -> str:
    """Hash everything that decides what a model learns, except the code."""
    entry = ModelSettings.read(model)
    found = hashlib.sha256(train[[*LESSON, "text", "title"]].to_json().encode())
    for settings in (entry, TrainSettings.of_model(model, entry)):
        found.update(settings.model_dump_json().encode())
    found.update(repr(checkpoint_tags(entry)).encode())
    return found.hexdigest()


def titles_of(model: str, train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Return a row per held-out example: title, prediction, candidates, and the seconds of training and titling all."""
    texts, trained = test["text"].tolist(), 0.0
    if model not in BASELINES:
        titler, trained = trained_titler(model, train)
    start = time.monotonic()
    if model in BASELINES:
        candidates = [[title] for title in BASELINES[model](train, texts)]
    else:
        candidates = titler.with_overrides({"candidates": 0}).titles(texts)  # all that the search finds
    predicted = [own[0] for own in candidates]
    titled = time.monotonic() - start
    return test[["title"]].assign(prediction=predicted, candidates=candidates, trained=trained, titled=titled)


def trained_titler(model: str, train: pd.DataFrame) -> tuple[Titler, float]:
    """Return a titler, and the seconds that its training takes; an equal training of the same fold is used again."""
    key = training_digest(model, train)
    if key not in TRAINED:
        start = time.monotonic()
        titler = train_titler(model, train)
        TRAINED[key] = titler, time.monotonic() - start
    titler, seconds = TRAINED[key]
    return Titler(titler.model, titler.inputs, GenerateSettings.read(model)), seconds


def train_titler(model: str, train: pd.DataFrame) -> Titler:
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
    lessons = len(examples[LESSON].drop_duplicates())
    true = measure_titles(examples)
    used = sorted(set(titled["fold"]))
    only = f"; only folds {', '.join(map(str, used))} are measured" if len(used) < count else ""
    lines = [
        f"{describe_machine()}, {torch.get_num_threads()} thread(s). "
        f"{len(examples)} examples of {lessons} lessons, each lesson held out once in {count} folds{only}. "
        f"In brackets: {evaluation.confidence:.0%} intervals over lessons (docs/measuring.md). BERTScore by "
        f"{evaluation.bertscore_model}, layer {evaluation.bertscore_layers}. Of the true titles, {true.repeats:.1%} "
        f"repeat within a lesson, and their support is {true.support:.3f}.",
        "",
        f"| model | {' | '.join(SHOWN)} | rouge1 by fold | mean without the rule for openings | repeats | support | "
        "training, s a fold | titles, s a fold |",
        f"|---|{'--:|' * len(SHOWN)}---|--:|--:|--:|--:|--:|",
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
        measures = measure_titles(mine.assign(title=mine["prediction"]).reset_index(drop=True))
        cells += [f"{own.groupby(fold).mean().mean():.3f}", f"{measures.repeats:.1%}", f"{measures.support:.3f}"]
        cells += [f"{mine.groupby('fold')[step].first().mean():.0f}" for step in ("trained", "titled")]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def about_together(titled: pd.DataFrame, models: list[str]) -> str:
    """Say how ROUGE-1 changes when the titles of a lesson are chosen together."""
    lines = []
    for model in models:
        alone, together = (titled[titled["model"] == name] for name in (model, model + TOGETHER))
        change = sum_by_unit(rouge1(together) - rouge1(alone), units_of(alone, "lesson"))
        by = f"{change.mean:+.4f} (standard error {standard_error(change):.4f} over lessons)"
        lines.append(f"{model}: when chosen together, ROUGE-1 changes by {by}.")
    return "\n".join(lines)


def about_agreement(titled: pd.DataFrame, first_of: dict[str, str]) -> str:
    """Say what several models together gain over the first of them, without the usual title for openings."""
    lines = []
    for several, model in first_of.items():
        first, agreed = (titled[titled["model"] == name] for name in (model, several))
        gain = rouge1(agreed.assign(prediction=agreed["own"])) - rouge1(first.assign(prediction=first["own"]))
        change = sum_by_unit(gain, units_of(first, "lesson"))
        by = f"{change.mean:+.4f} (standard error {standard_error(change):.4f} over lessons)"
        lines.append(f"{several}: without the rule for openings, ROUGE-1 changes by {by} from that of {model}.")
    return "\n".join(lines)


def rouge1(titled: pd.DataFrame) -> pd.Series:
    scores = score_titles([*titled["prediction"]], [*titled["title"]], EvaluateSettings.read(), bertscore=False)
    return scores["rouge1"]


if __name__ == "__main__":
    main()
