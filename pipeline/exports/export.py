"""A registered version as a folder for quick inference, measured against the plain model as it is made."""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from statistics import fmean
from typing import Protocol

import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from pipeline.data.openings import asked
from pipeline.errors import Misused, Refused
from pipeline.evaluation.words import rouge1
from pipeline.exports.card import CARD, ENGINE, ExportCard, Measured, Weights
from pipeline.exports.convert import convert
from pipeline.exports.titler import FastTitler
from pipeline.files import folder_aside
from pipeline.models.generation import decoder_start, open_titler
from pipeline.models.places import find
from pipeline.paths import SPLITS
from pipeline.registry.versions import settings_of

TOLERATED = 0.005
"""ROUGE-1 that a conversion may lose of the plain model's: half a point."""

_WEIGHTS: tuple[Weights, ...] = ("float32", "int8")
_LIBRARIES = ("ctranslate2", "transformers", "torch")


class _Writes(Protocol):
    def best_titles(self, texts: list[str], *, progress: str | None = None) -> list[str]: ...


def export(version: ModelVersion, out: Path, examples: int | None = None) -> ExportCard:
    """Writes `version` to the folder `out`: with weights of 8 bits, unless titles get worse by more than `TOLERATED`.

    Args:
        examples: of the test split that are titled in each way; all where it is None.

    Raises:
        Misused: `out` is there and no export, or there is no test split here.
        Refused: its architecture cannot be converted, or the conversion writes worse titles.
    """
    if out.exists() and not (out / CARD).exists():
        raise Misused(f"{out} exists, and is no export. Name another folder with --out.")
    test = _test_split(examples)
    model = find(f"models:/{version.name}/{version.version}")
    generate = settings_of(version)
    plain = open_titler(model, generate)
    start = [] if plain.inputs.family.causal else decoder_start(plain.model.config, plain.inputs)
    with tempfile.TemporaryDirectory() as scratch:
        # Converted first, so that what cannot be is said before minutes are spent on titles.
        for weights in _WEIGHTS:
            convert(model, Path(scratch) / weights / ENGINE, weights)
        titles, by_itself = _measure(plain, test, None, "plain")
        del plain
        measured = {"plain": by_itself}
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
            _, measured[weights] = _measure(FastTitler(folder), test, titles, weights)
        card = card.model_copy(update={"weights": kept(measured), "measured": measured})
        with folder_aside(out) as aside:
            shutil.copytree(Path(scratch) / card.weights, aside, dirs_exist_ok=True)
            card.write(aside)
    return card


def kept(measured: dict[str, Measured]) -> Weights:
    """int8 if it is good enough, else float32.

    Raises:
        Refused: neither is.
    """
    least = measured["plain"].rouge1 - TOLERATED
    for weights in reversed(_WEIGHTS):
        if measured[weights].rouge1 >= least:
            return weights
    raise Refused(
        f"Converted, the model has ROUGE-1 {measured['float32'].rouge1:.4f}, and {measured['plain'].rouge1:.4f} as it "
        "is: the conversion is not faithful, and nothing was exported. Serve the version plain."
    )


def _measure(titler: _Writes, test: pd.DataFrame, plain: list[str] | None, name: str) -> tuple[list[str], Measured]:
    """Titles for `test`, and how good and how quick they are.

    Args:
        plain: the plain model's titles, once there are some to compare with.
    """
    texts = asked(test)
    titler.best_titles(texts[:1])  # what is set up at the first call is not the speed of the others
    start = time.monotonic()
    titles = titler.best_titles(texts, progress=name)
    seconds = time.monotonic() - start
    same = sum(map(str.__eq__, titles, plain or titles)) / len(titles)
    # In words of any script: where all scores are 0, no conversion would look worse than the plain model.
    score = fmean(rouge1(titles, test["title"].tolist(), stem=True))
    return titles, Measured(
        rouge1=round(score, 4), same_titles=round(same, 4), titles_a_second=round(len(titles) / seconds, 2)
    )


def complete(folder: Path, model: Path, card: ExportCard) -> None:
    """Puts beside the converted weights all of `model` but its own."""
    for file in model.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copy(file, folder / file.name)
    card.write(folder)


def _test_split(examples: int | None) -> pd.DataFrame:
    path = SPLITS / "test.parquet"
    if not path.exists():
        raise Misused(f"{path} is not here, and an export is measured on it. Run `dvc repro split`, or `dvc pull`.")
    test = pd.read_parquet(path)
    return test.sample(n=min(examples or len(test), len(test)), random_state=1)
