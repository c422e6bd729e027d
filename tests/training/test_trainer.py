from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch._dynamo.utils import counters
from transformers import GenerationConfig, TrainerCallback, TrainingArguments

from pipeline.models.families import FAMILIES
from pipeline.models.generation import Titler
from pipeline.models.lora import LoraSettings, wrap
from pipeline.models.precision import _CPU_INSTRUCTIONS
from pipeline.training.curves import COLUMNS
from pipeline.training.resume import Stopwatch
from pipeline.training.trainer import TrainingDiverged, fit
from tests.models.small import GREEDY, lively_model, small_model
from tests.training.small import LORA, SETTINGS, Killed, NoDropout, score, train

STEPS_AN_EPOCH = 4


@pytest.mark.parametrize("family", FAMILIES)
def test_training_lowers_the_validation_loss(family: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    curves, _ = train(examples, tmp_path, family)
    assert curves["validation_loss"].iloc[-1] < curves["validation_loss"].iloc[0]


def test_the_curves_have_one_row_per_epoch(examples: pd.DataFrame, tmp_path: Path) -> None:
    curves, _ = train(examples, tmp_path)
    assert list(curves.columns) == COLUMNS
    assert curves["epoch"].tolist() == [1.0, 2.0]
    assert curves["step"].tolist() == [4, 8]
    assert curves.notna().all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LORA])
def test_a_training_interrupted_between_epochs_ends_with_the_same_weights(
    lora: LoraSettings | None, examples: pd.DataFrame, tmp_path: Path
) -> None:
    patient = {"family": "causal" if lora else "t5", "lora": lora, "epochs": 3, "early_stopping": 1}
    whole, undisturbed = train(examples, tmp_path / "undisturbed", **patient)
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path / "killed", callbacks=(Killed(step=6),), **patient)
    resumed, weights = train(examples, tmp_path / "killed", **patient)
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)
    assert resumed["validation_loss"].tolist() == whole["validation_loss"].tolist()


class _StartedSteps(TrainerCallback):
    """Records the number of steps before each step."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.steps.append(state.global_step)


BART_FEATURES = {"family": "bart", "freeze": ["embedding", "encoder"]}
CAUSAL_FEATURES = {"family": "causal", "freeze": ["embedding"], "freeze_lower_layers": 1}
RISING_LOSS = {"learning_rate": 0.3, "schedule": "constant", "warmup": 0.0, "early_stopping": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "killed_at", "chosen"),
    [
        (1, 3, {}),
        (2, 7, {"micro_batch_tokens": 60}),
        (2, 7, {"family": "causal", "lora": LORA}),
        (2, 7, BART_FEATURES),
        (2, 7, CAUSAL_FEATURES),
        (3, 7, RISING_LOSS),
        (2, 7, {"unfreeze_every": 1, "discriminative": 2.6}),
        (2, 7, {"optimiser": "ranger", "schedule": "constant"}),
        (2, 7, {"optimiser": "schedulefreeadamw", "schedule": "constant"}),
    ],
    ids=str,
)
def test_a_training_interrupted_within_an_epoch_ends_with_the_same_weights(
    epochs: int, killed_at: int, chosen: dict[str, object], examples: pd.DataFrame, tmp_path: Path
) -> None:
    whole, undisturbed = train(examples, tmp_path / "undisturbed", epochs=epochs, **chosen)
    often = {"epochs": epochs, "checkpoint_minutes": 0, **chosen}
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path / "killed", callbacks=(Killed(killed_at),), **often)
    begun = _StartedSteps()
    resumed, weights = train(examples, tmp_path / "killed", callbacks=(begun,), **often)
    assert begun.steps[0] == killed_at - 1
    assert begun.steps[0] % STEPS_AN_EPOCH
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)


def test_an_interrupted_training_resumes_with_smaller_micro_batches(examples: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path, callbacks=(Killed(step=6),))
    started = _StartedSteps()
    train(examples, tmp_path, callbacks=(started,), micro_batch_tokens=60, gradient_checkpointing=True)
    assert started.steps[0] == STEPS_AN_EPOCH


def test_the_time_before_an_interruption_counts(examples: pd.DataFrame, tmp_path: Path) -> None:
    kept = tmp_path / "seconds"
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path, callbacks=(Killed(step=6), Stopwatch(kept)))
    assert float(kept.read_text()) > 0
    kept.write_text("1000")
    watch = Stopwatch(kept)
    train(examples, tmp_path, callbacks=(watch,))
    assert 1000 < watch.seconds < 2000


def test_checkpoints_within_an_epoch_do_not_replace_the_best_one(examples: pd.DataFrame, tmp_path: Path) -> None:
    often = {"epochs": 3, "checkpoint_minutes": 0, **RISING_LOSS}
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path, callbacks=(Killed(step=7),), **often)
    kept = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert kept == {"checkpoint-4", "checkpoint-6"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "held"),
    [
        (BART_FEATURES, {"model.decoder"}),
        ({"family": "bart", "freeze": ["embedding"], "unfreeze_every": 2}, {"model.decoder", "model.encoder"}),
    ],
)
def test_a_checkpoint_has_only_weights_that_train(
    chosen: dict[str, object], held: set[str], examples: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path, callbacks=(Killed(step=6),), **chosen)
    with safe_open(tmp_path / "run" / "checkpoint-4" / "model.safetensors", framework="pt") as weights:
        parts = {".".join(name.split(".")[:2]) for name in weights.keys()}  # noqa: SIM118
    assert parts - {"final_logits_bias"} == held


def test_checkpoints_within_an_epoch_follow_the_clock(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which each step takes a minute."""
    minutes = iter(range(100))
    monkeypatch.setattr("pipeline.training.resume.time", SimpleNamespace(monotonic=lambda: 60 * next(minutes)))
    saved: list[int] = []

    class Watch(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            saved.append(state.global_step)

    train(examples, tmp_path, callbacks=(Watch(),), batch_size=1, epochs=1, checkpoint_minutes=4)
    assert saved == [4, 8, 12, 16]


@pytest.mark.parametrize("state", [None, '{"epoch": 1.0, '])
def test_a_training_does_not_resume_from_an_incomplete_checkpoint(
    state: str | None, examples: pd.DataFrame, tmp_path: Path
) -> None:
    _, undisturbed = train(examples, tmp_path / "undisturbed", epochs=1)
    half = tmp_path / "half" / "run" / "checkpoint-4"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    if state is not None:
        (half / "trainer_state.json").write_text(state, encoding="utf-8")
    _, weights = train(examples, tmp_path / "half", epochs=1)
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)


def test_a_diverged_training_is_refused_again_after_it_resumes(examples: pd.DataFrame, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(TrainingDiverged, match="lower the model's learning_rate"):
            train(examples, tmp_path, learning_rate=1e30, max_gradient_norm=1e30, schedule="constant")


@pytest.mark.parametrize("lora", [None, LORA])
def test_training_stops_early_and_keeps_the_best_epoch(
    lora: LoraSettings | None, examples: pd.DataFrame, tmp_path: Path
) -> None:
    # With this rate the loss rises after some epochs.
    model, inputs = small_model("t5", examples)
    settings = SETTINGS.model_copy(
        update={"epochs": 12, "learning_rate": 0.3, "early_stopping": 1, "schedule": "constant", "warmup": 0.0}
    )
    held_out = examples.head(4)
    trained = wrap(model, lora) if lora else model
    curves = fit(trained, inputs, examples, held_out, settings, score=score, resume_from=tmp_path / "run")
    batch = inputs.training_batch([inputs.example(*row) for row in held_out[["text", "title"]].to_numpy()])
    kept = model.eval()(**batch).loss.item()
    assert len(curves) < 12
    assert curves["validation_loss"].iloc[-1] > curves["validation_loss"].min()
    assert kept == pytest.approx(curves["validation_loss"].min(), rel=1e-4)


def test_generating_titles_does_not_change_the_random_state(examples: pd.DataFrame, tmp_path: Path) -> None:
    states = []
    for texts in (0, 1):
        model, inputs = small_model("bart", examples)
        titler = Titler(model.eval(), inputs, GREEDY)
        torch.manual_seed(5)
        titler.titles(examples["text"].tolist()[:texts])
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


class _Rates(TrainerCallback):
    """Records the learning rates of each step, one per group of parameters."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def on_pre_optimizer_step(self, args, state, control, optimizer, **kwargs):
        self.steps.append([group["lr"] for group in optimizer.param_groups])


@pytest.mark.parametrize("schedule", ["one-cycle", "linear"])
def test_the_rates_of_layer_groups_stay_in_proportion(schedule: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    rates = _Rates()
    train(examples, tmp_path, "bart", (rates,), schedule=schedule, discriminative=2.0)
    peaks = sorted({max(of_group) for of_group in zip(*rates.steps, strict=True)}, reverse=True)
    highest = SETTINGS.learning_rate
    assert peaks == pytest.approx([highest, highest / 2, highest / 4], rel=0.05)


class _Padding(TrainerCallback):
    """Counts the encoder's tokens in training, and its padding."""

    def __init__(self) -> None:
        self.tokens = self.empty = 0

    def on_train_begin(self, args, state, control, model, **kwargs):
        def look(_module, _positional, named):
            if model.training:
                self.tokens += int(named["attention_mask"].sum())
                self.empty += int((named["attention_mask"] == 0).sum())

        model.get_encoder().register_forward_pre_hook(look, with_kwargs=True)


def test_training_batches_have_texts_of_similar_length(examples: pd.DataFrame, tmp_path: Path) -> None:
    many = pd.concat([examples] * 4, ignore_index=True)
    many["text"] = ["word " * (1 + 7 * place % 41) for place in range(len(many))]
    seen = _Padding()
    train(many, tmp_path, "bart", (seen,), epochs=1)
    assert seen.tokens > len(many)
    assert seen.empty < seen.tokens / 5  # random batches: more than a half


@pytest.mark.hard  # compiling takes minutes
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
@pytest.mark.parametrize(
    ("family", "frozen"),
    [
        ("bart", {"freeze": ["embedding", "encoder"]}),
        ("causal", {"freeze": ["embedding"], "freeze_lower_layers": 1}),
    ],
)
def test_a_compiled_model_has_the_same_losses(
    family: str, frozen: dict[str, object], examples: pd.DataFrame, tmp_path: Path
) -> None:
    counters.clear()
    (plain, weights), (compiled, same) = (
        train(examples, tmp_path / str(choice), family, (NoDropout(),), compile=choice, **frozen)
        for choice in (False, True)
    )
    assert compiled["validation_loss"].tolist() == pytest.approx(plain["validation_loss"].tolist(), rel=1e-3)
    assert weights.keys() == same.keys()
    assert counters["frames"]["ok"] > 0


class _RequestedArguments(Exception):
    """Carries the arguments for the library, which would refuse half precision without a GPU."""

    def __init__(self, **arguments: object) -> None:
        self.arguments = arguments


def _arguments(
    examples: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch, family: str = "t5", **settings: object
) -> dict[str, object]:
    """The arguments that a training passes to the library."""

    def ask(**arguments: object) -> None:
        raise _RequestedArguments(**arguments)

    monkeypatch.setattr("pipeline.training.arguments.TrainingArguments", ask)
    with pytest.raises(_RequestedArguments) as asked:
        train(examples, folder, family, **settings)
    return asked.value.arguments


def _pretend_a_gpu(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool) -> None:
    """Pretend a GPU with bfloat16, or one that emulates it, as a T4 does."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported", lambda including_emulation=True: bfloat16 or including_emulation
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gpu_without_bfloat16_trains_in_float16_unless_the_family_overflows(
    family: str, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_a_gpu(monkeypatch, bfloat16=False)
    arguments = _arguments(examples, tmp_path, monkeypatch, family)
    assert not arguments["bf16"]
    assert arguments["fp16"] == (family not in ("t5", "mt5", "pegasus"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gpu_with_bfloat16_trains_all_families_in_it(
    family: str, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_a_gpu(monkeypatch, bfloat16=True)
    arguments = _arguments(examples, tmp_path, monkeypatch, family)
    assert arguments["bf16"]
    assert not arguments["fp16"]


@pytest.mark.parametrize("chosen", [False, True])
def test_the_setting_compile_reaches_the_library(
    chosen: bool, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _arguments(examples, tmp_path, monkeypatch, compile=chosen)["torch_compile"] == chosen


def _pretend_a_cpu(monkeypatch: pytest.MonkeyPatch, *instructions: str, narrowest: int = 32) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, **dict.fromkeys(instructions, True)})
    monkeypatch.setattr("pipeline.models.precision._MIN_WIDTH", narrowest)


@pytest.mark.parametrize(
    ("precision", "instructions", "narrowest", "asked"),
    [
        ("auto", ("amx_bf16",), 32, True),
        ("auto", ("avx512_bf16",), 32, True),
        ("auto", ("sve_bf16",), 32, True),
        ("auto", ("avx512_f", "amx_int8"), 32, False),
        ("auto", ("amx_bf16",), 33, False),  # a model of width 32
        ("float32", ("amx_bf16",), 32, False),
        ("bfloat16", (), 32, True),
    ],
)
def test_a_cpu_trains_in_bfloat16_if_it_has_instructions_for_it(
    precision: str,
    instructions: tuple[str, ...],
    narrowest: int,
    asked: bool,
    examples: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pretend_a_cpu(monkeypatch, *instructions, narrowest=narrowest)
    arguments = _arguments(examples, tmp_path, monkeypatch, precision=precision)
    assert arguments["bf16"] == asked
    assert not arguments["fp16"]


def test_a_resumed_training_keeps_its_precision(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for instructions in (["amx_bf16"], []):
        _pretend_a_cpu(monkeypatch, *instructions)
        assert _arguments(examples, tmp_path, monkeypatch)["bf16"]


class _InHalf(TrainerCallback):
    """Records for each call of the encoder whether it computes in half precision."""

    def __init__(self) -> None:
        self.half: list[bool] = []

    def on_train_begin(self, args, state, control, model, **kwargs):
        model.get_encoder().register_forward_hook(lambda *_: self.half.append(torch.is_autocast_enabled("cpu")))


def test_the_validation_loss_uses_the_trainings_precision(examples: pd.DataFrame, tmp_path: Path) -> None:
    read = _InHalf()
    train(examples, tmp_path, "bart", (read,), precision="bfloat16")
    assert len(read.half) > 2 * STEPS_AN_EPOCH
    assert all(read.half)


def test_a_process_uses_one_of_several_visible_gpus(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = TrainingArguments.__post_init__

    def with_two_gpus(arguments: TrainingArguments) -> None:
        found(arguments)
        arguments._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_two_gpus)
    curves, _ = train(examples, tmp_path, epochs=1)
    assert curves["step"].tolist() == [STEPS_AN_EPOCH]


def test_torch_knows_the_names_of_the_instructions() -> None:
    assert set(_CPU_INSTRUCTIONS) & set(torch.cpu.get_capabilities())


class _Dropout(TrainerCallback):
    """Records the names of the active and of the inactive dropouts of a training."""

    def __init__(self) -> None:
        self.on: set[str] = set()
        self.off: set[str] = set()

    def on_train_begin(self, args, state, control, model, **kwargs):
        for name, module in model.named_modules():
            if isinstance(module, nn.Dropout):
                module.register_forward_hook(self._look(name))

    def _look(self, name):
        def look(module, *_):
            if not torch.is_inference_mode_enabled():
                (self.on if module.training else self.off).add(name)

        return look


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "mt5", "encoder-decoder"])  # whose dropouts are modules
@pytest.mark.parametrize("chosen", [{"lora": LORA}, {"freeze": ["encoder"]}], ids=str)
def test_a_frozen_layer_with_gradients_keeps_its_dropout(
    family: str, chosen: dict[str, object], examples: pd.DataFrame, tmp_path: Path
) -> None:
    seen = _Dropout()
    train(examples, tmp_path, family, (seen,), epochs=1, **chosen)
    assert seen.on
    assert not seen.off


def test_a_frozen_encoder_without_gradients_has_no_dropout(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LECTERN_FEATURES_GB", "0")  # the encoder runs in each step
    seen = _Dropout()
    train(examples, tmp_path, "t5", (seen,), epochs=1, freeze=["embedding", "encoder"])
    assert {name.split(".")[0] for name in seen.off} == {"encoder"}
    assert {name.split(".")[0] for name in seen.on} == {"decoder"}


def test_the_precision_of_accelerate_launch_is_ignored(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = train(examples, tmp_path / "plain", precision="float32")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    launched, _ = train(examples, tmp_path / "launched", precision="float32")
    assert launched["validation_loss"].tolist() == plain["validation_loss"].tolist()


def test_a_model_computes_in_float32_after_a_training_in_bfloat16(examples: pd.DataFrame, tmp_path: Path) -> None:
    model, inputs = small_model("t5", examples)
    half = SETTINGS.model_copy(update={"precision": "bfloat16", "epochs": 1})
    fit(model, inputs, examples, examples.head(4), half, score=score, resume_from=tmp_path)
    same, _ = small_model("t5", examples)
    same.load_state_dict(model.state_dict())
    batch = inputs.training_batch([inputs.example(*examples.loc[0, ["text", "title"]])])
    with torch.inference_mode():
        assert torch.equal(model.eval()(**batch).logits, same.eval()(**batch).logits)


class _KilledAtTheEnd(TrainerCallback):
    """Interrupts a training after its last step, before the model is saved."""

    def on_train_end(self, args, state, control, **kwargs):
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_training_interrupted_after_its_last_step_is_not_repeated(examples: pd.DataFrame, tmp_path: Path) -> None:
    worse = {"epochs": 8, **RISING_LOSS, "early_stopping": 1}  # stops early, and its best epoch is not its last
    whole, undisturbed = train(examples, tmp_path / "undisturbed", **worse)
    assert len(whole) < 8
    assert whole["validation_loss"].idxmin() < whole.index[-1]
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path / "killed", callbacks=(_KilledAtTheEnd(),), **worse)
    begun = _StartedSteps()
    again, weights = train(examples, tmp_path / "killed", callbacks=(begun,), **worse)
    assert not begun.steps
    assert again["validation_loss"].tolist() == whole["validation_loss"].tolist()
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)


@pytest.mark.parametrize("count", [1, 9])
def test_a_training_of_a_few_steps_has_a_positive_rate(count: int, examples: pd.DataFrame, tmp_path: Path) -> None:
    curves, _ = train(examples.head(count), tmp_path, epochs=1)
    assert (curves["learning_rate"] > 0).all()
    assert curves["step"].tolist() == [-(-count // SETTINGS.batch_size)]


def test_generation_settings_of_a_checkpoint_are_not_used_with_adapters(examples: pd.DataFrame, tmp_path: Path) -> None:
    written: list[list[str]] = []

    def listen(predictions: list[str], titles: list[str]) -> dict[str, float]:
        written.append(predictions)
        return score(predictions, titles)

    settings = SETTINGS.model_copy(update={"epochs": 1, "learning_rate": 1e-6})
    for own in (GenerationConfig(), GenerationConfig(repetition_penalty=9.0, forced_bos_token_id=7)):
        model, inputs = lively_model("bart", examples)
        model.generation_config = own
        folder = tmp_path / str(len(written))
        fit(wrap(model, LORA), inputs, examples, examples.head(4), settings, score=listen, resume_from=folder)
    assert written[0] == written[1]
    assert any(written[0])
