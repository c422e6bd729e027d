"""Export a registered version for fast inference, and compare the export with the plain model on the test split.

The comparison uses no sampling, even for a version that samples its titles: with the same seed the two models sample
different titles, which would hide the effect of the conversion.
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
from pipeline.exports.export_card import ENGINE, FASTER, ExportCard, Loss, Measured, Weights
from pipeline.exports.fast_titler import FastTitler
from pipeline.files import folder_aside
from pipeline.models.checkpoint_sources import find_checkpoint
from pipeline.models.device import inference_device
from pipeline.models.generation import decoder_start, open_titler
from pipeline.paths import SPLITS
from pipeline.registry.versions import settings_of

TOLERATED = 0.01
"""Largest loss of ROUGE-1 that is tolerated: one point."""

_WEIGHTS: tuple[Weights, ...] = ("float32", "int8")
_LIBRARIES = ("ctranslate2", "transformers", "torch")


class _Titler(Protocol):
    def best_titles(self, texts: list[str], *, progress: str | None = None) -> list[str]: ...


def export(version: ModelVersion, out: Path, examples: int | None = None) -> ExportCard:
    """Write `version` to the folder `out` with the weights that `choose_weights` chooses.

    Args:
        examples: the number of test examples for the comparison; None for all.

    Raises:
        UsageError: there is no test split, or torch uses a GPU.
        Rejected: the architecture cannot be converted, or the converted model writes worse titles or is not faster.
            An earlier export in `out` is removed.
    """
    if inference_device() != "cpu":
        raise UsageError(
            "An export writes titles on the CPU, and the GPU of this machine is faster. To export for machines without "
            "a GPU, run `CUDA_VISIBLE_DEVICES= lectern export`."
        )
    test = _test_split(examples)
    model = find_checkpoint(f"models:/{version.name}/{version.version}")
    generate = settings_of(version)
    without_sampling = generate.with_overrides({"do_sample": False, "candidates": 1})
    plain = open_titler(model, without_sampling)
    start = [] if plain.inputs.family.causal else decoder_start(plain.model.config, plain.inputs)
    with tempfile.TemporaryDirectory() as scratch:
        # Converted first, so that a model that cannot be converted fails before minutes are spent on titles.
        for weights in _WEIGHTS:
            convert(model, Path(scratch) / weights / ENGINE, weights)
        of_plain = _write_titles(plain, test, "plain")
        del plain
        measured = {"plain": _measure(of_plain, None, test)}
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
            add_other_files(folder, model, card.model_copy(update={"weights": weights}))
            converted = _write_titles(FastTitler(folder, without_sampling), test, weights)
            measured[weights] = _measure(converted, of_plain, test)
        try:
            weights = choose_weights(measured)
        except Rejected:
            shutil.rmtree(out, ignore_errors=True)
            raise
        card = card.model_copy(update={"weights": weights, "measured": measured})
        with folder_aside(out) as aside:
            shutil.copytree(Path(scratch) / card.weights, aside, dirs_exist_ok=True)
            card.write(aside)
    return card


def choose_weights(measured: Mapping[str, Measured]) -> Weights:
    """Choose the fastest weights whose loss is tolerated.

    int8 changes the weights, so its loss must be below `TOLERATED` with confidence (a non-inferiority test: Piaggio et
    al., 2012, "Reporting of noninferiority and equivalence randomized trials"). float32 only changes the program that
    reads them, so it is refused only if its loss is above `TOLERATED` with confidence.

    Args:
        measured: the results of the model itself (`plain`) and of the conversions to int8 and float32.

    Raises:
        Rejected: both lose too much, so the conversion is at fault; or neither is `FASTER` than the model itself.
    """
    int8, float32 = measured["int8"].loss, measured["float32"].loss
    assert int8, "the loss of a conversion is measured"
    assert float32, "the loss of a conversion is measured"
    tolerated: list[Weights] = []
    if int8.high <= TOLERATED:
        tolerated.append("int8")
    if float32.low <= TOLERATED:
        tolerated.append("float32")
    if not tolerated:
        raise Rejected(
            f"Even in float32 the conversion loses {float32.mean:.4f} [{float32.low:.4f}, {float32.high:.4f}] ROUGE-1, "
            f"more than {TOLERATED:g}. The conversion is at fault, so no export is kept."
        )
    fastest = max(tolerated, key=lambda weights: measured[weights].titles_a_second)
    chosen, plain = measured[fastest], measured["plain"]
    if not chosen.is_faster_than(plain):
        only = "" if "int8" in tolerated else f" int8 may lose {int8.high:.4f} ROUGE-1, more than {TOLERATED:g}."
        raise Rejected(
            f"With {fastest} weights, an export writes {chosen.titles_a_second:.2f} titles a second, and the model "
            f"itself {plain.titles_a_second:.2f}. That is less than {FASTER:g} times as many, so no export is kept."
            f"{only}"
        )
    return fastest


@dataclass(frozen=True)
class _Titles:
    """Titles for the test split and the time that they took."""

    titles: list[str]
    seconds: float


def _write_titles(titler: _Titler, test: pd.DataFrame, name: str) -> _Titles:
    texts = marked_texts(test)
    titler.best_titles(texts[:1])  # the first call also sets things up and would distort the speed
    start = time.monotonic()
    titles = titler.best_titles(texts, progress=name)
    return _Titles(titles, time.monotonic() - start)


def _measure(written: _Titles, plain: _Titles | None, test: pd.DataFrame) -> Measured:
    """Measure quality and speed, compared with the plain model's titles; `plain` is None for these themselves."""
    true = test["title"].tolist()
    scores, plain_scores = (_scores(each.titles, true) for each in (written, plain or written))
    same = sum(map(str.__eq__, written.titles, (plain or written).titles)) / len(true)
    return Measured(
        rouge1=round(fmean(scores), 4),
        same_titles=round(same, 4),
        titles_a_second=round(len(true) / written.seconds, 2),
        loss=measure_loss(plain_scores, scores, test) if plain else None,
    )


def _scores(titles: list[str], true: list[str]) -> list[float]:
    """Score words of any script: if all scores were 0, no conversion could be worse than the plain model."""
    return rouge1(titles, true, stem=True)


def measure_loss(plain: Sequence[float], converted: Sequence[float], test: pd.DataFrame) -> Loss:
    """Return the mean loss of ROUGE-1 by a conversion, with its lower and its upper bound.

    Args:
        plain, converted: one score per row of `test`.
    """
    level = 1 - EvaluateSettings.read().confidence
    found = compare(plain, converted, units_of(test, read_unit()).tolist(), level=level)
    return Loss(mean=found.mean, low=found.low, high=found.high)


def add_other_files(folder: Path, model: Path, card: ExportCard) -> None:
    """Copy the other files of the model folder, such as the tokenizer, to the converted weights, and write the card."""
    for file in model.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copy(file, folder / file.name)
    card.write(folder)


def _test_split(examples: int | None) -> pd.DataFrame:
    path = SPLITS / "test.parquet"
    if not path.exists():
        raise UsageError(f"{path} is missing; exports are measured on it. Run `dvc repro split` or `dvc pull`.")
    test = pd.read_parquet(path)
    return test.sample(n=min(examples or len(test), len(test)), random_state=1)
