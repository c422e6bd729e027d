"""Tabulate the losses and scores of a training by epoch."""

from __future__ import annotations

import pandas as pd
from transformers import TrainerState

COLUMNS = ["epoch", "step", "train_loss", "validation_loss", "rouge1", "rouge2", "rougeL", "rougeLsum", "learning_rate"]
BERTSCORE_COLUMNS = ["bertscore_precision", "bertscore_recall", "bertscore_f1"]  # only if BERTScore is measured


def curves_from(state: TrainerState) -> pd.DataFrame:
    """Return one row per epoch from the trainer's log, which covers the training before an interruption too."""
    steps = pd.DataFrame([entry for entry in state.log_history if "loss" in entry])
    epochs = pd.DataFrame([entry for entry in state.log_history if "eval_loss" in entry])
    epochs = epochs.rename(columns={"eval_loss": "validation_loss"}).rename(
        columns=lambda name: name.removeprefix("eval_")
    )
    epoch_of_step = steps["step"].map(lambda step: (epochs["step"] < step).sum())
    epochs["train_loss"] = steps.groupby(epoch_of_step)["loss"].mean().reindex(epochs.index)
    epochs["learning_rate"] = steps.groupby(epoch_of_step)["learning_rate"].last().reindex(epochs.index)
    return epochs[[*COLUMNS, *(name for name in BERTSCORE_COLUMNS if name in epochs)]]
