"""The learning rate of each step of a training."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from pipeline.training.settings import TrainSettings

_SHORTEST_CYCLE_STEPS = 3  # a rise and a fall take two steps each, and share one


def build_schedule(optimiser: Optimizer, settings: TrainSettings, steps: int) -> LRScheduler:
    """Scale the rates of `optimiser`, which are those of the peak, for each of so many steps.

    Every step learns: no rate is 0, and one step has the rate of the peak. A training too short for `one-cycle` gets
    `constant` instead, with the same warm-up.
    """
    if settings.schedule == "one-cycle" and steps >= _SHORTEST_CYCLE_STEPS:
        return _one_cycle(optimiser, settings.warmup, steps)
    warmup = min(math.ceil(settings.warmup * steps), steps - 1)

    def share_of_peak(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return (steps - step) / (steps - warmup) if settings.schedule == "linear" else 1.0

    return LambdaLR(optimiser, share_of_peak)


def _one_cycle(optimiser: Optimizer, warmup: float, steps: int) -> OneCycleLR:
    """Smith and Topin, 2018: "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates"."""
    # A whole number, so that a step meets the peak.
    rise = min(max(2, round(warmup * steps)), steps - 1)
    peaks = [group["lr"] for group in optimiser.param_groups]
    return OneCycleLR(optimiser, max_lr=peaks, total_steps=steps, pct_start=rise / steps)
