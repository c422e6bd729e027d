"""Micro-batches and smaller batches save memory without changing a training's result."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback

from pipeline.errors import TemporaryFailure
from pipeline.models.families import FAMILIES
from pipeline.models.inputs import micro_batches
from tests.training.small import NoDropout, train


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200))
def test_micro_batches_keep_all_rows_within_the_limit(lengths: list[int], most: int) -> None:
    batches = micro_batches(lengths, int, most)
    assert sorted(length for batch in batches for length in batch) == sorted(lengths)
    assert all(len(batch) == 1 or len(batch) * max(batch) <= most for batch in batches)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_give_the_same_losses(family: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    uneven = examples.assign(title=[title * (1 + i % 3) for i, title in enumerate(examples["title"])])
    whole, split = (
        train(uneven, tmp_path / str(most), family, callbacks=(NoDropout(),), micro_batch_tokens=most, epochs=1)[0]
        for most in (10_000, 1)
    )
    for loss in ("train_loss", "validation_loss"):
        assert split[loss].tolist() == pytest.approx(whole[loss].tolist(), rel=2e-3)


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class _LittleMemory(TrainerCallback):
    """A device with memory for a number of texts at once, either `always` or only in training."""

    def __init__(self, texts: int, *, always: bool = False, of: str = "", error: Exception = OUT_OF_MEMORY) -> None:
        self._texts = texts
        self._always = always
        self._of = of
        self._error = error
        self.refused = 0

    def on_train_begin(self, args, state, control, model, **kwargs):
        def look(_module, _positional, named):
            texts = max(len(each) for each in named.values() if isinstance(each, torch.Tensor))
            if (model.training or self._always) and texts > self._texts:
                self.refused += 1
                raise self._error

        model.get_submodule(self._of).register_forward_pre_hook(look, with_kwargs=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        OUT_OF_MEMORY,
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable assertions."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: 9"),
        MemoryError(),
    ],
    ids=str,
)
def test_a_training_out_of_memory_continues_with_smaller_batches(
    error: Exception, examples: pd.DataFrame, tmp_path: Path
) -> None:
    memory = _LittleMemory(texts=1, error=error)
    few = examples.head(8)
    curves, _ = train(few, tmp_path / "little", "bart", callbacks=(NoDropout(), memory), epochs=1)
    plenty, _ = train(few, tmp_path / "much", "bart", callbacks=(NoDropout(),), epochs=1)
    assert 0 < memory.refused <= 4  # the batches stay small for all later steps
    assert curves["validation_loss"].tolist() == pytest.approx(plenty["validation_loss"].tolist(), rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bart", "causal"])
def test_validation_out_of_memory_continues_with_fewer_texts(
    family: str, examples: pd.DataFrame, tmp_path: Path
) -> None:
    memory = _LittleMemory(texts=1, always=True)
    curves, _ = train(examples, tmp_path / "little", family, callbacks=(NoDropout(), memory), epochs=1)
    plenty, _ = train(examples, tmp_path / "much", family, callbacks=(NoDropout(),), epochs=1)
    assert memory.refused
    for name in ("validation_loss", "rouge1"):
        assert curves[name].tolist() == pytest.approx(plenty[name].tolist(), rel=2e-3)


@pytest.mark.slow
def test_features_are_computed_text_by_text(examples: pd.DataFrame, tmp_path: Path) -> None:
    memory = _LittleMemory(texts=1, always=True, of="model.encoder")
    train(examples, tmp_path, "bart", callbacks=(memory,), freeze=["embedding", "encoder"])
    assert not memory.refused


@pytest.mark.slow
def test_too_little_memory_for_one_text_names_the_settings_to_lower(examples: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(TemporaryFailure, match="max_source_tokens"):
        train(examples, tmp_path, "bart", callbacks=(_LittleMemory(texts=0),))


@pytest.mark.slow
def test_halving_ends_when_a_long_text_does_not_fit(examples: pd.DataFrame, tmp_path: Path) -> None:
    uneven = examples.assign(text=["word " * (40 if place % 4 == 0 else 5) for place in range(len(examples))])
    with pytest.raises(TemporaryFailure, match="max_source_tokens"):
        train(uneven, tmp_path, "bart", callbacks=(_LittleMemory(texts=0),), batch_size=16)


def test_other_errors_are_not_taken_for_a_lack_of_memory(examples: pd.DataFrame, tmp_path: Path) -> None:
    class Broken(TrainerCallback):
        def on_train_begin(self, args, state, control, model, **kwargs):
            def fail(_module, _positional, _named):
                raise RuntimeError("shapes do not match")

            model.register_forward_pre_hook(fail, with_kwargs=True)

    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(examples, tmp_path, "bart", callbacks=(Broken(),))


class _CountLayer(TrainerCallback):
    """Counts the runs of the lowest decoder layer in training, including those for the backward pass."""

    def __init__(self) -> None:
        self.runs = 0

    def on_train_begin(self, args, state, control, model, **kwargs):
        def count(module, _positional):
            self.runs += module.training

        model.get_decoder().layers[0].self_attn.register_forward_pre_hook(count)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "causal"])
def test_gradient_checkpointing_gives_the_same_training(family: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    (plain, _), (checkpointed, _) = (
        train(examples, tmp_path / str(on), family, callbacks=(NoDropout(),), gradient_checkpointing=on, epochs=1)
        for on in (False, True)
    )
    assert checkpointed["validation_loss"].tolist() == pytest.approx(plain["validation_loss"].tolist(), rel=1e-3)


def test_gradient_checkpointing_runs_each_layer_twice(examples: pd.DataFrame, tmp_path: Path) -> None:
    runs = {}
    for on in (False, True):
        counted = _CountLayer()
        train(examples, tmp_path / str(on), "bart", callbacks=(counted,), gradient_checkpointing=on, epochs=1)
        runs[on] = counted.runs
    assert runs[True] == 2 * runs[False] > 0


@pytest.mark.slow
def test_bfloat16_has_similar_losses_to_float32(examples: pd.DataFrame, tmp_path: Path) -> None:
    (full, _), (half, _) = (
        train(examples, tmp_path / precision, "t5", callbacks=(NoDropout(),), precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert half["validation_loss"].tolist() == pytest.approx(full["validation_loss"].tolist(), rel=0.05)
    assert half["validation_loss"].tolist() != full["validation_loss"].tolist()
