"""Features of frozen layers are computed once, and do not change a training's result."""

from __future__ import annotations

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from transformers import TrainerCallback

from pipeline.errors import UsageError
from pipeline.models import features
from pipeline.models.disk_budget import limit_bytes
from pipeline.models.families import FAMILIES
from pipeline.models.features import FEATURES, Features, frozen_part
from pipeline.models.generation import Titler
from pipeline.models.layer_groups import freeze
from pipeline.models.lora import LoraSettings
from tests.models.small import GREEDY, lively_model, small_model
from tests.training.small import LORA, VALIDATED, train

WITH_ENCODER = [name for name, family in FAMILIES.items() if not family.causal]
FROZEN = {"freeze": ["embedding", "encoder"], "freeze_lower_layers": 1}


class _CountRuns(TrainerCallback):
    """Counts the texts that the encoder or the lowest layer reads in a training."""

    def __init__(self) -> None:
        self.texts = 0

    def on_train_begin(self, args, state, control, model, **kwargs):
        decoder_only = not model.config.is_encoder_decoder
        lowest = model.base_model.layers[0] if decoder_only else model.get_encoder()

        def count(_module, positional, named, _output):
            given = next(iter([*positional, *named.values()]))
            self.texts += given.shape[0] if torch.is_grad_enabled() or not decoder_only else 0

        lowest.register_forward_hook(count, with_kwargs=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "lora", "precision"),
    [
        *((name, None, "float32") for name in FAMILIES),
        *((name, lora, "bfloat16") for name in ("bart", "causal") for lora in (None, LORA)),
    ],
)
def test_a_training_is_the_same_with_features_and_without(
    family: str,
    lora: LoraSettings | None,
    precision: str,
    examples: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {**FROZEN, "lora": lora, "precision": precision, "epochs": 1}
    curves, weights = train(examples, tmp_path / "with", family, **settings)
    assert [*FEATURES.glob("*/*.safetensors")]
    shutil.rmtree(FEATURES)
    monkeypatch.setenv("LECTERN_FEATURES_GB", "0")
    curves_without, weights_without = train(examples, tmp_path / "without", family, **settings)
    assert not FEATURES.exists()
    pd.testing.assert_frame_equal(curves_without, curves)
    assert all(torch.equal(weights_without[name], tensor) for name, tensor in weights.items())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bart", "causal"])
def test_a_training_is_the_same_with_cached_features_of_other_texts(
    family: str, examples: pd.DataFrame, tmp_path: Path
) -> None:
    curves, weights = train(examples, tmp_path / "fresh", family, **FROZEN)
    shutil.rmtree(FEATURES)
    train(examples.iloc[::-3], tmp_path / "others", family, **FROZEN)
    curves_after, weights_after = train(examples, tmp_path / "after", family, **FROZEN)
    pd.testing.assert_frame_equal(curves_after, curves)
    assert all(torch.equal(weights_after[name], tensor) for name, tensor in weights.items())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bart", "causal"])
def test_the_frozen_part_reads_each_text_once(family: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    runs = _CountRuns()
    train(examples, tmp_path / "one", family, callbacks=(runs,), **FROZEN)
    assert runs.texts == (0 if family == "causal" else len(examples))
    again = _CountRuns()
    train(examples, tmp_path / "two", family, callbacks=(again,), learning_rate=1e-3, **FROZEN)
    assert again.texts == 0


@pytest.mark.slow
def test_a_trained_encoder_reads_each_validation_text_once_per_epoch(examples: pd.DataFrame, tmp_path: Path) -> None:
    runs = _CountRuns()
    train(examples, tmp_path, "bart", callbacks=(runs,), epochs=2)
    assert runs.texts == 2 * (len(examples) + VALIDATED)
    assert not FEATURES.exists()


@pytest.mark.parametrize(
    ("family", "groups", "lower", "expected"),
    [
        ("bart", ["embedding", "encoder"], 0, 1),
        ("bart", ["encoder"], 0, 0),  # the encoder reads trainable embeddings
        ("causal", ["embedding"], 1, 2),  # the embedding, and one layer,
        ("causal", [], 1, 0),
    ],
)
def test_the_frozen_part_has_no_trainable_input(
    family: str, groups: list[str], lower: int, expected: int, examples: pd.DataFrame
) -> None:
    model, inputs = small_model(family, examples)
    freeze(model, inputs.family, groups, lower)
    assert len(frozen_part(model, inputs.family)) == expected


def _prepared(examples: pd.DataFrame, texts: list[str]) -> tuple[Features, list[list[int]]]:
    model, inputs = small_model("bart", examples)
    freeze(model, inputs.family, ["embedding", "encoder"], 0)
    sources = [inputs.source(text) for text in texts]
    found = Features(model, inputs, frozen_part(model, inputs.family))
    found.prepare(sources)
    return found, sources


def test_features_are_the_encoders_output_padded_with_0(examples: pd.DataFrame) -> None:
    found, sources = _prepared(examples, ["we talk about graphs", "we talk"])
    model, inputs = small_model("bart", examples)
    padded = found(sources)
    for row, source in zip(padded, sources, strict=True):
        expected = model.eval().get_encoder()(**inputs.batch([source])).last_hidden_state[0]
        torch.testing.assert_close(row[: len(source)], expected, rtol=1e-2, atol=1e-2)
        assert not row[len(source) :].any()


def test_features_are_memory_mapped_in_half_precision(examples: pd.DataFrame) -> None:
    found, sources = _prepared(examples, ["we talk about graphs", "we talk"])
    (file,) = FEATURES.glob("*/*.safetensors")
    with safe_open(file, framework="pt") as kept:
        assert {kept.get_tensor(name).dtype for name in kept.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert found(sources).dtype == torch.float32
    assert str(file.resolve()) in Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", WITH_ENCODER)
def test_titles_are_the_same_from_cached_features(
    family: str, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = lively_model(family, examples)

    monkeypatch.setattr(features, "_CACHE_DTYPE", torch.float32)
    kept = Features(model, inputs, (model.get_encoder(),))
    texts = examples["text"].tolist()
    kept.prepare([inputs.source(text) for text in texts])
    beams = GREEDY.model_copy(update={"num_beams": 3})
    plain = Titler(model, inputs, beams).titles(texts)
    assert Titler(model, inputs, beams, kept).titles(texts) == plain
    assert len([*FEATURES.glob("*/*.safetensors")]) == 1


def test_features_do_not_depend_on_the_callers_autocast(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_CACHE_DTYPE", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, sources = _prepared(examples, ["we talk about graphs"])
    in_half = found(sources)
    monkeypatch.setattr(features, "FEATURES", tmp_path / "others")
    found, sources = _prepared(examples, ["we talk about graphs"])
    assert torch.equal(in_half, found(sources))


def test_features_in_bfloat16_have_their_own_folder(examples: pd.DataFrame) -> None:
    model, inputs = small_model("bart", examples)
    sources = [inputs.source("we talk about graphs")]
    found = []
    for half in (False, True):
        kept = Features(model, inputs, (model.get_encoder(),), half=half)
        kept.prepare(sources)
        found.append(kept(sources))
    assert len([*FEATURES.glob("*")]) == 2
    torch.testing.assert_close(*found, rtol=5e-2, atol=5e-2)


def test_a_damaged_file_is_computed_again(examples: pd.DataFrame) -> None:
    found, sources = _prepared(examples, ["we talk about graphs"])
    expected = found(sources)
    (file,) = FEATURES.glob("*/*.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    found, sources = _prepared(examples, ["we talk about graphs"])
    assert torch.equal(found(sources), expected)


def test_concurrent_trainings_compute_features_once(examples: pd.DataFrame) -> None:
    model, inputs = small_model("bart", examples)
    sources = [inputs.source(text) for text in examples["text"]]
    together = Barrier(2)

    def compute() -> None:
        features = Features(model.eval(), inputs, (model.get_encoder(),))
        together.wait()
        features.prepare(sources)

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(compute) for _ in range(2)]:
            each.result()
    assert len([*FEATURES.glob("*/*.safetensors")]) == 1


@pytest.mark.slow
def test_a_training_continues_without_features_on_a_full_disk(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    plenty, _ = train(examples, tmp_path / "plenty", "bart", **FROZEN)
    monkeypatch.setattr(features, "FEATURES", tmp_path / "full")
    monkeypatch.setattr(features, "save_file", full)
    without, _ = train(examples, tmp_path / "none", "bart", **FROZEN)
    pd.testing.assert_frame_equal(without, plenty)


def test_other_weights_have_their_own_features(examples: pd.DataFrame) -> None:
    _prepared(examples, ["we talk"])
    model, inputs = small_model("bart", examples)
    with torch.no_grad():
        next(model.get_encoder().layers.parameters()).add_(1e-3)
    other = Features(model, inputs, (model.get_encoder(),))
    other.prepare([inputs.source("we talk")])
    assert len([*FEATURES.glob("*")]) == 2


def test_features_of_a_new_text_are_added(examples: pd.DataFrame) -> None:
    _prepared(examples, ["we talk"])
    _prepared(examples, ["we talk", "we talk about graphs"])
    assert len([*FEATURES.glob("*/*.safetensors")]) == 2
    _prepared(examples, ["we talk about graphs", "we talk"])
    assert len([*FEATURES.glob("*/*.safetensors")]) == 2


def _nearly_full(examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, int]:
    """Limit the cache to 1.5 times one text's features. Return their folder and size in bytes."""
    _prepared(examples, ["we talk about graphs"])
    (folder,) = FEATURES.glob("*")
    size = sum(file.stat().st_size for file in folder.iterdir())
    monkeypatch.setenv("LECTERN_FEATURES_GB", str(1.5 * size / 1e9))
    return folder, size


def test_the_least_recently_used_features_are_deleted_first(
    examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = _nearly_full(examples, monkeypatch)
    model, inputs = small_model("bart", examples)
    with torch.no_grad():
        next(model.get_encoder().layers.parameters()).add_(1e-3)
    other = Features(model, inputs, (model.get_encoder(),))
    other.prepare([inputs.source("we talk about graphs")])
    assert not old.exists()
    assert other([inputs.source("we talk about graphs")]).any()


def test_features_of_other_texts_are_deleted_if_the_limit_requires_it(
    examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, size = _nearly_full(examples, monkeypatch)
    model, inputs = small_model("bart", examples)
    now = Features(model, inputs, (model.get_encoder(),))
    sources = [inputs.source("we talk about threads")]
    now.prepare(sources)
    (file,) = folder.glob("*.safetensors")
    with safe_open(file, framework="pt") as kept:
        assert len(kept.keys()) == 1
    assert now([*sources, inputs.source("we talk about graphs")]).any(dim=2).any(dim=1).all()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1.5 * size


@pytest.mark.slow
def test_a_training_above_the_limit_computes_features_in_each_epoch(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LECTERN_FEATURES_GB", "0.00001")
    curves, _ = train(examples, tmp_path, "bart", **FROZEN)
    assert len(curves) == 2
    assert not [*FEATURES.glob("*/*.safetensors")]


@pytest.mark.parametrize("limit", ["much", "-1", "inf"])
def test_a_limit_that_is_not_a_number_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LECTERN_FEATURES_GB", limit)
    with pytest.raises(UsageError, match="LECTERN_FEATURES_GB"):
        limit_bytes()
