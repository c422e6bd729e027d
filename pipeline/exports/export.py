"""A registered version as a folder for quick inference, compared with the plain model on the test split.

Both write titles without sampling, also for a version that draws its titles: the plain and the converted model draw
different titles for the same seed, and that difference would hide what the conversion does.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from statistics import fmean
from typing import Protocol

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from pipeline.data.lesson_openings import marked_texts
from pipeline.errors import Rejected, UsageError
from pipeline.evaluation.comparison import compare
from pipeline.evaluation.intervals import read_unit, units_of
from pipeline.evaluation.metrics import EvaluateSettings
from pipeline.evaluation.unicode_rouge import rouge1
from pipeline.exports.convert import convert
from pipeline.exports.export_card import CARD, ENGINE, ExportCard, Loss, Measured, Weights
from pipeline.exports.fast_titler import FastTitler
from pipeline.files import folder_aside
from pipeline.models.checkpoint_sources import find
from pipeline.models.generation import decoder_start, open_titler
from pipeline.paths import SPLITS
from pipeline.registry.versions import settings_of

TOLERATED = 0.01
"""ROUGE-1 that weights of 8 bits may lose, with confidence: one point."""

_WEIGHTS: tuple[Weights, ...] = ("float32", "int8")
_LIBRARIES = ("ctranslate2", "transformers", "torch")


class _Writes(Protocol):
    def best_titles(self, texts: list[str], *, progress: str | None = None) -> list[str]: ...


def export(version: ModelVersion, out: Path, examples: int | None = None) -> ExportCard:
    """Write `version` to the folder `out`, with weights of 8 bits if they are shown to lose no more than `TOLERATED`.

    Args:
        examples: the number of test examples to title in each way; all of them if None.

    Raises:
        UsageError: `out` is there and no export, or there is no test split here.
        Rejected: its architecture cannot be converted, or the conversion writes worse titles.
    """
    if out.exists() and not (out / CARD).exists():
        raise UsageError(f"{out} exists, and is no export. Name another folder with --out.")
    test = _test_split(examples)
    model = find(f"models:/{version.name}/{version.version}")
    generate = settings_of(version)
    undrawn = generate.turned({"do_sample": False, "candidates": 1})
    plain = open_titler(model, undrawn)
    start = [] if plain.inputs.family.causal else decoder_start(plain.model.config, plain.inputs)
    with tempfile.TemporaryDirectory() as scratch:
        # Converted first, so that what cannot be is said before minutes are spent on titles.
        for weights in _WEIGHTS:
            convert(model, Path(scratch) / weights / ENGINE, weights)
        by_itself = _write_titles(plain, test, "plain")
        del plain
        measured = {"plain": _measure(by_itself, None, test)}
        card = ExportCard(
            version=f"{version.name}/{version.version}",
            model_md5=version.tags.get("model.md5", ""),
            generate=generate,
            decoder_start=start,
            weights="float32",
            tolerated=TOLERATED,
            examples=len(test),
            measured=measured,
            made=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            machine=f"{platform.machine()}, Python {platform.python_version()}",
            libraries={name: installed_version(name) for name in _LIBRARIES},
        )
        for weights in _WEIGHTS:
            folder = Path(scratch) / weights
            complete(folder, model, card.model_copy(update={"weights": weights}))
            converted = _write_titles(FastTitler(folder, undrawn), test, weights)
            measured[weights] = _measure(converted, by_itself, test)
        card = card.model_copy(update={"weights": kept(measured), "measured": measured})
        with folder_aside(out) as aside:
            shutil.copytree(Path(scratch) / card.weights, aside, dirs_exist_ok=True)
            card.write(aside)
    return card


def kept(measured: Mapping[str, Measured]) -> Weights:
    """The weights to keep: int8 if its loss is below `TOLERATED` with confidence, else float32.

    int8 changes the weights, so it has to show that it does no harm (a non-inferiority test: Piaggio et al., 2012,
    "Reporting of noninferiority and equivalence randomized trials"). float32 only changes the program that reads them,
    so it is refused only if its loss is above `TOLERATED` with confidence.

    Raises:
        Rejected: float32 is worse too, so the conversion is at fault.
    """
    if measured["int8"].loss.high <= TOLERATED:
        return "int8"
    lost = measured["float32"].loss
    if lost.low <= TOLERATED:
        return "float32"
    raise Rejected(
        f"Converted, the model loses {lost.mean:.4f} [{lost.low:.4f}, {lost.high:.4f}] of its ROUGE-1 in float32 "
        f"already, more than {TOLERATED:g}. The conversion is at fault, and nothing was exported. Serve the version "
        "plain: `lectern serve` without --fast."
    )


@dataclass(frozen=True)
class _Titles:
    """Titles for the test split, and their speed."""

    titles: list[str]
    seconds: float


def _write_titles(titler: _Writes, test: pd.DataFrame, name: str) -> _Titles:
    texts = marked_texts(test)
    titler.best_titles(texts[:1])  # what is set up at the first call is not the speed of the others
    start = time.monotonic()
    titles = titler.best_titles(texts, progress=name)
    return _Titles(titles, time.monotonic() - start)


def _measure(written: _Titles, plain: _Titles | None, test: pd.DataFrame) -> Measured:
    """The quality and the speed of titles, beside the plain model's; `plain` is None for its own."""
    true = test["title"].tolist()
    scores, of_plain = (_scores(each.titles, true) for each in (written, plain or written))
    same = sum(map(str.__eq__, written.titles, (plain or written).titles)) / len(true)
    return Measured(
        rouge1=round(fmean(scores), 4),
        same_titles=round(same, 4),
        titles_a_second=round(len(true) / written.seconds, 2),
        loss=loss(of_plain, scores, test) if plain else None,
    )


def _scores(titles: list[str], true: list[str]) -> list[float]:
    """In words of any script: where all scores are 0, no conversion would look worse than the plain model."""
    return rouge1(titles, true, stem=True)


def loss(plain: Sequence[float], converted: Sequence[float], test: pd.DataFrame) -> Loss:
    """The mean ROUGE-1 that a conversion loses of the plain model's, with its lower and its upper bound.

    Args:
        plain, converted: a score for each row of `test`.
    """
    level = 1 - EvaluateSettings.read().confidence
    found = compare(plain, converted, units_of(test, read_unit()), level=level)
    return Loss(mean=found.mean, low=found.low, high=found.high)


def complete(folder: Path, model: Path, card: ExportCard) -> None:
    """Puts beside the converted weights all of `model` but its own."""
    for file in model.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copy(file, folder / file.name)
    card.write(folder)


def _test_split(examples: int | None) -> pd.DataFrame:
    path = SPLITS / "test.parquet"
    if not path.exists():
        raise UsageError(f"{path} is not here, and an export is measured on it. Run `dvc repro split`, or `dvc pull`.")
    test = pd.read_parquet(path)
    return test.sample(n=min(examples or len(test), len(test)), random_state=1)
