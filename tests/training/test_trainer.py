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
from pipeline.training.resume import Stopwatch
from pipeline.training.trainer import CURVES, Diverged, fit
from tests.models.small import GREEDY, lively_model, small_model
from tests.training.small import LORA, SETTINGS, Killed, NoDropout, score, train

STEPS_AN_EPOCH = 4


@pytest.mark.parametrize("family", FAMILIES)
def test_training_lowers_the_validation_loss(family: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    curves, _ = train(examples, tmp_path, family, epochs=3)
    assert curves["validation_loss"].iloc[-1] < curves["validation_loss"].iloc[0]


def test_the_curves_have_a_row_an_epoch(examples: pd.DataFrame, tmp_path: Path) -> None:
    curves, _ = train(examples, tmp_path)
    assert list(curves.columns) == CURVES
    assert curves["epoch"].tolist() == [1.0, 2.0]
    assert curves["step"].tolist() == [4, 8]
    assert curves.notna().all(axis=None)


def test_the_same_training_twice_gives_the_same_weights(examples: pd.DataFrame, tmp_path: Path) -> None:
    (one, first), (two, second) = (train(examples, tmp_path / str(i)) for i in range(2))
    assert one.equals(two)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("family", "lora"), [("t5", None), ("t5", LORA), ("causal", LORA)])
def test_an_interrupted_training_goes_on_and_ends_with_the_same_weights(
    family: str, lora: LoraSettings | None, examples: pd.DataFrame, tmp_path: Path
) -> None:
    patient = {"family": family, "lora": lora, "epochs": 4, "early_stopping": 1}
    whole, undisturbed = train(examples, tmp_path / "undisturbed", **patient)
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path / "killed", callbacks=(Killed(step=6),), **patient)
    resumed, weights = train(examples, tmp_path / "killed", **patient)
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)
    assert resumed["validation_loss"].tolist() == whole["validation_loss"].tolist()


class _Begun(TrainerCallback):
    """Which steps a training was at when it took one more."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.steps.append(state.global_step)


BART_FEATURES = {"family": "bart", "freeze": ["embedding", "encoder"]}
CAUSAL_FEATURES = {"family": "causal", "freeze": ["embedding"], "freeze_lower_layers": 1}
RISING_LOSS = {"learning_rate": 0.3, "schedule": "constant", "warmup": 0.0, "early_stopping": 2}


@pytest.mark.parametrize(("epochs", "killed_at"), [(1, 3), (2, 7), (3, 7)])
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"micro_batch_tokens": 60},
        {"family": "causal", "lora": LORA},
        BART_FEATURES,
        CAUSAL_FEATURES,
        RISING_LOSS,
        {"unfreeze_every": 1, "discriminative": 2.6},
        {"optimiser": "ranger", "schedule": "constant"},
        {"optimiser": "schedulefreeadamw", "schedule": "constant"},
    ],
    ids=str,
)
def test_a_training_interrupted_within_an_epoch_goes_on_from_there_and_ends_with_the_same_weights(
    epochs: int, killed_at: int, chosen: dict[str, object], examples: pd.DataFrame, tmp_path: Path
) -> None:
    whole, undisturbed = train(examples, tmp_path / "undisturbed", epochs=epochs, **chosen)
    often = {"epochs": epochs, "checkpoint_minutes": 0, **chosen}
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path / "killed", callbacks=(Killed(killed_at),), **often)
    begun = _Begun()
    resumed, weights = train(examples, tmp_path / "killed", callbacks=(begun,), **often)
    assert begun.steps[0] == killed_at - 1
    assert begun.steps[0] % STEPS_AN_EPOCH
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)


def test_the_time_before_an_interruption_counts(examples: pd.DataFrame, tmp_path: Path) -> None:
    kept = tmp_path / "seconds"
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path, callbacks=(Killed(step=6), Stopwatch(kept)))
    assert float(kept.read_text()) > 0
    kept.write_text("1000")
    watch = Stopwatch(kept)
    train(examples, tmp_path, callbacks=(watch,))
    assert 1000 < watch.seconds < 2000


def test_the_best_epochs_checkpoint_outlives_those_within_the_next(examples: pd.DataFrame, tmp_path: Path) -> None:
    often = {"epochs": 3, "checkpoint_minutes": 0, **RISING_LOSS}
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path, callbacks=(Killed(step=7),), **often)
    kept = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert kept == {"checkpoint-4", "checkpoint-6"}


@pytest.mark.parametrize(
    ("chosen", "held"),
    [
        (BART_FEATURES, {"model.decoder"}),
        ({"family": "bart", "freeze": ["embedding"], "unfreeze_every": 2}, {"model.decoder", "model.encoder"}),
    ],
)
def test_a_checkpoint_holds_what_may_train_by_its_end_and_nothing_else(
    chosen: dict[str, object], held: set[str], examples: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path, callbacks=(Killed(step=6),), **chosen)
    with safe_open(tmp_path / "run" / "checkpoint-4" / "model.safetensors", framework="pt") as weights:
        parts = {".".join(name.split(".")[:2]) for name in weights.keys()}  # noqa: SIM118
    assert parts - {"final_logits_bias"} == held


def test_within_an_epoch_a_checkpoint_is_left_when_it_is_time_and_not_sooner(
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


@pytest.mark.parametrize("state", [None, "", '{"epoch": 1.0, '])
def test_a_half_written_checkpoint_is_not_gone_on_from(
    state: str | None, examples: pd.DataFrame, tmp_path: Path
) -> None:
    _, undisturbed = train(examples, tmp_path / "undisturbed")
    half = tmp_path / "half" / "run" / "checkpoint-4"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    if state is not None:
        (half / "trainer_state.json").write_text(state, encoding="utf-8")
    _, weights = train(examples, tmp_path / "half")
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)


def test_a_training_whose_loss_is_no_number_is_refused_each_time_it_is_asked_for(
    examples: pd.DataFrame, tmp_path: Path
) -> None:
    for _ in range(2):
        with pytest.raises(Diverged, match="lower the model's learning_rate"):
            train(examples, tmp_path, learning_rate=1e30, max_gradient_norm=1e30, schedule="constant")


@pytest.mark.parametrize("lora", [None, LORA])
def test_training_stops_early_and_keeps_the_best_epoch(
    lora: LoraSettings | None, examples: pd.DataFrame, tmp_path: Path
) -> None:
    # A rate at which the loss goes up after a while.
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


def test_looking_at_titles_in_between_does_not_change_the_training(examples: pd.DataFrame, tmp_path: Path) -> None:
    states = []
    for texts in (0, 1):
        model, inputs = small_model("bart", examples)
        titler = Titler(model.eval(), inputs, GREEDY)
        torch.manual_seed(5)
        titler.titles(examples["text"].tolist()[:texts])
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


class _Rates(TrainerCallback):
    """The learning rates of each step: one a group of parameters."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def on_pre_optimizer_step(self, args, state, control, optimizer, **kwargs):
        self.steps.append([group["lr"] for group in optimizer.param_groups])


@pytest.mark.parametrize("schedule", ["one-cycle", "linear"])
def test_a_lower_layer_groups_rate_stays_in_proportion(schedule: str, examples: pd.DataFrame, tmp_path: Path) -> None:
    rates = _Rates()
    train(examples, tmp_path, "bart", (rates,), schedule=schedule, discriminative=2.0, epochs=4)
    peaks = sorted({max(of_group) for of_group in zip(*rates.steps, strict=True)}, reverse=True)
    highest = SETTINGS.learning_rate
    assert peaks == pytest.approx([highest, highest / 2, highest / 4], rel=0.05)


def test_linear_rises_to_the_peak_and_falls_by_equal_steps(examples: pd.DataFrame, tmp_path: Path) -> None:
    rates = _Rates()
    train(examples, tmp_path, callbacks=(rates,), schedule="linear", epochs=4)
    of_all = [step[0] for step in rates.steps]
    peak, highest = 4, SETTINGS.learning_rate  # a quarter of 16 steps
    assert of_all[: peak + 1] == pytest.approx([highest * step / (peak + 1) for step in range(1, peak + 2)])
    assert of_all[peak:] == pytest.approx([highest * (16 - step) / 12 for step in range(peak, 16)])


class _Padding(TrainerCallback):
    """How many tokens the encoder is given while the model is trained, and how many places that hold none."""

    def __init__(self) -> None:
        self.tokens = self.empty = 0

    def on_train_begin(self, args, state, control, model, **kwargs):
        def look(_module, _positional, named):
            if model.training:
                self.tokens += int(named["attention_mask"].sum())
                self.empty += int((named["attention_mask"] == 0).sum())

        model.get_encoder().register_forward_pre_hook(look, with_kwargs=True)


def test_texts_of_like_length_are_trained_on_together(examples: pd.DataFrame, tmp_path: Path) -> None:
    many = pd.concat([examples] * 8, ignore_index=True)
    many["text"] = ["word " * (1 + 7 * place % 41) for place in range(len(many))]
    seen = _Padding()
    train(many, tmp_path, "bart", (seen,), epochs=1)
    assert seen.tokens > len(many)
    assert seen.empty < seen.tokens / 5  # of texts put together by chance: more than a half


def test_one_cycle_rises_to_the_peak_and_falls(examples: pd.DataFrame, tmp_path: Path) -> None:
    watched = _Rates()
    train(examples, tmp_path, callbacks=(watched,), epochs=4)
    rates = [step[0] for step in watched.steps]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(SETTINGS.learning_rate, rel=0.05)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.hard  # for what a compiler takes
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
@pytest.mark.parametrize(
    ("family", "frozen"),
    [
        ("bart", {"freeze": ["embedding", "encoder"]}),
        ("causal", {"freeze": ["embedding"], "freeze_lower_layers": 1}),
    ],
)
def test_a_compiled_model_is_trained_alike(
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


class _Asked(Exception):
    """Stands for the library's arguments, which want a GPU for half precision; carries what they would be."""

    def __init__(self, **arguments: object) -> None:
        self.arguments = arguments


def _arguments(
    examples: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch, family: str = "t5", **settings: object
) -> dict[str, object]:
    """The library's arguments for that training."""

    def ask(**arguments: object) -> None:
        raise _Asked(**arguments)

    monkeypatch.setattr("pipeline.training.trainer.TrainingArguments", ask)
    with pytest.raises(_Asked) as asked:
        train(examples, folder, family, **settings)
    return asked.value.arguments


def _pretend_a_gpu(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool) -> None:
    """One that has bfloat16; or, as a T4 does, emulates it."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported", lambda including_emulation=True: bfloat16 or including_emulation
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_gpu_without_bfloat16_what_overflows_in_float16_trains_in_float32(
    family: str, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_a_gpu(monkeypatch, bfloat16=False)
    arguments = _arguments(examples, tmp_path, monkeypatch, family)
    assert not arguments["bf16"]
    assert arguments["fp16"] == (family not in ("t5", "mt5", "pegasus"))


@pytest.mark.parametrize("family", FAMILIES)
def test_on_a_gpu_that_has_bfloat16_every_family_trains_in_it(
    family: str, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_a_gpu(monkeypatch, bfloat16=True)
    arguments = _arguments(examples, tmp_path, monkeypatch, family)
    assert arguments["bf16"]
    assert not arguments["fp16"]


@pytest.mark.parametrize("chosen", [False, True])
def test_a_model_is_compiled_where_that_is_asked_for(
    chosen: bool, examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _arguments(examples, tmp_path, monkeypatch, compile=chosen)["torch_compile"] == chosen


def _pretend_a_processor(monkeypatch: pytest.MonkeyPatch, *instructions: str, narrowest: int = 32) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, **dict.fromkeys(instructions, True)})
    monkeypatch.setattr("pipeline.models.precision._NARROW", narrowest)


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
def test_a_processor_computes_in_bfloat16_where_it_has_instructions_for_it(
    precision: str,
    instructions: tuple[str, ...],
    narrowest: int,
    asked: bool,
    examples: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pretend_a_processor(monkeypatch, *instructions, narrowest=narrowest)
    arguments = _arguments(examples, tmp_path, monkeypatch, precision=precision)
    assert arguments["bf16"] == asked
    assert not arguments["fp16"]


def test_a_training_goes_on_in_the_precision_that_it_began_with(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for instructions in (["amx_bf16"], []):
        _pretend_a_processor(monkeypatch, *instructions)
        assert _arguments(examples, tmp_path, monkeypatch)["bf16"]


class _InHalf(TrainerCallback):
    """Whether the encoder computes in half precision, each time that it reads."""

    def __init__(self) -> None:
        self.half: list[bool] = []

    def on_train_begin(self, args, state, control, model, **kwargs):
        model.get_encoder().register_forward_hook(lambda *_: self.half.append(torch.is_autocast_enabled("cpu")))


def test_the_validation_loss_is_of_the_precision_that_is_trained_in(examples: pd.DataFrame, tmp_path: Path) -> None:
    read = _InHalf()
    train(examples, tmp_path, "bart", (read,), precision="bfloat16")
    assert len(read.half) > 2 * STEPS_AN_EPOCH
    assert all(read.half)


def test_one_process_uses_one_of_the_gpus_that_it_sees(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = TrainingArguments.__post_init__

    def with_two_gpus(arguments: TrainingArguments) -> None:
        found(arguments)
        arguments._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_two_gpus)
    curves, _ = train(examples, tmp_path, epochs=1)
    assert curves["step"].tolist() == [STEPS_AN_EPOCH]


def test_a_processor_is_known_by_the_names_of_its_instructions() -> None:
    assert set(_CPU_INSTRUCTIONS) & set(torch.cpu.get_capabilities())


class _Dropout(TrainerCallback):
    """The names of the dropouts that a training passes switched on, and of those that it passes switched off."""

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


@pytest.mark.parametrize("family", ["t5", "mt5", "encoder-decoder"])  # whose dropouts are modules
@pytest.mark.parametrize("chosen", [{"lora": LORA}, {"freeze": ["encoder"]}], ids=str)
def test_a_frozen_layer_that_gradients_flow_through_keeps_its_dropout(
    family: str, chosen: dict[str, object], examples: pd.DataFrame, tmp_path: Path
) -> None:
    seen = _Dropout()
    train(examples, tmp_path, family, (seen,), epochs=1, **chosen)
    assert seen.on
    assert not seen.off


def test_a_frozen_encoder_that_no_gradient_reaches_has_no_dropout(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LECTERN_FEATURES_GB", "0")  # it reads each text at each step
    seen = _Dropout()
    train(examples, tmp_path, "t5", (seen,), epochs=1, freeze=["embedding", "encoder"])
    assert {name.split(".")[0] for name in seen.off} == {"encoder"}
    assert {name.split(".")[0] for name in seen.on} == {"decoder"}


def test_a_launchers_own_precision_is_not_taken(
    examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = train(examples, tmp_path / "plain", precision="float32")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    launched, _ = train(examples, tmp_path / "launched", precision="float32")
    assert launched["validation_loss"].tolist() == plain["validation_loss"].tolist()


def test_a_model_that_was_trained_in_bfloat16_computes_in_float32(examples: pd.DataFrame, tmp_path: Path) -> None:
    model, inputs = small_model("t5", examples)
    half = SETTINGS.model_copy(update={"precision": "bfloat16", "epochs": 1})
    fit(model, inputs, examples, examples.head(4), half, score=score, resume_from=tmp_path)
    same, _ = small_model("t5", examples)
    same.load_state_dict(model.state_dict())
    batch = inputs.training_batch([inputs.example(*examples.loc[0, ["text", "title"]])])
    with torch.inference_mode():
        assert torch.equal(model.eval()(**batch).logits, same.eval()(**batch).logits)


class _KilledAtTheEnd(TrainerCallback):
    """Ends the process's work once all is trained, before anybody has it."""

    def on_train_end(self, args, state, control, **kwargs):
        raise KeyboardInterrupt


def test_what_was_trained_to_its_end_is_not_trained_again(examples: pd.DataFrame, tmp_path: Path) -> None:
    worse = {"epochs": 5, **RISING_LOSS, "early_stopping": 1}  # stops early, and its best epoch is not its last
    whole, undisturbed = train(examples, tmp_path / "undisturbed", **worse)
    assert len(whole) < 5
    assert whole["validation_loss"].idxmin() < whole.index[-1]
    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path / "killed", callbacks=(_KilledAtTheEnd(),), **worse)
    begun = _Begun()
    again, weights = train(examples, tmp_path / "killed", callbacks=(begun,), **worse)
    assert not begun.steps
    assert again["validation_loss"].tolist() == whole["validation_loss"].tolist()
    assert all(torch.equal(weights[name], undisturbed[name]) for name in weights)


@pytest.mark.parametrize("count", [1, 5, 9, 13])
def test_a_training_of_a_few_steps_has_a_schedule_too(count: int, examples: pd.DataFrame, tmp_path: Path) -> None:
    curves, _ = train(examples.head(count), tmp_path, epochs=1)
    assert (curves["learning_rate"] > 0).all()
    assert curves["step"].tolist() == [-(-count // SETTINGS.batch_size)]


def test_a_checkpoints_own_generation_settings_are_not_used_beside_adapters_either(
    examples: pd.DataFrame, tmp_path: Path
) -> None:
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
