"""Each step of a training has a positive learning rate, and one has the peak rate."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import TrainerCallback

from pipeline.training.schedules import build_schedule
from pipeline.training.trainer import WeightsUnchanged
from tests.models.small import small_model
from tests.training.small import SETTINGS, train

SCHEDULES = ("one-cycle", "linear", "constant")
PEAKS = (1e-3, 1e-4)  # of two groups of parameters


def _rates(schedule: str, warmup: float, steps: int) -> list[tuple[float, ...]]:
    """The rates of both groups at each step."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": peak} for peak in PEAKS]
    optimiser = torch.optim.AdamW(groups)
    settings = SETTINGS.model_copy(update={"schedule": schedule, "warmup": warmup})
    built = build_schedule(optimiser, settings, steps)
    rates = []
    for _ in range(steps):
        rates.append(tuple(group["lr"] for group in optimiser.param_groups))
        optimiser.step()
        built.step() if len(rates) < steps else None
    return rates


@given(st.sampled_from(SCHEDULES), st.floats(0, 1, exclude_max=True), st.integers(1, 300))
@example("one-cycle", 0.25, 1)
@example("linear", 0.99, 3)
@example("constant", 0.5, 1)
def test_every_step_has_a_positive_rate_and_one_has_the_peak_rate(schedule: str, warmup: float, steps: int) -> None:
    rates = _rates(schedule, warmup, steps)
    assert all(rate > 0 for step in rates for rate in step)
    for peak, of_group in zip(PEAKS, zip(*rates, strict=True), strict=True):
        assert max(of_group) == pytest.approx(peak)
        top = of_group.index(max(of_group))
        assert list(of_group[: top + 1]) == sorted(of_group[: top + 1])
        assert list(of_group[top:]) == sorted(of_group[top:], reverse=True)


@pytest.mark.parametrize(("schedule", "warmup"), [("one-cycle", 0.25), ("linear", 0.9)])
def test_a_training_of_one_step_changes_the_weights(
    schedule: str, warmup: float, examples: pd.DataFrame, tmp_path: Path
) -> None:
    curves, weights = train(examples, tmp_path, schedule=schedule, warmup=warmup, batch_size=16, epochs=1)
    untouched = small_model("t5", examples)[0].state_dict()
    assert curves["learning_rate"].tolist() == [SETTINGS.learning_rate]
    assert not any(torch.equal(weights[name], untouched[name]) for name in untouched if "weight" in name)


def test_a_training_that_changes_no_weight_is_refused(examples: pd.DataFrame, tmp_path: Path) -> None:
    for _ in range(2):  # the second training resumes from the first
        with pytest.raises(WeightsUnchanged, match=r"changed no weight in 4 steps.*raise the model's learning_rate"):
            train(examples, tmp_path, learning_rate=1e-30, epochs=1)


class _Stop(TrainerCallback):
    """Ends a training after its first epoch, as early stopping may."""

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_training_stop = True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"epochs": 2, "unfreeze_every": 2},
            "With epochs 2 and unfreeze_every 2, these layers never train: encoder, emb",
        ),
        (
            {"epochs": 2, "unfreeze_every": 1},
            "With epochs 2 and unfreeze_every 1, these layers never train: embedding.",
        ),
        ({"epochs": 3, "unfreeze_every": 1}, None),
        (
            {"epochs": 3, "unfreeze_every": 1, "callbacks": (_Stop(),)},
            "The training stopped early, after epoch 1, before these layers trained: encoder, embedding.",
        ),
    ],
)
def test_a_warning_names_layers_that_never_train(
    chosen: dict[str, object],
    message: str | None,
    examples: pd.DataFrame,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "pipeline"):
        train(examples, tmp_path, "bart", **chosen)
    warned = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("pipeline"))
    assert message in warned if message else not warned
