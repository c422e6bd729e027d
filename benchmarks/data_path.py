"""Measure how fast the data path is: on a real workbook against the obvious way, and on up to ten million lines.

    python benchmarks/data_path.py [WORKBOOK] [--lines 10_000_000]

WORKBOOK is an .xlsx file; by default one in $LECTERN_SHARED. Without a workbook, the first table is left out.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from machine import describe_machine
from workbooks import find_workbook

from pipeline.data.cell_values import as_lesson, as_name, as_seconds, as_text
from pipeline.data.examples import build_examples
from pipeline.data.workbook import Workbook, ingest
from pipeline.data.workbook_schema import LESSON, LINES, TOPICS

LINES_A_LESSON = 200
LINES_A_TOPIC = 10
LESSONS_A_WRITE = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", nargs="?", type=Path, help="an .xlsx file to read both ways")
    parser.add_argument("--lines", type=int, default=10_000_000, help="lines of the largest synthetic folder")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(walk(options.one)))
        return
    print(f"{describe_machine(['pandas', 'pyarrow'])}\n")
    workbook = find_workbook(options.workbook)
    if workbook:
        compare(workbook)
    grow(options.lines)


def compare(path: Path) -> None:
    """Check that the obvious way and Lectern give the same result, and print their times."""
    workbook = ingest(path)
    assert_same_tables(workbook, read_with_openpyxl(path))
    pd.testing.assert_frame_equal(
        merge_naively(workbook.topics, workbook.lines).reset_index(drop=True),
        build_examples(workbook.topics, workbook.lines).examples[[*LESSON, "start_seconds", "title", "text"]],
    )
    print(f"{len(workbook.topics):,} topics, {len(workbook.lines):,} lines; the same tables and examples both ways\n")
    print("| step | obvious, s | ours, s | times faster |\n|---|--:|--:|--:|")
    reading = seconds(lambda: read_with_openpyxl(path)), seconds(lambda: ingest(path))
    merging = (
        seconds(lambda: merge_naively(workbook.topics, workbook.lines)),
        seconds(lambda: build_examples(workbook.topics, workbook.lines)),
    )
    for step, (obvious, ours) in (("read (ours also checks)", reading), ("merge", merging)):
        print(f"| {step} | {obvious:.3f} | {ours:.3f} | {obvious / ours:.1f} |")
    print()


def seconds(work: Callable[[], object]) -> float:
    """Return the best time of three runs."""
    return min(timeit.repeat(work, number=1, repeat=3))


def read_with_openpyxl(path: Path) -> dict[str, pd.DataFrame]:
    return pd.read_excel(path, sheet_name=[TOPICS, LINES], engine="openpyxl")


def assert_same_tables(workbook: Workbook, sheets: dict[str, pd.DataFrame]) -> None:
    """Check that openpyxl reads the same value in every cell."""
    for rows, sheet in ((workbook.topics, sheets[TOPICS]), (workbook.lines, sheets[LINES])):
        assert (as_name(sheet["course_title"]) == rows["course_title"]).all()
        assert (as_lesson(sheet["lesson_num"]) == rows["lesson_num"]).all()
        time_column = "seconds" if "seconds" in rows else "start_seconds"
        assert (as_seconds(sheet["timestamp"]).seconds == rows[time_column]).all()
    assert (as_name(sheets[TOPICS]["topic"]) == workbook.topics["title"]).all()
    assert (as_text(sheets[LINES]["transcript"]) == workbook.lines["text"]).all()


def merge_naively(topics: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """Join every topic with every line of its lesson, filter to the topic's interval, and group."""
    topics = topics.assign(end=topics.groupby(LESSON)["start_seconds"].shift(-1, fill_value=np.inf))
    pairs = topics.drop(columns="row").merge(lines, on=LESSON)
    pairs = pairs[(pairs["seconds"] >= pairs["start_seconds"]) & (pairs["seconds"] < pairs["end"])]
    return pairs.groupby([*LESSON, "start_seconds", "title"])["text"].agg(" ".join).reset_index()


def grow(most: int) -> None:
    """Print the cost to read, check, join and write folders of growing size, each in its own process."""
    print("| lines | topics | read and check, s | merge, s | write, s | all, s | peak memory, GB |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for lines in [n for n in (100_000, 1_000_000) if n < most] + [most]:
        with tempfile.TemporaryDirectory() as folder:
            write_talks(Path(folder), lines // LINES_A_LESSON)
            command = [sys.executable, __file__, "--one", folder]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        steps = [result["read"], result["merge"], result["write"]]
        cells = [f"{result['lines']:,}", f"{result['topics']:,}", *(f"{s:.1f}" for s in (*steps, sum(steps)))]
        print(f"| {' | '.join(cells)} | {result['memory']:.2f} |", flush=True)


def walk(folder: Path) -> dict[str, float]:
    """Read, check, join and write the tables in `folder`. Return seconds per step and the peak memory in GB."""
    start = time.perf_counter()
    workbook = ingest(folder)
    read = time.perf_counter()
    merged = build_examples(workbook.topics, workbook.lines)
    joined = time.perf_counter()
    merged.examples.to_parquet(folder / "examples.parquet", index=False)
    merged.set_aside.to_csv(folder / "set_aside.csv", index=False)
    written = time.perf_counter()
    kept = int(merged.examples["lines"].map(len).sum())
    assert kept + (merged.set_aside["what"] == "line").sum() == len(workbook.lines)
    return {
        "lines": len(workbook.lines),
        "topics": len(workbook.topics),
        "read": read - start,
        "merge": joined - read,
        "write": written - joined,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def write_talks(folder: Path, lessons: int) -> None:
    """Write synthetic lessons as Parquet: random words, a topic every tenth line, times as durations."""
    random = np.random.default_rng(1)
    words = random.choice(list("abcdefghijklmnopqrstuvwxyz"), (3000, 6)).view("<U6").ravel()
    phrases = pa.array([" ".join(random.choice(words, 2)) for _ in range(50_000)])

    def table(numbers: np.ndarray, every: int, column: str, length: int) -> pa.Table:
        """Return a row every `every` lines of each lesson, with `length` phrases in `column`."""
        rows = LINES_A_LESSON // every
        lesson = np.repeat(numbers, rows)
        picked = [phrases.take(pa.array(random.integers(0, len(phrases), len(lesson)))) for _ in range(length)]
        columns = {
            "course_title": pc.binary_join_element_wise("Course", pc.cast(pa.array(lesson % 100), pa.string()), " "),
            "lesson_num": pc.cast(pa.array(lesson // 100), pa.string()),
            "timestamp": pa.array(np.tile(np.arange(rows) * every * 6500, len(numbers)), pa.duration("ms")),
            column: pc.binary_join_element_wise(*picked, " "),
        }
        return pa.table(columns)

    for name, every, column, length in ((TOPICS, LINES_A_TOPIC, "topic", 2), (LINES, 1, "transcript", 4)):
        schema = table(np.arange(1), every, column, length).schema
        with pq.ParquetWriter(folder / f"{name}.parquet", schema) as writer:
            for first in range(0, lessons, LESSONS_A_WRITE):
                numbers = np.arange(first, min(first + LESSONS_A_WRITE, lessons))
                writer.write_table(table(numbers, every, column, length))


if __name__ == "__main__":
    main()
