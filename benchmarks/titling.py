"""How fast the registered version writes many titles: as `lectern title WORKBOOK` asks for them, and one by one.

    python benchmarks/titling.py [--texts 64] [--model FOLDER]

Run in a project folder: the version is the champion, else the challenger; or, with --model, a trained model's folder.
The texts are distinct ones of the embedded workbook. Both ways use the same model in the same process, which is loaded
and has written a title before the clock starts. Beam search and padding leave room for a title to differ now and then:
how many are alike is printed.
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

import torch
from quality import read_examples

from pipeline.models.generation import GenerateSettings, open_titler
from pipeline.registry.versions import TRIAL_TEXT
from pipeline.titles import version

GOAL = 3

Write = Callable[[list[str]], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--model", type=Path, help="a trained model's folder instead of the registered version")
    options = parser.parse_args()
    name, write = writer(options.model)
    with tempfile.TemporaryDirectory() as folder:
        texts = read_examples(None, Path(folder))["text"].drop_duplicates().tolist()[: options.texts]
    write([TRIAL_TEXT])
    single, alone = timed(lambda: [write([text])[0] for text in texts])
    many, together = timed(lambda: in_chunks(write, texts))
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{name}, {len(texts)} texts: {alone:.1f} s one by one, {together:.1f} s together")
    same = sum(a == b for a, b in zip(single, many, strict=True))
    print(f"{alone / together:.2f} times faster (goal: {GOAL}); {same} of {len(texts)} titles alike")


def writer(folder: Path | None) -> tuple[str, Write]:
    if folder is None:
        found = version.present_version()
        write = version.writer_of(found)
        return f"version {found}", lambda texts: [each.title for each in write(texts)]
    titler = open_titler(folder, GenerateSettings.read(folder.name))
    return f"model {folder}", titler.best_titles


def in_chunks(write: Write, texts: list[str]) -> list[str]:
    """As `title_texts` does it, without its files."""
    written: dict[str, str] = {}
    for chunk in version.chunks(version.longest_first(texts)):
        written |= zip(chunk, write(chunk), strict=True)
    return [written[text] for text in texts]


def timed(work: Callable[[], list[str]]) -> tuple[list[str], float]:
    start = time.monotonic()
    found = work()
    return found, time.monotonic() - start


if __name__ == "__main__":
    main()
