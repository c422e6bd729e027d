"""How fast Lectern trains, against `Seq2SeqTrainer` set up as the library's own summarization example sets it up.

    python benchmarks/training.py [WORKBOOK] [--models t5-small bart-base] [--train 96] [--validation 32]
                                  [--frozen-epochs 10] [--whole-epochs 3] [--precision float32] [--compile]
                                  [--without-patches]

Both sides start from the same random checkpoint of the real size and class, and see the same texts (512 tokens),
batches of 8, epochs, learning rates, precision and seed; both measure loss, greedy titles and ROUGE after each epoch,
and keep a checkpoint of each. The losses shown are those of the best epochs' weights, which both sides end with, taken
in one way after the clock has stopped: the mean over the titles' tokens of the validation split, in float32, without
padding and without a cache. WORKBOOK is an .xlsx; without it $LECTERN_SHARED is looked through, else the embedded
one is built.

With `--without-patches` the peer is Lectern itself without `states_instead_of_keys`, and the seconds are those of the
processor, which a busy machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    DataCollatorForSeq2Seq,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
)
from workbooks import read_examples

from pipeline.data.split import SplitSettings, split
from pipeline.evaluation.rouge import mean_rouge
from pipeline.models import scratch
from pipeline.models.families import FAMILIES
from pipeline.models.inputs import IGNORED, Inputs, prefix_tokens
from pipeline.models.layers import freeze
from pipeline.training import trainer as training_module
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import fit

ROOT = Path(__file__).resolve().parents[1]
SOURCE_TOKENS, TARGET_TOKENS = 512, 40
BATCH, RATE = 8, 5e-4
VOCABULARY = 8000
GOALS = {"decoder": 5.0, "all": 1.5}  # times faster
LOSS_APART = {"decoder": 0.01, "all": 0.02}  # shares of the peer's, at most
SPLIT = SplitSettings(by="lesson", validation=0.15, test=0.2, seed=1)


def t5_small(tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    return T5Config(
        vocab_size=32128,
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        decoder_start_token_id=tokenizer.pad_token_id,
    )


def bart_base(tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    size = scratch.ScratchSize(width=768, layers=6, heads=12, vocabulary=VOCABULARY)
    return BartConfig(**{**scratch.bart_config(size, tokenizer).to_diff_dict(), "vocab_size": 50265})


MODELS: dict[str, tuple[str, Callable[[PreTrainedTokenizerBase], PretrainedConfig]]] = {
    "t5-small": ("t5", t5_small),
    "bart-base": ("bart", bart_base),
}


@dataclass(frozen=True)
class Asked:
    """Of one row of the table, what both sides are to do."""

    model: str
    trained: str
    epochs: int
    precision: str
    compiled: bool  # Lectern's side alone
    without_patches: bool = False  # the peer is Lectern without its attention patches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", nargs="?", type=Path, help="an .xlsx with lessons")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--train", type=int, default=96, help="examples to train on")
    parser.add_argument("--validation", type=int, default=32, help="examples to measure on after each epoch")
    parser.add_argument(
        "--frozen-epochs", type=int, default=10, help="with embedding and encoder frozen; 0 leaves it out"
    )
    parser.add_argument("--whole-epochs", type=int, default=3, help="with everything trained; 0 leaves it out")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of both sides")
    parser.add_argument("--compile", action="store_true", help="Lectern's side by torch.compile")
    parser.add_argument("--without-patches", action="store_true", help="compare with Lectern without its patches")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(*options.side)))
        return
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{options.precision}{', Lectern compiled' if options.compile else ''}"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), options.workbook, options.train, options.validation)
        print("| model | trained | epochs | seconds: peer | Lectern | times faster | loss: peer | Lectern |", end="")
        print(" GB: peer | Lectern |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
        notes = []
        for model in options.models:
            write_checkpoint(Path(folder), model)
            for trained, epochs in (("decoder", options.frozen_epochs), ("all", options.whole_epochs)):
                if epochs:
                    asked = Asked(model, trained, epochs, options.precision, options.compile, options.without_patches)
                    peer, ours = (run_side(side, folder, asked) for side in ("peer", "lectern"))
                    cells = [model, trained, epochs, f"{peer['seconds']:.0f}", f"{ours['seconds']:.0f}"]
                    cells += [f"{peer['seconds'] / ours['seconds']:.1f}", f"{peer['loss']:.3f}", f"{ours['loss']:.3f}"]
                    cells += [f"{peer['memory']:.1f}", f"{ours['memory']:.1f}"]
                    print(f"| {' | '.join(map(str, cells))} |", flush=True)
                    if options.without_patches:
                        continue
                    notes += what_is_missed(model, trained, peer, ours)
                    if peer["seconds"] / ours["seconds"] < GOALS[trained] and not options.compile:
                        counted = run_side("count", folder, asked)
                        notes.append(what_bounds(model, trained, peer, ours, counted["operations"]))
        print("", *notes, sep="\n")


def write_data(folder: Path, workbook: Path | None, train: int, validation: int) -> None:
    """`folder`/train.parquet and validation.parquet, of as many examples."""
    sides = split(read_examples(workbook, folder), SPLIT)
    for side, examples, count in (("train", sides.train, train), ("validation", sides.validation, validation)):
        chosen = examples.sample(n=min(count, len(examples)), random_state=1).reset_index(drop=True)
        chosen.to_parquet(folder / f"{side}.parquet", index=False)
        words = chosen["text"].str.split().str.len()
        print(f"{side}: {len(chosen)} examples, {words.median():.0f} words in the middle, {words.max()} at most")
    print()


def write_checkpoint(folder: Path, model: str) -> None:
    """`folder`/`model`: random weights of the real size, and a tokenizer learnt on the training examples."""
    train = pd.read_parquet(folder / "train.parquet")
    family, new_config = MODELS[model]
    tokenizer = FAMILIES[family].new_tokenizer([*train["text"], *train["title"]], VOCABULARY)
    transformers.set_seed(1)
    AutoModelForSeq2SeqLM.from_config(new_config(tokenizer)).save_pretrained(folder / model)
    tokenizer.save_pretrained(folder / model)


def run_side(side: str, folder: str, asked: Asked) -> dict[str, float]:
    """`measure` in a process of its own, in an empty working directory."""
    command = [sys.executable, str(Path(__file__).resolve()), "--side", side, folder, json.dumps(asdict(asked))]
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


def measure(side: str, folder: str, asked_json: str) -> dict[str, float]:
    """Seconds of the training, the validation loss that it ends with, the peak memory of this process in GB, and for
    the side `count`, which is slower, the operations of Lectern's matrix products."""
    asked = Asked(**json.loads(asked_json))
    path = Path(folder, asked.model)
    examples = [pd.read_parquet(path.parent / f"{name}.parquet") for name in ("train", "validation")]
    model = AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    family = FAMILIES[MODELS[asked.model][0]]
    inputs = Inputs(family, tokenizer, max_source_tokens=SOURCE_TOKENS, max_target_tokens=TARGET_TOKENS)
    freeze(model, family, ["embedding", "encoder"] if asked.trained == "decoder" else [], 0)
    transformers.set_seed(1)
    clock = time.process_time if asked.without_patches else time.monotonic
    start = clock()
    with FlopCounterMode(display=False) if side == "count" else nullcontext() as counter:
        if side == "peer" and asked.without_patches:
            training_module.states_instead_of_keys = lambda *_: nullcontext()
        train = peer if side == "peer" and not asked.without_patches else lectern
        train(model, inputs, *examples, asked)
    found = {
        "operations": counter.get_total_flops() if counter else 0,
        "seconds": clock() - start,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    return {**found, "loss": loss_of(model, inputs, examples[1])}


@torch.inference_mode()
def loss_of(model: PreTrainedModel, inputs: Inputs, examples: pd.DataFrame) -> float:
    """The mean over the titles' tokens, text by text."""
    total, tokens = 0.0, 0
    for text, title in zip(examples["text"], examples["title"], strict=True):
        batch = inputs.training_batch([inputs.example(text, title)])
        learnt = int((batch["labels"] != IGNORED).sum())
        total += model.eval()(**batch).loss.item() * learnt
        tokens += learnt
    return total / tokens


def lectern(
    model: PreTrainedModel, inputs: Inputs, train: pd.DataFrame, validation: pd.DataFrame, asked: Asked
) -> None:
    shipped = TrainSettings.read(ROOT / "params.yaml").model_dump()
    knobs = {"epochs": asked.epochs, "learning_rate": RATE, "schedule": "linear", "warmup": 0.0, "weight_decay": 0.0}
    knobs |= {"batch_size": BATCH, "early_stopping": 0, "precision": asked.precision, "compile": asked.compiled}
    settings = TrainSettings(**{**shipped, **knobs})
    fit(model, inputs, train, validation, settings, score=mean_rouge, resume_from=Path("checkpoints"))


def peer(model: PreTrainedModel, inputs: Inputs, train: pd.DataFrame, validation: pd.DataFrame, asked: Asked) -> None:
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
            num_train_epochs=asked.epochs,
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
            bf16=asked.precision == "bfloat16",
            use_cpu=not torch.cuda.is_available(),  # which the library wants to hear of bfloat16 on a processor
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
    # The library has the model compute in half precision for good.
    vars(model).pop("forward", None)


def what_is_missed(model: str, trained: str, peer: dict[str, float], ours: dict[str, float]) -> list[str]:
    """Of the goals that are no speed."""
    apart = ours["loss"] / peer["loss"] - 1
    found = []
    if abs(apart) > LOSS_APART[trained]:
        found.append(
            f"{model}, {trained} trained: the loss is {apart:+.1%} from the peer's, not {LOSS_APART[trained]:.0%}."
        )
    if ours["memory"] > peer["memory"]:
        found.append(f"{model}, {trained} trained: takes {ours['memory'] - peer['memory']:.2f} GB more than the peer.")
    return found


def what_bounds(model: str, trained: str, peer: dict[str, float], ours: dict[str, float], operations: float) -> str:
    """Why the peer's time divided by ours is below the goal: the part of ours that is arithmetic."""
    goal, speed, half = GOALS[trained], products_a_second(), products_a_second(torch.bfloat16)
    return (
        f"{model}, {trained} trained: {peer['seconds'] / goal:.0f} s would be {goal:g} times faster. Lectern's "
        f"{ours['seconds']:.0f} s hold {operations / 1e12:.2f} TFLOP of matrix products, which take "
        f"{operations / speed:.0f} s at the {speed / 1e9:.0f} GFLOP/s that one product of float32 reaches here "
        f"(one of bfloat16: {half / 1e9:.0f} GFLOP/s)."
    )


def products_a_second(dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of one matrix product of a usual layer's size, by all threads."""
    left, right = torch.randn(8 * SOURCE_TOKENS, 512, dtype=dtype), torch.randn(512, 2048, dtype=dtype)
    return 2 * left.numel() * right.shape[1] / min(timeit.repeat(lambda: left @ right, number=3, repeat=5)) * 3


if __name__ == "__main__":
    main()
