"""Measure what a newcomer waits for, side by side with yardsticks, and print the table and the leaderboard.

    python benchmarks/first_run.py [WORKBOOK] [--repeats 5] [--project FOLDER]

It clones the repository and runs it in the active environment; the time to install is not included. The first run, its
yardstick and the promotion take minutes, so they are measured once. Of the other rows, command and yardstick take turns
`--repeats` times, and their medians count. WORKBOOK is an .xlsx file to use instead of the embedded workbook. FOLDER is
a clone that has run already: without a first run, the other rows take a few minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import NamedTuple

from machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
PASSAGE = (
    "so in this part we look at how a learning rate that is too high makes the loss go up instead of down, and at how "
    "a schedule that starts low, rises and falls again lets the training use a higher rate for most of its steps"
)
LINE = "and now we look at step {} of the recipe, which is about flour, water, salt and time"


class Cost(NamedTuple):
    """Time and memory of one process."""

    seconds: float
    processor_seconds: float  # with its children; other work on the machine hardly changes them
    gigabytes: float  # at its peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", nargs="?", type=Path, help="an .xlsx file to use instead of the embedded workbook")
    parser.add_argument("--repeats", type=int, default=5, help="runs of the rows that take seconds")
    parser.add_argument("--project", type=Path, help="a clone that has run already; leaves out the first run")
    parser.add_argument("--bare", choices=BARE, help=argparse.SUPPRESS)  # this process is a yardstick
    options = parser.parse_args()
    if options.bare:
        BARE[options.bare]()
        return
    print(f"{describe_machine()}, load {os.getloadavg()[0]:.1f}\n")
    print("| what | yardstick | seconds | of the yardstick | ratio | processor seconds | must |")
    print("|---|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        scratch, project = Path(folder), options.project
        if project is None:
            project = scratch / "lectern"
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
            measure_first_run(project, options.workbook)
        measure_commands(project.resolve(), scratch, options.repeats)
        measure_promotion(project.resolve())
        print(f"\n{(project / 'reports/leaderboard.md').read_text(encoding='utf-8')}")


def measure_first_run(project: Path, workbook: Path | None) -> None:
    if workbook:
        run(lectern("use", str(workbook.resolve())), project)
    ours, yardstick = run(lectern("run"), project), bare("training", project)
    show("`lectern run`, first time (once)", "`Seq2SeqTrainer`, the same models", [ours], [yardstick], 1)


def measure_commands(project: Path, scratch: Path, repeats: int) -> None:
    talk, refused, book = scratch / "talk.txt", scratch / "refused.txt", scratch / "small.xlsx"
    talk.write_text("\n".join(f"{10 * n // 60}:{10 * n % 60:02} {LINE.format(n)}" for n in range(30)), "utf-8")
    refused.write_text("words without times", "utf-8")
    write_small_workbook(book)

    def take_turns(ours: Callable[[], Cost], yardstick: Callable[[], Cost]) -> tuple[list[Cost], list[Cost]]:
        pairs = [(ours(), yardstick()) for _ in range(repeats)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def command(*words: str, accept: int = 0) -> Callable[[], Cost]:
        return lambda: run(lectern(*words), project, accept)

    title, chapters = command("title", PASSAGE), command("chapters", str(talk))
    costs = take_turns(title, lambda: bare("title", project))
    show("`lectern title TEXT`", "`transformers`, the same checkpoint", *costs, 1.1, memory=1.2)
    show("`lectern chapters`, 30 lines", "`lectern title TEXT`", *take_turns(chapters, title), 1.25)
    costs = take_turns(command("chapters", str(refused), accept=1), command("check", str(book)))
    show("a transcript that is refused", "`lectern check`, small workbook", *costs, 1.5)
    costs = take_turns(command("models"), lambda: run([sys.executable, "-c", "import mlflow"], project))
    show("`lectern models`", "`import mlflow`", *costs, 1.2)
    costs = take_turns(command("run"), lambda: run([sys.executable, "-m", "dvc", "repro"], project))
    show("`lectern run`, nothing stale", "`dvc repro`, nothing stale", *costs, 4)


def measure_promotion(project: Path) -> None:
    """Measure one promotion, accepted or refused, and take it back."""
    database, before = project / "mlflow.db", project / "mlflow.db.before"
    shutil.copy(database, before)
    try:
        ours = run(lectern("promote", "--because", "a benchmark"), project, accept=1)
    finally:
        shutil.move(before, database)
    show("`lectern promote` (once)", "titling the test split", [ours], [bare("split", project)], 2.5)


def show(
    what: str, yardstick: str, ours: Sequence[Cost], theirs: Sequence[Cost], most: float, memory: float | None = None
) -> None:
    """Print a row of the table, and one for the memory if that has a limit too."""
    medians = [Cost(*map(median, zip(*side, strict=True))) for side in (ours, theirs)]
    (seconds, other), (processor, its), (own, bare_gb) = zip(*medians, strict=True)
    row = f"{seconds:.1f} | {other:.1f} | {seconds / other:.2f} | {processor / its:.2f} | {most}"
    print(f"| {what} | {yardstick} | {row} |", flush=True)
    if memory:
        print(
            f"| the same, memory | | {own:.2f} GB | {bare_gb:.2f} GB | {own / bare_gb:.2f} | | {memory} |", flush=True
        )


def lectern(*words: str) -> list[str]:
    return [sys.executable, "-m", "lectern", *words]


def bare(yardstick: str, project: Path) -> Cost:
    return run([sys.executable, __file__, "--bare", yardstick], project)


def run(command: Sequence[str], cwd: Path, accept: int = 0, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command and return its cost. End this process if the exit code is neither 0 nor `accept`.

    Args:
        env: variables added to those of this process. By default, the code of the project in `cwd` is used.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        env = {**os.environ, "PATH": path, **({"PYTHONPATH": str(cwd)} if env is None else env)}
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        taken = time.monotonic() - start
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if code not in (0, accept):
            output.seek(0)
            raise SystemExit(f"{' '.join(command)} exited with {code}\n{output.read().decode()}")
    return Cost(taken, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)


def write_small_workbook(path: Path) -> None:
    import openpyxl

    with closing(openpyxl.Workbook()) as book:
        for name, text in (("lesson_topics", "topic"), ("lesson_transcripts", "transcript")):
            sheet = book.create_sheet(name)
            sheet.append(["course_title", "lesson_num", "timestamp", text])
            for n in range(10):
                sheet.append(["Bread", "1", f"0:{n:02}:00", LINE.format(n)])
        book.remove(book.worksheets[0])
        book.save(path)


def bare_title() -> None:
    """Title one passage with the model that was registered, as a script of seven lines does."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    folder = "best_model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    causal = '"causal"' in Path(folder, "lectern.json").read_text(encoding="utf-8")
    model = (AutoModelForCausalLM if causal else AutoModelForSeq2SeqLM).from_pretrained(folder)
    inputs = tokenizer(PASSAGE, return_tensors="pt", truncation=True, max_length=256)
    written = model.generate(**inputs, num_beams=1 if causal else 4, max_new_tokens=24)
    print(tokenizer.decode(written[0], skip_special_tokens=True))


def bare_split() -> None:
    """Title the test split once with the model that was registered."""
    import json

    import pandas as pd

    from pipeline.models.generation import GenerateSettings, open_titler

    model = json.loads(Path("reports/registered.json").read_text(encoding="utf-8"))["model"]
    texts = pd.read_parquet("data/splits/test.parquet")["text"].tolist()
    open_titler(Path("best_model"), GenerateSettings.read(model)).best_titles(texts)


def bare_training() -> None:
    """Train and evaluate the contestants with `Seq2SeqTrainer` and `generate`, one after the other.

    The checkpoints, frozen layers, tokens, epochs, rates, beams and scores are Lectern's.
    """
    import pandas as pd
    import transformers
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    from pipeline.evaluation.metrics import EvaluateSettings, score_titles
    from pipeline.models.checkpoints import ModelSettings, open_checkpoint
    from pipeline.models.families import get_family
    from pipeline.models.generation import GenerateSettings
    from pipeline.models.inputs import Inputs
    from pipeline.models.layer_groups import freeze
    from pipeline.settings import read_params
    from pipeline.training.settings import TrainSettings

    train, validation, test = (
        pd.read_parquet(f"data/splits/{split}.parquet") for split in ("train", "validation", "test")
    )
    for name in read_params()["contestants"]:
        settings = ModelSettings.read(name)
        training, generation = TrainSettings.of_model(name, settings), GenerateSettings.read(name)
        transformers.set_seed(training.seed)
        model, tokenizer = open_checkpoint(settings, [*train["text"], *train["title"]])
        family = get_family(settings.family, settings.language)
        freeze(model, family, training.freeze, training.freeze_lower_layers)
        limits = {"max_source_tokens": settings.max_source_tokens, "max_target_tokens": settings.max_target_tokens}
        inputs = Inputs(family, tokenizer, **limits)

        def rows(examples: pd.DataFrame, inputs: Inputs = inputs) -> list[dict[str, list[int]]]:
            tokens = [inputs.example(*each) for each in zip(examples["text"], examples["title"], strict=True)]
            return [{"input_ids": each.source, "labels": each.labels} for each in tokens]

        with tempfile.TemporaryDirectory() as folder:
            arguments = Seq2SeqTrainingArguments(
                folder,
                num_train_epochs=training.epochs,
                learning_rate=training.learning_rate,
                per_device_train_batch_size=training.batch_size,
                eval_strategy="epoch",
                save_strategy="no",
                report_to=[],
                seed=training.seed,
            )
            tokenizer.padding_side = "right"
            trainer = Seq2SeqTrainer(
                model,
                arguments,
                data_collator=DataCollatorForSeq2Seq(tokenizer, None if family.causal else model),
                train_dataset=rows(train),
                eval_dataset=rows(validation),
                processing_class=tokenizer,
            )
            if training.epochs:
                trainer.train()
        model.eval()
        for examples in (validation, test):
            titles: list[str] = []
            for start in range(0, len(examples), generation.batch_size):
                texts = examples["text"][start : start + generation.batch_size]
                batch = inputs.batch([inputs.source(text) for text in texts])
                written = model.generate(
                    **batch,
                    num_beams=generation.num_beams,
                    max_new_tokens=generation.max_new_tokens,
                    no_repeat_ngram_size=generation.no_repeat_ngram_size,
                )
                written = written[:, batch["input_ids"].shape[1] :] if family.causal else written
                titles += tokenizer.batch_decode(written, skip_special_tokens=True)
            scores = score_titles(titles, examples["title"].tolist(), EvaluateSettings.read())
            print(name, f"ROUGE-1 {scores['rouge1'].mean():.3f}", flush=True)


BARE = {"title": bare_title, "split": bare_split, "training": bare_training}


if __name__ == "__main__":
    main()
