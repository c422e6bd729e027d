"""Measure how fast the registered version writes many titles together, as for a workbook, and one by one.

    python benchmarks/titling.py [--texts 64] [--model FOLDER]
    python benchmarks/titling.py --talk 90

Run it in a project folder: it uses the champion, else the challenger, and also times one command per passage. With
--model it uses a trained model, and prints the time to read the texts in batches, which limits its speed. All texts are
different texts of the embedded workbook. Both ways use the same model in the same process, which is loaded and has
written a title before the clock starts. Beam search and padding can change a title; the number of equal titles is
printed.

With --talk it cuts a talk of so many minutes into chapters and titles them: chapter by chapter, and chosen together. It
prints CPU seconds, which other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from machine import describe_machine
from workbooks import read_examples

from pipeline.chapters.divide_transcript import divide_transcript
from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.models.generation import GenerateSettings, Titler, open_titler
from pipeline.registry.chapter_titles import add_titles, untitled_texts
from pipeline.registry.promotion import TRIAL_TEXT
from pipeline.titles.batch_titling import chunks, longest_first
from pipeline.titles.served_version import find_served_version, load_segmenter, load_titler, load_version
from pipeline.transcripts.transcript import Line, Transcript, end_of_transcript

GOAL = 3
RATE_GOAL = 5
TALK_GOAL = 1.2
WORDS_PER_MINUTE, WORDS_PER_LINE = 150, 10
COMMANDS = 3  # that are timed

T = TypeVar("T")
Write = Callable[[list[str]], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--model", type=Path, help="folder of a trained model instead of the registered version")
    parser.add_argument("--talk", type=float, metavar="MINUTES", help="measure the chapters of a talk instead")
    options = parser.parse_args()
    print(f"{describe_machine()}, {torch.get_num_threads()} threads")
    if options.talk:
        print(talk_times(options.talk))
        return
    name, write = writer(options.model)
    with tempfile.TemporaryDirectory() as folder:
        texts = read_examples(None, Path(folder))["text"].drop_duplicates().tolist()[: options.texts]
    write([TRIAL_TEXT])
    single, alone = timed(lambda: [write([text])[0] for text in texts])
    before = time.process_time()
    many, together = timed(lambda: [*map(in_chunks(write, texts).get, texts)])
    used = time.process_time() - before
    print(f"{name}, {len(texts)} texts: {alone:.1f} s one by one, {together:.1f} s together")
    rate = f"{len(texts) / together:.2f} titles a second together (goal for T5 on 2 cores: {RATE_GOAL})"
    print(f"{rate}, {len(texts) / used:.2f} per second of CPU time")
    same = sum(a == b for a, b in zip(single, many, strict=True))
    print(f"{alone / together:.2f} times faster (goal: {GOAL}); {same} of {len(texts)} titles alike")
    if options.model:
        _, reading = timed(lambda: read(options.model, texts))
        print(f"Of the time together, {reading:.1f} s are the reading of the texts, which one by one takes no less")
    else:
        _, commands = timed(lambda: [command(text) for text in texts[:COMMANDS]])
        print(
            f"A command for each passage: {commands / COMMANDS * len(texts) / together:.0f} times as long as together"
        )


def talk_times(minutes: float) -> str:
    version, settings = find_served_version(), ChaptersSettings.read()
    talk, segmenter, predict, write = (
        talk_of(minutes),
        load_segmenter(version),
        load_version(version),
        load_titler(version),
    )
    write([TRIAL_TEXT])
    divide_transcript(talk_of(5), settings, segmenter=segmenter)  # loads the encoder
    lesson, cutting = timed(lambda: divide_transcript(talk, settings, segmenter=segmenter), clock=time.process_time)
    texts = untitled_texts([lesson])
    _, alone = timed(lambda: [predict(chunk, {}) for chunk in chunks(longest_first(texts))], clock=time.process_time)
    done, together = timed(lambda: add_titles(lesson, in_chunks(write, texts), merge=True), clock=time.process_time)
    return (
        f"version {version}, a talk of {minutes:g} minutes: {cutting:.1f} s of CPU time for {len(lesson.chapters)} "
        f"chapters, {alone:.1f} s for their titles one by one, {together:.1f} s chosen together, for "
        f"{len(done.chapters)} chapters\n{(cutting + together) / (cutting + alone):.2f} times as long in all (goal: "
        f"at most {TALK_GOAL})"
    )


def talk_of(minutes: float) -> Transcript:
    """Make a talk from the texts of the embedded workbook."""
    with tempfile.TemporaryDirectory() as folder:
        words = " ".join(read_examples(None, Path(folder))["text"]).split()
    words = words[: round(minutes * WORDS_PER_MINUTE)]
    lines = [
        Line(60 * start / WORDS_PER_MINUTE, " ".join(words[start : start + WORDS_PER_LINE]))
        for start in range(0, len(words), WORDS_PER_LINE)
    ]
    return Transcript("Sample", "1", lines, end_of_transcript(lines))


def writer(folder: Path | None) -> tuple[str, Write]:
    if folder is None:
        found = find_served_version()
        write = load_titler(found)
        return f"version {found}", lambda texts: [each.title for each in write(texts)]
    return f"model {folder}", titler_of(folder).best_titles


@cache
def titler_of(folder: Path) -> Titler:
    return open_titler(folder, GenerateSettings.read(folder.name))


@torch.inference_mode()
def read(folder: Path, texts: list[str]) -> None:
    """Pass the texts through the encoder or the causal model, in the same batches as for their titles."""
    titler = titler_of(folder)
    causal = titler.inputs.family.causal
    sources = sorted(map(titler.inputs.source, texts), key=len, reverse=True)
    for start in range(0, len(sources), titler.settings.batch_size):
        batch = titler.inputs.batch(sources[start : start + titler.settings.batch_size])
        if causal:
            titler.model(**batch, logits_to_keep=1)
        else:
            titler.model.get_encoder()(**batch)


def command(text: str) -> str:
    done = subprocess.run([sys.executable, "-m", "lectern", "title", text], capture_output=True, text=True, check=True)
    return done.stdout


def in_chunks(write: Callable[[list[str]], list[T]], texts: list[str]) -> dict[str, T]:
    """Write titles by text as `title_texts` does, without its files."""
    written: dict[str, T] = {}
    for chunk in chunks(longest_first(texts)):
        written |= zip(chunk, write(chunk), strict=True)
    return written


def timed(work: Callable[[], T], *, clock: Callable[[], float] = time.monotonic) -> tuple[T, float]:
    start = clock()
    found = work()
    return found, clock() - start


if __name__ == "__main__":
    main()
