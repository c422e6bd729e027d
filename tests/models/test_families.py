from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from transformers import GenerationConfig, MBart50TokenizerFast, PreTrainedModel

from pipeline.errors import Rejected, UsageError
from pipeline.models import scratch
from pipeline.models.checkpoints import Card, ModelSettings, open_checkpoint
from pipeline.models.families import FAMILIES, GROUPS
from pipeline.models.generation import Titler
from pipeline.models.inputs import IGNORED, Inputs
from pipeline.models.layer_groups import freeze, group_of, summarise
from tests.models.small import GREEDY, build_small_model, lively_model, small_model, titles_after_learning

TALK, TITLE = "we talk about graphs", "Why graphs matter"


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_same_texts_give_the_same_vocabulary(family: str, examples: pd.DataFrame) -> None:
    first, *others = (FAMILIES[family].new_tokenizer(examples["text"].tolist(), 300).get_vocab() for _ in range(2))
    assert all(other == first for other in others)


def test_every_parameter_is_in_a_layer_group(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    groups = {group_of(name, inputs.family) for name, _ in model.named_parameters()}
    wanted = {group for group in ("embedding", "encoder", "decoder") if inputs.family.groups[group]}
    assert wanted <= groups <= set(GROUPS)


def test_every_trainable_parameter_gets_a_gradient(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    freeze(model, inputs.family, [], lower_layers=0)
    model(**inputs.training_batch([inputs.example(TALK, TITLE)])).loss.backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not idle


@pytest.mark.slow
def test_a_model_writes_the_titles_that_it_has_learnt(family: str, examples: pd.DataFrame) -> None:
    """Generation starts, continues and ends titles as training does."""
    written, learnt = titles_after_learning(*small_model(family, examples), examples)
    assert written == learnt


@pytest.mark.slow
def test_titles_do_not_depend_on_the_order_of_the_texts(family: str, examples: pd.DataFrame) -> None:
    model, inputs = lively_model(family, examples)
    texts = examples["text"].tolist()
    longer = GREEDY.model_copy(update={"max_new_tokens": 16})  # the clean-up shortens nonsense
    titler = Titler(model, inputs, longer)
    titles = titler.titles(texts)
    assert len({*map(tuple, titles)}) > len(texts) / 2
    assert titler.titles(texts[::-1]) == titles[::-1]


def test_titles_do_not_depend_on_padding(family: str, examples: pd.DataFrame) -> None:
    model, inputs = lively_model(family, examples)
    texts = [examples["text"][0], examples["text"][7]]
    together = Titler(model, inputs, GREEDY).titles(texts)
    assert together[0] != together[1]
    alone = Titler(model, inputs, GREEDY.model_copy(update={"batch_size": 1})).titles(texts)
    assert together == alone


def test_the_loss_ignores_the_padding_of_labels(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    model.eval()
    # Titles of different lengths, so that one of the labels is padded.
    short, long = inputs.example("so we talk", "Graphs"), inputs.example("so we talk", "Why all of these graphs matter")
    losses = [model(**inputs.training_batch([example])).loss for example in (short, long)]
    counts = [sum(label != IGNORED for label in example.labels) for example in (short, long)]
    together = model(**inputs.training_batch([short, long])).loss
    expected = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert together.item() == pytest.approx(expected.item(), rel=1e-4)


def test_frozen_groups_do_not_train(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    freeze(model, inputs.family, ["embedding", "encoder"], lower_layers=1)
    summary = summarise(model, inputs.family)
    still = summary[
        summary["group"].isin(["embedding", "encoder"])
        | summary["layer"].str.contains(f"{inputs.family.decoder_layers}.0.", regex=False)
    ]
    assert not still["trainable"].any()
    assert summary["trainable"].any()


def test_a_text_in_capitals_is_lowered(family: str, examples: pd.DataFrame) -> None:
    _, inputs = small_model(family, examples)
    shouted = f"{TALK}, and about Dijkstra".upper()
    assert inputs.source(shouted) == inputs.source(shouted.lower())


def test_marks_of_sounds_are_not_read(family: str, examples: pd.DataFrame) -> None:
    _, inputs = small_model(family, examples)
    assert inputs.source("[Music] we talk\n[Applause]  about (laughter) graphs ♪") == inputs.source(TALK)


def test_capitals_in_a_mixed_text_stay(examples: pd.DataFrame) -> None:
    _, inputs = small_model("t5", examples)
    text = "NASA AND HOW WE talk about graphs"
    assert inputs.source(text) != inputs.source(text.lower())


def test_t5_is_asked_to_summarize(examples: pd.DataFrame) -> None:
    _, inputs = small_model("t5", examples)
    bare = inputs.tokenizer(TALK)["input_ids"]
    prefixed = inputs.tokenizer(f"summarize: {TALK}")["input_ids"]
    assert inputs.source(TALK) == prefixed != bare


def test_the_prefix_of_t5_takes_no_tokens_from_a_text(examples: pd.DataFrame) -> None:
    _, inputs = small_model("t5", examples)
    text = " ".join(examples["text"])
    asked = inputs.tokenizer("summarize:", add_special_tokens=False)["input_ids"]
    bare = inputs.tokenizer(text, truncation=True, max_length=inputs.max_source_tokens)["input_ids"]
    assert len(bare) == inputs.max_source_tokens
    assert inputs.source(text) == [*asked, *bare]


def test_a_prefix_takes_positions_from_a_text(
    few_positions: int, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "bart", replace(FAMILIES["bart"], prefix="so: "))
    _, inputs = build_small_model("bart", examples["text"])
    room = few_positions - len(inputs.tokenizer("so:", add_special_tokens=False)["input_ids"])
    build_small_model("bart", examples["text"], max_source_tokens=room)
    with pytest.raises(Rejected, match=f"max_source_tokens is {room + 1}, .* takes at most {room} tokens"):
        build_small_model("bart", examples["text"], max_source_tokens=room + 1)


def test_mt5_gets_texts_without_a_prefix(examples: pd.DataFrame) -> None:
    _, inputs = small_model("mt5", examples)
    assert inputs.source(TALK) == inputs.tokenizer(TALK)["input_ids"]


def test_led_attends_globally_to_its_first_token_in_training_and_in_generation(examples: pd.DataFrame) -> None:
    _, inputs = small_model("led", examples)
    rows = [inputs.example("we talk about graphs", "Graphs"), inputs.example("we talk", "Talk")]
    for batch in (inputs.training_batch(rows), inputs.batch([row.source for row in rows])):
        assert batch["global_attention_mask"].sum(dim=1).tolist() == [1, 1]
        assert batch["global_attention_mask"][:, 0].tolist() == [1, 1]


def test_led_gets_its_global_attention_mask_in_generation(examples: pd.DataFrame) -> None:
    model, inputs = lively_model("led", examples)
    given: list[dict[str, Any]] = []
    model.get_encoder().register_forward_pre_hook(lambda _module, _args, named: given.append(named), with_kwargs=True)
    Titler(model, inputs, GREEDY).titles([TALK])
    assert given[0]["global_attention_mask"][0, 0] == 1


def _first_tokens(model: PreTrainedModel, inputs: Inputs) -> tuple[list[int], list[int]]:
    """The first two tokens that the decoder reads in training, and those in generation."""
    given: list[int] = []
    model.get_decoder().register_forward_pre_hook(
        lambda _module, _args, named: given.extend(named["input_ids"][0].tolist()), with_kwargs=True
    )
    model(**inputs.training_batch([inputs.example(TALK, TITLE)]))
    taught = given[:2]
    given.clear()
    Titler(model, inputs, GREEDY).titles([TALK])
    return taught, given[:2]


def test_mbart_ends_a_text_with_the_language_and_starts_a_title_with_it(examples: pd.DataFrame) -> None:
    model, inputs = lively_model("mbart", examples)
    language = inputs.tokenizer.convert_tokens_to_ids("en_XX")
    assert inputs.source(TALK)[-1] == language
    taught, written = _first_tokens(model, inputs)
    assert taught == [language, inputs.target(TITLE)[0]]
    assert written[0] == language


def test_mbart_50_starts_texts_and_titles_with_the_language(examples: pd.DataFrame) -> None:
    model, inputs = lively_model("mbart", examples)
    vocabulary = inputs.tokenizer.get_vocab()
    pieces = [(piece, 0.0) for piece in sorted(vocabulary, key=vocabulary.get)]
    tokenizer = MBart50TokenizerFast(vocab=pieces, src_lang="en_XX", tgt_lang="en_XX")
    language = tokenizer.convert_tokens_to_ids("en_XX")
    fifty = Inputs(inputs.family, tokenizer, max_source_tokens=48, max_target_tokens=12)
    assert fifty.source(TALK)[0] == language
    taught, written = _first_tokens(model, fifty)
    assert taught == written == [tokenizer.eos_token_id, language]


def test_the_setting_language_reaches_mbart(examples: pd.DataFrame, tmp_path: Path) -> None:
    model, inputs = lively_model("mbart", examples)
    model.save_pretrained(tmp_path)
    inputs.tokenizer.save_pretrained(tmp_path)
    asked = {"family": "mbart", "checkpoint": str(tmp_path), "max_source_tokens": 48, "max_target_tokens": 12}
    settings = ModelSettings(**asked, language="de_DE")
    model, tokenizer = open_checkpoint(settings, [])
    inputs = Card(model="ours", **settings.model_dump(include=set(Card.model_fields))).inputs(tokenizer)
    german = tokenizer.convert_tokens_to_ids("de_DE")
    assert inputs.source(TALK)[-1] == german
    taught, written = _first_tokens(model, inputs)
    assert taught[0] == written[0] == german
    with pytest.raises(Rejected, match=r"has no language 'de'.*de_DE"):
        open_checkpoint(settings.model_copy(update={"language": "de"}), [])


@pytest.mark.parametrize(("family", "checkpoint"), [("bart", "somewhere"), ("mbart", "scratch")])
def test_a_language_is_refused_for_monolingual_families_and_models_from_scratch(family: str, checkpoint: str) -> None:
    size = {"width": 32, "layers": 2, "heads": 2, "vocabulary": 400} if checkpoint == "scratch" else None
    with pytest.raises(ValidationError, match=r"'language' needs .* a multilingual family: mbart"):
        ModelSettings(
            family=family,
            checkpoint=checkpoint,
            scratch=size,
            language="de_DE",
            max_source_tokens=48,
            max_target_tokens=12,
        )


@pytest.mark.parametrize("family", ["blenderbot-small", "prophetnet", "encoder-decoder"])
def test_tokenizers_without_an_end_token_get_one(family: str, examples: pd.DataFrame) -> None:
    _, inputs = small_model(family, examples)
    end = {"blenderbot-small": "__end__"}.get(family, "[SEP]")
    assert inputs.tokenizer.eos_token == end
    assert inputs.tokenizer.convert_ids_to_tokens(inputs.target(TITLE))[-1] == end
    assert inputs.tokenizer.convert_ids_to_tokens(inputs.source(""))[-1] == end


@pytest.fixture
def few_positions(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(scratch, "MAX_POSITIONS", 64)
    monkeypatch.setattr(scratch, "PROPHETNET_POSITIONS", 64)
    return 64


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("t5", "mt5", "causal")])
def test_positions_are_the_longest_inputs_that_a_model_takes(
    family: str, few_positions: int, examples: pd.DataFrame
) -> None:
    model, inputs = build_small_model(family, examples["text"])
    source, target = inputs.family.positions(model.config)

    def loss(source: int, target: int) -> torch.Tensor:
        return model(**inputs.batch([[7] * source]), labels=torch.full((1, target), 7)).loss

    assert few_positions - 2 <= min(source, target)
    assert loss(source, target).isfinite()
    with pytest.raises((IndexError, RuntimeError)):
        loss(source, target + 1)


def test_prophetnet_gives_all_tokens_of_the_longest_text_different_positions(
    few_positions: int, examples: pd.DataFrame
) -> None:
    model, inputs = build_small_model("prophetnet", examples["text"])
    longest, _ = inputs.family.positions(model.config)
    embedding = model.get_encoder().position_embeddings
    for length, are_distinct in ((longest, True), (longest + 1, False)):
        _, places = embedding((1, length), torch.device("cpu"))
        assert (places.unique().numel() == length) == are_distinct


def test_more_new_tokens_than_positions_are_refused(examples: pd.DataFrame) -> None:
    model, inputs = small_model("blenderbot-small", examples)
    with pytest.raises(UsageError, match=r"max_new_tokens is 1025, .* titles of 1024 tokens"):
        Titler(model, inputs, GREEDY.model_copy(update={"max_new_tokens": 1025}))
    Titler(model, inputs, GREEDY.model_copy(update={"max_new_tokens": 1024}))


def test_a_causal_model_gets_its_chat_template(examples: pd.DataFrame) -> None:
    _, inputs = small_model("causal", examples)
    prompt = inputs.family.prompt
    chat = [{"role": "user", "content": prompt.question.format(text=TALK)}]
    asked = inputs.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + prompt.answer
    assert asked.startswith("<|im_start|>user\n")
    assert inputs.tokenizer.decode(inputs.source(TALK)) == asked


def test_a_causal_model_learns_only_the_title(examples: pd.DataFrame) -> None:
    _, inputs = small_model("causal", examples)
    example = inputs.example("we talk about graphs", "Why graphs matter")
    learnt = [label for label in example.labels if label != IGNORED]
    assert inputs.tokenizer.decode(learnt) == " Why graphs matter<|im_end|>"


def test_a_causal_model_has_the_same_loss_without_the_logits_of_the_transcript(examples: pd.DataFrame) -> None:
    model, inputs = small_model("causal", examples)
    model.eval()
    rows = [inputs.example(*row) for row in examples[["text", "title"]].head(3).to_numpy()]
    kept = inputs.training_batch(rows)
    everything = {name: value for name, value in kept.items() if name != "logits_to_keep"}
    everything["labels"] = torch.full_like(kept["input_ids"], IGNORED)
    everything["labels"][:, -kept["logits_to_keep"] :] = kept["labels"]
    assert model(**kept).loss.item() == pytest.approx(model(**everything).loss.item(), rel=1e-5)


def test_a_causal_model_is_padded_on_the_left(examples: pd.DataFrame) -> None:
    _, inputs = small_model("causal", examples)
    batch = inputs.batch([inputs.source("we talk about graphs and threads"), inputs.source("we talk")])
    assert batch["attention_mask"][:, -1].tolist() == [1, 1]
    assert batch["attention_mask"][1, 0].item() == 0


def test_a_checkpoints_own_generation_settings_are_not_used(examples: pd.DataFrame) -> None:
    model, inputs = lively_model("bart", examples)
    texts = examples["text"].tolist()
    clean = Titler(model, inputs, GREEDY).best_titles(texts)
    forced = inputs.tokenizer("graphs", add_special_tokens=False)["input_ids"][0]
    model.generation_config = GenerationConfig(
        forced_bos_token_id=forced, repetition_penalty=9.0, suppress_tokens=[5, 6]
    )
    assert Titler(model, inputs, GREEDY).best_titles(texts) == clean
