"""Measure how fast titles are written and scored, against `Seq2SeqTrainer.evaluate` as in the library's own example.

    python benchmarks/evaluation.py [WORKBOOK] [--models t5 bart-base] [--examples 32] [--beams 4] [--runs 1]

Both sides write titles for the same test examples (512 tokens) with the same checkpoint and the same settings, clean
them up alike, and score them by ROUGE and BERTScore. The checkpoint of `t5` is that of params.yaml; that of bart-base
is random, with the size and class of the real one. The peer uses batches of 8, padded to their longest text, and also
computes a loss, as it does in every evaluation. Models are loaded, and the peer's texts are tokenized, before the clock
starts. Each run is a process of its own; of several runs, the fastest counts. Both sides use one thread, and the
seconds are those of the CPU, so that other work on the machine does not distort their ratio. WORKBOOK is an .xlsx file;
by default one in $LECTERN_SHARED, else the embedded workbook.

If all titles are the same, their scores are compared with those that bert_score gives one pair at a time. In batches,
as the peer uses them, bert_score gives a word without a match in the other title the cosine of a padded position,
which is 0.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from both_sides import open_checkpoint
from machine import describe_machine
from rouge_score.rouge_scorer import RougeScorer
from torch import nn
from training import MODELS, SOURCE_TOKENS, SPLIT, T5, TARGET_TOKENS, products_a_second, write_checkpoint
from transformers import (
    DataCollatorForSeq2Seq,
    EvalPrediction,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from workbooks import read_examples

from pipeline.data.split import split
from pipeline.evaluation.bertscore import load_scorer
from pipeline.evaluation.metrics import EvaluateSettings, score_titles
from pipeline.evaluation.score_names import ROUGE_SCORES, SCORES
from pipeline.models.families import FAMILIES
from pipeline.models.generation import GenerateSection, GenerateSettings, Titler
from pipeline.models.inputs import Inputs
from pipeline.models.title_cleanup import clean_up_title

GOAL = 4
PEER_BATCH = 8

# What is timed: it gives the titles, and a row of all scores for each.
Evaluation = Callable[[], tuple[list[str], np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workbook", nargs="?", type=Path, help="an .xlsx file with lessons")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[T5])
    parser.add_argument("--examples", type=int, default=32, help="number of test examples")
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(*options.side)))
        return
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), options.workbook, options.examples)
        print("| model | CPU s: peer | Lectern | times faster | GB: peer | Lectern | titles alike | scores apart |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
        notes = []
        for model in options.models:
            write_checkpoint(Path(folder), model)
            runs = [
                [run_side(side, f"{folder}/{model}", options.beams) for side in ("peer", "lectern")]
                for _ in range(options.runs)
            ]
            peer, ours = (min(side, key=lambda run: run["seconds"]) for side in zip(*runs, strict=True))
            faster = peer["seconds"] / ours["seconds"]
            same = [a == b for a, b in zip(peer["titles"], ours["titles"], strict=True)]
            apart = np.abs(np.array(peer["scores"]) - ours["scores"])[same].max(initial=0)
            cells = [model, f"{peer['seconds']:.1f}", f"{ours['seconds']:.1f}", f"{faster:.2f}"]
            cells += [f"{peer['memory']:.2f}", f"{ours['memory']:.2f}", f"{sum(same)} of {len(same)}", f"{apart:.0e}"]
            print(f"| {' | '.join(cells)} |", flush=True)
            if faster < GOAL:
                notes.append(what_bounds(model, peer, ours))
    print("", *notes, sep="\n")


def write_data(folder: Path, workbook: Path | None, count: int) -> None:
    """Write train.parquet, and `count` examples of the test split as test.parquet, into `folder`."""
    sides = split(read_examples(workbook, folder), SPLIT)
    sides.train.to_parquet(folder / "train.parquet", index=False)
    test = sides.test.sample(n=min(count, len(sides.test)), random_state=1)
    test.to_parquet(folder / "test.parquet", index=False)
    words = test["text"].str.split().str.len()
    print(f"{len(test)} examples, {words.median():.0f} words in the middle, {words.max()} at most\n")


def run_side(side: str, checkpoint: str, beams: int) -> dict[str, Any]:
    """Run `measure` in a process of its own."""
    command = [sys.executable, __file__, "--side", side, checkpoint, str(beams)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(side: str, checkpoint: str, beams: str) -> dict[str, Any]:
    """Measure one evaluation: its seconds, the encoder's seconds, peak memory in GB, titles and scores."""
    torch.set_num_threads(1)
    path = Path(checkpoint)
    examples = pd.read_parquet(path.parent / "test.parquet")
    family = FAMILIES[MODELS[path.name]]
    model, tokenizer = open_checkpoint(side, path, family)
    inputs = Inputs(family, tokenizer, max_source_tokens=SOURCE_TOKENS, max_target_tokens=TARGET_TOKENS)
    generate = GenerateSettings.model_validate({**GenerateSection.read().default, "num_beams": int(beams)})
    titler = Titler(model.eval(), inputs, generate)
    scoring = EvaluateSettings.read()
    load_scorer(scoring.bertscore_model, scoring.bertscore_layers)
    encoder = clock(model.get_encoder())
    evaluate = {"peer": peer, "lectern": lectern}[side](titler, examples, scoring)
    start = time.process_time()
    titles, scores = evaluate()
    seconds = time.process_time() - start
    if side == "peer":
        scores = own_scores(titles, examples["title"].tolist(), scoring, batch=1)
    weights = sum(layer.weight.numel() for layer in model.get_encoder().modules() if isinstance(layer, nn.Linear))
    return {
        "seconds": seconds,
        "encoder": sum(encoder),
        "operations": 2 * weights * sum(len(inputs.source(text)) for text in examples["text"]),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "titles": titles,
        "scores": scores.tolist(),
    }


def clock(module: nn.Module) -> list[float]:
    """Return a list that collects the seconds of each later call of `module`."""
    spent: list[float] = []
    module.register_forward_pre_hook(lambda *_: spent.append(-time.process_time()))
    module.register_forward_hook(lambda *_: spent.append(time.process_time()))
    return spent


def lectern(titler: Titler, examples: pd.DataFrame, scoring: EvaluateSettings) -> Evaluation:
    def evaluate() -> tuple[list[str], np.ndarray]:
        titles = titler.best_titles(examples["text"].tolist())
        return titles, score_titles(titles, examples["title"].tolist(), scoring).to_numpy()

    return evaluate


def peer(titler: Titler, examples: pd.DataFrame, scoring: EvaluateSettings) -> Evaluation:
    inputs, tokenizer = titler.inputs, titler.inputs.tokenizer
    references = examples["title"].tolist()
    rows = [
        {"input_ids": inputs.source(text), "labels": inputs.target(title)}
        for text, title in zip(examples["text"], references, strict=True)
    ]
    found: list[tuple[list[str], np.ndarray]] = []

    def compute_metrics(predicted: EvalPrediction) -> dict[str, float]:
        ids = np.where(predicted.predictions < 0, tokenizer.pad_token_id, predicted.predictions)
        written = tokenizer.batch_decode(ids, skip_special_tokens=True)
        titles = [
            clean_up_title(title, titler.style, text) for title, text in zip(written, examples["text"], strict=True)
        ]
        scores = own_scores(titles, references, scoring)
        found.append((titles, scores))
        return dict(zip(SCORES, scores.mean(axis=0), strict=True))

    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_eval_batch_size=PEER_BATCH,
            predict_with_generate=True,
            generation_config=titler._config,
            report_to="none",
        )
    trainer = Seq2SeqTrainer(
        model=titler.model,
        args=arguments,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=titler.model),
        eval_dataset=rows,
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )

    def evaluate() -> tuple[list[str], np.ndarray]:
        trainer.evaluate()
        return found[-1]

    return evaluate


def own_scores(titles: list[str], references: list[str], scoring: EvaluateSettings, batch: int = 64) -> np.ndarray:
    """Return the `SCORES` of each title by `rouge_score` and `bert_score`.

    bert_score raises an error for an empty title, and a precision or recall below 0 may give F1 any value. Here, both
    count as 0.
    """
    stemmed = RougeScorer(ROUGE_SCORES, use_stemmer=True)
    rouge = [stemmed.score(*pair) for pair in zip(references, titles, strict=True)]
    written = [place for place, title in enumerate(titles) if title]
    pairs = [titles[place] for place in written], [references[place] for place in written]
    scorer = load_scorer(scoring.bertscore_model, scoring.bertscore_layers)
    precision, recall = np.zeros((2, len(titles)))
    precision[written], recall[written] = np.clip(torch.stack(scorer.score(*pairs, batch_size=batch)[:2]).numpy(), 0, 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    fmeasures = [[scores[name].fmeasure for name in ROUGE_SCORES] for scores in rouge]
    return np.column_stack([fmeasures, precision, recall, f1])


def what_bounds(model: str, peer: dict[str, Any], ours: dict[str, Any]) -> str:
    """Explain a ratio below the goal by the part of Lectern's time that both sides must spend."""
    speed = products_a_second()
    return (
        f"{model}: {peer['seconds'] / GOAL:.1f} s would be {GOAL} times faster. Lectern spends {ours['encoder']:.1f} s "
        f"in the encoder, whose {ours['operations'] / 1e9:,.0f} GFLOP of matrix products take "
        f"{ours['operations'] / speed:.1f} s at the {speed / 1e9:.0f} GFLOP/s that one product reaches here."
    )


if __name__ == "__main__":
    main()
