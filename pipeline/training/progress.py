"""Show the progress of a training: a bar in a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)


def progress_callback() -> TrainerCallback:
    """Return a bar if stderr is a terminal, and log lines otherwise."""
    return _ProgressBar() if sys.stderr.isatty() else _LogLines()


class _ProgressBar(ProgressCallback):
    """The progress bar of transformers without its printed line for each logged step."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        pass


class _LogLines(TrainerCallback):
    """Log lines after each tenth of the steps and after each epoch."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % max(1, state.max_steps // 10) == 0:
            log.info("step %d of %d", state.global_step, state.max_steps)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        log.info(
            "epoch %g of %g: validation loss %.4f, ROUGE-1 %.4f",
            state.epoch,
            state.num_train_epochs,
            metrics["eval_loss"],
            metrics["eval_rouge1"],
        )
