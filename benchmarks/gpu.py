"""Compare Lectern's training with `Seq2SeqTrainer` on a GPU, with random weights of real size and made-up texts.

    python benchmarks/gpu.py [--models t5-small bart-base] [--examples 1024] [--epochs 3] [--batch 32]

It takes less than eight minutes, and needs no checkpoint, no workbook and no network. Of all packages, torch,
transformers, accelerate, peft, pandas, pydantic and safetensors are enough, also torch 2.11 and transformers 5.17 with
Python 3.12.

Both sides train all layers from the same weights on the same texts of up to 512 tokens, with the same number of
examples in a step, learning rate and seed, in bfloat16 if the GPU computes in it. Each side is a process of its own.
The steps are timed, without the first few and without the validation after each epoch. On a slow GPU, both sides stop
early. The columns:

- tokens a second: those of texts and titles, without padding.
- share of peak: the operations of the model's matrix products for these tokens, forward and backward, as a share of
  those that one large product of the same precision reaches on this machine.
- GB: peak of the memory that torch holds on the GPU, or of the process on a CPU.
- loss: that of the validation texts after the training, in float32 and without padding.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # Lectern need not be installed

import pandas as pd
import torch
import transformers
from accelerate.utils import send_to_device
from both_sides import SIZES, loss_of, open_checkpoint, write_random_checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

from pipeline.models.families import FAMILIES
from pipeline.models.inputs import Example, Inputs
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import fit

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 100  # of training, after which a side stops, so that two models stay within eight minutes
WARM_UP = 5  # steps that are not timed
COUNTED = 32  # examples whose operations are counted
SOURCE_TOKENS, TARGET_TOKENS = 512, 24
RATE = 1e-4
VALIDATION = 32


@dataclass(frozen=True)
class Task:
    """A training that both sides run."""

    model: str
    epochs: int
    batch: int
    micro_batch_tokens: int  # on Lectern's side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["t5-small", "bart-base"])
    parser.add_argument("--examples", type=int, default=1024, help="texts of an epoch")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of both sides")
    parser.add_argument("--batch", type=int, default=32, help="examples of an optimiser step")
    parser.add_argument("--micro-batch-tokens", type=int, default=32768, help="Lectern's setting of this name")
    parser.add_argument("--words", type=int, default=400, help="words of the longest text")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(*options.side)))
        return
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, {precision()}")
    peak = peak_operations()
    print(f"One large matrix product reaches {peak / 1e12:.3g} TFLOP/s\n")
    print("| model | trainer | tokens a second | share of peak | GB | loss |\n|---|---|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_texts(Path(folder), options.examples, options.words)
        notes = []
        for model in options.models:
            write_random_checkpoint(Path(folder, model), model, read_texts(folder, "train")["text"])
            task = Task(model, options.epochs, options.batch, options.micro_batch_tokens)
            peer, ours = (report(side, run_side(side, folder, task), task, peak) for side in ("peer", "lectern"))
            notes.append(f"{model}: Lectern trains {ours / peer:.2f} times as many tokens a second as the peer.")
    print("", *notes, sep="\n")


def machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{device} ({platform.machine()}), Python {platform.python_version()}, {versions}"


def precision() -> str:
    """Return the precision of both sides: bfloat16 on a GPU that computes in it, else float32."""
    half = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if half else "float32"


def peak_operations() -> float:
    """Return the operations per second of the largest of a few matrix products."""
    on_gpu = torch.cuda.is_available()
    size = 8192 if on_gpu else 512
    device = "cuda" if on_gpu else "cpu"
    left, right = torch.randn(2, size, size, dtype=getattr(torch, precision()), device=device)
    times = []
    for _ in range(10):
        synchronise()
        start = time.perf_counter()
        torch.mm(left, right)
        synchronise()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def write_texts(folder: Path, examples: int, words: int) -> None:
    """Write made-up lectures of different lengths. A title is a few words of its text, so there is something to learn.

    Most texts are as long as the longest, like the topics of real lectures, which are often cut.
    """
    drawn = random.Random(1)
    lexicon = ["".join(drawn.choices("aeioubcdfghklmnprst", k=drawn.randint(3, 9))) for _ in range(3000)]
    frequencies = [1 / (rank + 1) for rank in range(len(lexicon))]
    for side, count in (("train", examples), ("validation", VALIDATION)):
        texts = [
            drawn.choices(lexicon, frequencies, k=min(words, drawn.randint(words // 8, 2 * words)))
            for _ in range(count)
        ]
        rows = [{"text": " ".join(text), "title": " ".join(text[:4]).capitalize()} for text in texts]
        pd.DataFrame(rows).to_json(folder / f"{side}.json", orient="records")


def read_texts(folder: str, side: str) -> pd.DataFrame:
    return pd.read_json(Path(folder, f"{side}.json"), orient="records")


def run_side(side: str, folder: str, task: Task) -> dict[str, float]:
    """Run `measure` in a new process that sees one GPU and has an empty working directory."""
    command = [sys.executable, str(Path(__file__).resolve()), "--side", side, folder, json.dumps(asdict(task))]
    environment = {"CUDA_VISIBLE_DEVICES": "0", **os.environ, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def report(side: str, found: dict[str, float], task: Task, peak: float) -> float:
    """Print a row of the table, and return the tokens per second."""
    examples_a_second = found["steps"] * task.batch / found["seconds"]
    tokens, share = examples_a_second * found["tokens"], examples_a_second * found["operations"] / peak
    cells = [task.model, side, f"{tokens:,.0f}", f"{share:.1%}", f"{found['memory']:.2f}", f"{found['loss']:.3f}"]
    print(f"| {' | '.join(cells)} |", flush=True)
    return tokens


def measure(side: str, folder: str, task_json: str) -> dict[str, float]:
    """Train on one side. Return the timed steps and seconds, the tokens and operations of an example, GB and loss."""
    task = Task(**json.loads(task_json))
    train, validation = (read_texts(folder, name) for name in ("train", "validation"))
    family = FAMILIES[SIZES[task.model][0]]
    model, tokenizer = open_checkpoint(side, Path(folder, task.model), family)
    inputs = Inputs(family, tokenizer, max_source_tokens=SOURCE_TOKENS, max_target_tokens=TARGET_TOKENS)
    examples = [inputs.example(*row) for row in zip(train["text"], train["title"], strict=True)]
    clock = Clock()
    transformers.set_seed(1)
    if side == "peer":
        peer(model, inputs, examples, task, clock)
    else:
        lectern(model, inputs, train, validation, task, clock)
    return {
        "steps": clock.steps,
        "seconds": clock.seconds,
        "tokens": sum(len(each.source) + len(each.labels) for each in examples) / len(examples),
        "memory": peak_memory() / 1e9,  # before the next two, which take memory too
        "operations": operations_of(model, inputs, examples),
        "loss": loss_of(model, inputs, validation),
    }


class Clock(TrainerCallback):
    """Time the steps of a training, and stop it after `SECONDS`."""

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = 0.0
        self._start = self._last = time.perf_counter()

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self._last = now()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        last, self._last = self._last, now()
        if state.global_step > WARM_UP:
            self.steps += 1
            self.seconds += self._last - last
        control.should_training_stop |= self._last - self._start > SECONDS


def now() -> float:
    """Return the time once the GPU has done all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def operations_of(model: PreTrainedModel, inputs: Inputs, examples: list[Example]) -> float:
    """Count the operations of an example's matrix products, forward and backward: the mean over some examples."""
    model.eval()  # dropout would change how attention is computed, and counted
    chosen = examples[:: max(1, len(examples) // COUNTED)]
    with FlopCounterMode(display=False) as counter:
        for example in chosen:
            batch = send_to_device(inputs.training_batch([example]), model.device)
            model(**batch, use_cache=False).loss.backward()
    model.zero_grad()
    return counter.get_total_flops() / len(chosen)


def lectern(
    model: PreTrainedModel, inputs: Inputs, train: pd.DataFrame, validation: pd.DataFrame, task: Task, clock: Clock
) -> None:
    settings = TrainSettings.read(ROOT / "params.yaml").model_copy(
        update={
            "epochs": task.epochs,
            "learning_rate": RATE,
            "schedule": "linear",
            "warmup": 0.0,
            "weight_decay": 0.0,
            "batch_size": task.batch,
            "micro_batch_tokens": task.micro_batch_tokens,
            "early_stopping": 0,
            "precision": precision(),
        }
    )
    fit(model, inputs, train, validation, settings, score=no_scores, resume_from=Path("checkpoints"), callbacks=[clock])


def no_scores(predicted: list[str], true: list[str]) -> dict[str, float]:
    """Score nothing: rouge_score need not be installed."""
    return dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), 0.0)


def peer(model: PreTrainedModel, inputs: Inputs, examples: list[Example], task: Task, clock: Clock) -> None:
    arguments = Seq2SeqTrainingArguments(
        output_dir="peer",
        num_train_epochs=task.epochs,
        learning_rate=RATE,
        per_device_train_batch_size=task.batch,
        save_strategy="no",
        bf16=precision() == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        seed=1,
    )
    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments,
        data_collator=DataCollatorForSeq2Seq(inputs.tokenizer, model=model),
        train_dataset=[{"input_ids": each.source, "labels": each.labels} for each in examples],
        processing_class=inputs.tokenizer,
        callbacks=[clock],
    )
    trainer.train()
    vars(model).pop("forward", None)  # the half-precision wrapper that the library leaves


if __name__ == "__main__":
    main()
