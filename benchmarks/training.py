"""Compare the speed of Lectern's training with `Seq2SeqTrainer` as in the library's summarization example.

    python benchmarks/training.py [WORKBOOK] [--models t5 bart-base] [--train 32] [--validation 8]
                                  [--frozen-epochs 10] [--whole-epochs 3] [--precision float32] [--compile]

The checkpoint of `t5` is that of params.yaml. That of bart-base is random, with the size and class of the real one.
Both sides use the same texts (512 tokens), batches of 8, epochs, learning rates, precision and seed. After each epoch
both compute loss, greedy titles and ROUGE, and save a checkpoint. The table shows the loss of the final weights, those
of the best epoch, measured in the same way after the clock has stopped: the mean of the title tokens of the validation
split, in float32, without padding and cache. WORKBOOK is an .xlsx file. By default it is the first workbook in
$LECTERN_SHARED, or else the embedded one.

Both sides use one thread, and the seconds are those of the CPU, so that other work on the machine does not distort
their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import timeit
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import both_sides
import numpy as np
import pandas as pd
import torch
import transformers
from machine import describe_machine
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from workbooks import read_examples

from pipeline.data.split import SplitSettings, split
from pipeline.evaluation.rouge import mean_rouge
from pipeline.models.checkpoints import ModelSettings, open_checkpoint
from pipeline.models.families import FAMILIES
from pipeline.models.inputs import Inputs, prefix_tokens
from pipeline.models.layer_groups import freeze
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import fit

ROOT = Path(__file__).resolve().parents[1]
SOURCE_TOKENS, TARGET_TOKENS = 512, 40
BATCH, RATE = 8, 5e-4
GOALS = {"decoder": 6.0, "all": 1.5}  # times faster than the peer
LOSS_TOLERANCE = {"decoder": 0.01, "all": 0.02}  # largest relative difference to the peer's loss
SPLIT = SplitSettings(by="lesson", validation=0.15, test=0.2, seed=1)


T5 = "t5"
MODELS = {T5: "t5", "bart-base": "bart"}
"""The family of each model."""


@dataclass(frozen=True)
class Task:
    """Training of one row of the table, for both sides."""

    model: str
    trained: str  # decoder | all
    epochs: int
    precision: str
    compiled: bool  # only on Lectern's side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", nargs="?", type=Path, help="an .xlsx with lessons")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[T5])
    parser.add_argument("--train", type=int, default=32, help="examples to train on")
    parser.add_argument("--validation", type=int, default=8, help="examples for the measurement after each epoch")
    parser.add_argument(
        "--frozen-epochs", type=int, default=10, help="epochs with embedding and encoder frozen; 0 skips this row"
    )
    parser.add_argument("--whole-epochs", type=int, default=3, help="epochs of the whole model; 0 skips this row")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="precision of both sides"
    )
    parser.add_argument("--compile", action="store_true", help="use torch.compile on Lectern's side")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(*options.side)))
        return
    print(f"{describe_machine()}, {options.precision}{', Lectern compiled' if options.compile else ''}")
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), options.workbook, options.train, options.validation)
        print("| model | trained | epochs | CPU s: peer | Lectern | times faster | loss: peer | Lectern |", end="")
        print(" GB: peer | Lectern |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
        notes = []
        for model in options.models:
            write_checkpoint(Path(folder), model)
            for trained, epochs in (("decoder", options.frozen_epochs), ("all", options.whole_epochs)):
                if epochs:
                    task = Task(model, trained, epochs, options.precision, options.compile)
                    peer, ours = (run_side(side, folder, task) for side in ("peer", "lectern"))
                    cells = [model, trained, epochs, f"{peer['seconds']:.0f}", f"{ours['seconds']:.0f}"]
                    cells += [f"{peer['seconds'] / ours['seconds']:.1f}", f"{peer['loss']:.3f}", f"{ours['loss']:.3f}"]
                    cells += [f"{peer['memory']:.1f}", f"{ours['memory']:.1f}"]
                    print(f"| {' | '.join(map(str, cells))} |", flush=True)
                    notes += missed_goals(model, trained, peer, ours)
                    if peer["seconds"] / ours["seconds"] < GOALS[trained] and not options.compile:
                        notes.append(explain_bound(model, trained, peer, ours, count_operations(folder, task)))
        print("", *notes, sep="\n")


def write_data(folder: Path, workbook: Path | None, train: int, validation: int) -> None:
    """Write train.parquet and validation.parquet with the given numbers of examples."""
    sides = split(read_examples(workbook, folder), SPLIT)
    for side, examples, count in (("train", sides.train, train), ("validation", sides.validation, validation)):
        chosen = examples.sample(n=min(count, len(examples)), random_state=1).reset_index(drop=True)
        chosen.to_parquet(folder / f"{side}.parquet", index=False)
        words = chosen["text"].str.split().str.len()
        print(f"{side}: {len(chosen)} examples, median {words.median():.0f} words, longest {words.max()}")
    print()


def write_checkpoint(folder: Path, model: str) -> None:
    """Write the checkpoint of the entry `t5` of params.yaml, or else random weights of the model's real size."""
    if model == T5:
        network, tokenizer = open_checkpoint(ModelSettings.read(T5), [])
        network.save_pretrained(folder / T5)
        tokenizer.save_pretrained(folder / T5)
    else:
        train = pd.read_parquet(folder / "train.parquet")
        both_sides.write_random_checkpoint(folder / model, model, [*train["text"], *train["title"]])


def run_side(side: str, folder: str, task: Task) -> dict[str, float]:
    """Run `measure` in a new process with an empty working directory."""
    command = [sys.executable, str(Path(__file__).resolve()), "--side", side, folder, json.dumps(asdict(task))]
    with tempfile.TemporaryDirectory() as working_directory:
        done = subprocess.run(
            command,
            cwd=working_directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def count_operations(folder: str, task: Task) -> float:
    """Count the operations of Lectern's matrix products in the whole training."""
    if task.trained != "all":
        return run_side("count", folder, task)["operations"]
    # All epochs have the same operations, and counting is slow.
    return task.epochs * run_side("count", folder, replace(task, epochs=1))["operations"]


def measure(side: str, folder: str, task_json: str) -> dict[str, float]:
    """Measure a training: seconds, final validation loss, and peak memory of the process in GB.

    The side `count` also counts the operations of Lectern's matrix products, which slows it down.
    """
    task = Task(**json.loads(task_json))
    path = Path(folder, task.model)
    examples = [pd.read_parquet(path.parent / f"{name}.parquet") for name in ("train", "validation")]
    family = FAMILIES[MODELS[task.model]]
    model, tokenizer = both_sides.open_checkpoint(side, path, family)
    inputs = Inputs(family, tokenizer, max_source_tokens=SOURCE_TOKENS, max_target_tokens=TARGET_TOKENS)
    freeze(model, family, ["embedding", "encoder"] if task.trained == "decoder" else [], 0)
    transformers.set_seed(1)
    torch.set_num_threads(1)
    start = time.process_time()
    with FlopCounterMode(display=False) if side == "count" else nullcontext() as counter:
        train = peer if side == "peer" else lectern
        train(model, inputs, *examples, task)
    found = {
        "operations": counter.get_total_flops() if counter else 0,
        "seconds": time.process_time() - start,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    return {**found, "loss": both_sides.loss_of(model, inputs, examples[1])}


def lectern(model: PreTrainedModel, inputs: Inputs, train: pd.DataFrame, validation: pd.DataFrame, task: Task) -> None:
    shipped = TrainSettings.read(ROOT / "params.yaml").model_dump()
    settings = TrainSettings(
        **{
            **shipped,
            "epochs": task.epochs,
            "learning_rate": RATE,
            "schedule": "linear",
            "warmup": 0.0,
            "weight_decay": 0.0,
            "batch_size": BATCH,
            "early_stopping": 0,
            "precision": task.precision,
            "compile": task.compiled,
        }
    )
    fit(model, inputs, train, validation, settings, score=mean_rouge, resume_from=Path("checkpoints"))


def peer(model: PreTrainedModel, inputs: Inputs, train: pd.DataFrame, validation: pd.DataFrame, task: Task) -> None:
    tokenizer, prefix = inputs.tokenizer, inputs.family.prefix

    def rows(examples: pd.DataFrame) -> list[dict[str, list[int]]]:
        longest = prefix_tokens(inputs.family, tokenizer) + SOURCE_TOKENS
        sources = tokenizer([prefix + text for text in examples["text"]], max_length=longest, truncation=True)
        labels = tokenizer(text_target=examples["title"].tolist(), max_length=TARGET_TOKENS, truncation=True)
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": label}
            for ids, mask, label in zip(
                sources["input_ids"], sources["attention_mask"], labels["input_ids"], strict=True
            )
        ]

    def metrics(predicted: transformers.EvalPrediction) -> dict[str, float]:
        texts = [
            tokenizer.batch_decode(np.where(ids < 0, tokenizer.pad_token_id, ids), skip_special_tokens=True)
            for ids in (predicted.predictions, predicted.label_ids)
        ]
        return mean_rouge(*texts)

    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir="checkpoints",
            num_train_epochs=task.epochs,
            learning_rate=RATE,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            greater_is_better=False,
            predict_with_generate=True,
            generation_max_length=TARGET_TOKENS,
            bf16=task.precision == "bfloat16",
            use_cpu=not torch.cuda.is_available(),  # the library requires this for bfloat16 on a CPU
            report_to="none",
            seed=1,
        ),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
        train_dataset=rows(train),
        eval_dataset=rows(validation),
        processing_class=tokenizer,
        compute_metrics=metrics,
    )
    trainer.train()
    # The library leaves a half-precision wrapper around the model's `forward`.
    vars(model).pop("forward", None)


def missed_goals(model: str, trained: str, peer: dict[str, float], ours: dict[str, float]) -> list[str]:
    """Describe the missed goals for loss and memory."""
    difference = ours["loss"] / peer["loss"] - 1
    found = []
    if abs(difference) > LOSS_TOLERANCE[trained]:
        found.append(
            f"{model}, {trained} trained: the loss differs by {difference:+.1%} from the peer's, more than "
            f"{LOSS_TOLERANCE[trained]:.0%}."
        )
    if ours["memory"] > peer["memory"]:
        found.append(f"{model}, {trained} trained: takes {ours['memory'] - peer['memory']:.2f} GB more than the peer.")
    return found


def explain_bound(model: str, trained: str, peer: dict[str, float], ours: dict[str, float], operations: float) -> str:
    """Explain a missed speed goal: the time that Lectern's matrix products need at the machine's peak rate."""
    goal, speed, half = GOALS[trained], products_a_second(), products_a_second(torch.bfloat16)
    return (
        f"{model}, {trained} trained: {peer['seconds'] / goal:.0f} s would be {goal:g} times faster. Lectern's "
        f"{ours['seconds']:.0f} s hold {operations / 1e12:.2f} TFLOP of matrix products, which take "
        f"{operations / speed:.0f} s at the {speed / 1e9:.0f} GFLOP/s that one product of float32 reaches here "
        f"(one of bfloat16: {half / 1e9:.0f} GFLOP/s)."
    )


def products_a_second(dtype: torch.dtype = torch.float32) -> float:
    """Measure the operations per second of a matrix product of a typical layer's size, with one thread."""
    torch.set_num_threads(1)
    left, right = torch.randn(8 * SOURCE_TOKENS, 512, dtype=dtype), torch.randn(512, 2048, dtype=dtype)
    seconds = min(timeit.repeat(lambda: left @ right, timer=time.process_time, number=3, repeat=5)) / 3
    return 2 * left.numel() * right.shape[1] / seconds


if __name__ == "__main__":
    main()
