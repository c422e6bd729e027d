"""Measure how fast an exported model writes titles, against the plain one, and what that costs in quality.

    python benchmarks/serving.py [WORKBOOK] [--models t5-zero-shot smollm2-zero-shot FOLDER ...] [--texts 64]
                                 [--at-once 16] [--weights int8]

A model is an entry of params.yaml that is not trained, or the folder of a trained model. Titles are written with the
settings of params.yaml for that name, without sampling. Both models are loaded and have written a title before the
clock starts. Both use one thread, and the seconds are those of the CPU, so that other work on the machine does not
distort their ratio. The column `alike` counts the titles that are the same as the plain model's. WORKBOOK is an .xlsx
file; by default one in $LECTERN_SHARED, else the embedded workbook.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from machine import describe_machine
from workbooks import read_examples

from pipeline.evaluation.rouge import mean_rouge
from pipeline.exports.convert import convert
from pipeline.exports.export import add_other_files
from pipeline.exports.export_card import ENGINE, ExportCard
from pipeline.exports.fast_titler import FastTitler
from pipeline.models.checkpoints import Card, ModelSettings, open_checkpoint, save_model
from pipeline.models.generation import GenerateSettings, Titler, decoder_start, open_titler

Write = Callable[[list[str]], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", nargs="?", type=Path, help="an .xlsx file with lessons")
    parser.add_argument("--models", nargs="+", default=["t5-zero-shot"], help="entries of params.yaml, or folders")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--at-once", type=int, nargs="+", default=[16], help="texts of a batch")
    parser.add_argument("--weights", choices=("int8", "float32"), nargs="+", default=["float32", "int8"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{describe_machine(['torch', 'ctranslate2'])}, one thread, {options.texts} texts\n")
    print("| model | texts at once | weights | titles per CPU s: plain | exported | times faster |", end="")
    print(" ROUGE-1: plain | exported | alike |\n|---|--:|---|--:|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        examples = read_examples(options.workbook, scratch).drop_duplicates("text")
        examples = examples.sample(n=min(options.texts, len(examples)), random_state=1)
        for model in options.models:
            folder = Path(model) if Path(model).is_dir() else untrained(model, scratch / model)
            compare(folder, examples, options.weights, options.at_once, scratch)


def untrained(model: str, folder: Path) -> Path:
    """Write the checkpoint of an entry of params.yaml as a model folder."""
    settings = ModelSettings.read(model)
    folder.mkdir()
    card = Card(model=model, **settings.model_dump(include={*Card.model_fields} - {"model", "style"}))
    save_model(folder, *open_checkpoint(settings, []), card, settings.weights)
    return folder


def compare(folder: Path, examples: pd.DataFrame, weights: list[str], at_once: list[int], scratch: Path) -> None:
    plain = open_titler(folder, GenerateSettings.read(folder.name).with_overrides({"do_sample": False}))
    exported = {each: export(folder, plain, each, scratch / f"{folder.name}-{each}") for each in weights}
    texts, true = examples["text"].tolist(), examples["title"].tolist()
    for batch in at_once:
        settings = plain.settings.model_copy(update={"batch_size": batch})
        by_itself = Titler(plain.model, plain.inputs, settings, style=plain.style)
        titles, before = timed(by_itself.best_titles, texts)
        for each, where in exported.items():
            written, now = timed(FastTitler(where, settings, threads=1).best_titles, texts)
            cells = [folder.name, str(batch), each, f"{len(texts) / before:.2f}", f"{len(texts) / now:.2f}"]
            cells += [
                f"{before / now:.2f}",
                *(f"{mean_rouge(found, true)['rouge1']:.4f}" for found in (titles, written)),
            ]
            cells += [f"{sum(map(str.__eq__, titles, written))} of {len(texts)}"]
            print(f"| {' | '.join(cells)} |", flush=True)


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


def timed(write: Write, texts: list[str]) -> tuple[list[str], float]:
    """Write titles, and return them with the CPU seconds."""
    write(texts[:1])
    start = time.process_time()
    titles = write(texts)
    return titles, time.process_time() - start


if __name__ == "__main__":
    main()
