"""Schedule the learning rate over the steps of a training."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from pipeline.training.settings import TrainSettings

_MIN_CYCLE_STEPS = 3  # the rise and the fall take two steps each, and share the peak


def build_schedule(optimiser: Optimizer, settings: TrainSettings, steps: int) -> LRScheduler:
    """Build the schedule of a training.

    No step has a rate of 0, and at least one step has the peak rate. If a training is too short for `one-cycle`, it
    gets `constant` with the same warm-up.

    Args:
        optimiser: Its rates are the peak rates.
        settings: The schedule and its warm-up.
        steps: Number of steps of the training.
    """
    if settings.schedule == "one-cycle" and steps >= _MIN_CYCLE_STEPS:
        return _one_cycle(optimiser, settings.warmup, steps)
    warmup = min(math.ceil(settings.warmup * steps), steps - 1)

    def share_of_peak(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return (steps - step) / (steps - warmup) if settings.schedule == "linear" else 1.0

    return LambdaLR(optimiser, share_of_peak)


def _one_cycle(optimiser: Optimizer, warmup: float, steps: int) -> OneCycleLR:
    """Build the one-cycle schedule.

    Source: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
    2018, arXiv:1708.07120.
    """
    # Rounded, so that one step has exactly the peak rate.
    rise = min(max(2, round(warmup * steps)), steps - 1)
    peaks = [group["lr"] for group in optimiser.param_groups]
    return OneCycleLR(optimiser, max_lr=peaks, total_steps=steps, pct_start=rise / steps)
