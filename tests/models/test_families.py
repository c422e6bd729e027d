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
from pipeline.models.layers import freeze, group_of, summarise
from tests.models.small import GREEDY, lively_model, small_model, titles_after_learning

TALK, TITLE = "we talk about graphs", "Why graphs matter"


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_same_texts_give_the_same_vocabulary(family: str, examples: pd.DataFrame) -> None:
    first, *others = (FAMILIES[family].new_tokenizer(examples["text"].tolist(), 300).get_vocab() for _ in range(3))
    assert all(other == first for other in others)


def test_every_parameter_of_every_family_is_in_a_layer_group(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    groups = {group_of(name, inputs.family) for name, _ in model.named_parameters()}
    wanted = {group for group in ("embedding", "encoder", "decoder") if inputs.family.groups[group]}
    assert wanted <= groups <= set(GROUPS)


def test_a_training_step_lowers_the_loss_of_every_family(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    batch = inputs.training_batch([inputs.example(*row) for row in examples[["text", "title"]].head(4).to_numpy()])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    first = model(**batch).loss
    for _ in range(3):
        optimiser.zero_grad()
        model(**batch).loss.backward()
        optimiser.step()
    assert model(**batch).loss < first


def test_what_is_not_frozen_takes_part_in_every_step(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    freeze(model, inputs.family, [], lower_layers=0)
    model(**inputs.training_batch([inputs.example(TALK, TITLE)])).loss.backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not idle


def test_what_a_model_has_learnt_is_what_it_writes(family: str, examples: pd.DataFrame) -> None:
    """From its first token to its end: generation begins, goes on and ends as training did."""
    written, learnt = titles_after_learning(*small_model(family, examples), examples)
    assert written == learnt


def test_titles_do_not_depend_on_the_order_of_the_texts(family: str, examples: pd.DataFrame) -> None:
    model, inputs = lively_model(family, examples)
    texts = examples["text"].tolist()
    longer = GREEDY.model_copy(update={"max_new_tokens": 16})  # a title of nonsense loses much by being tidied
    titler = Titler(model, inputs, longer)
    titles = titler.titles(texts)
    assert len({*map(tuple, titles)}) > len(texts) / 2
    assert titler.titles(texts[::-1]) == titles[::-1]


def test_titles_do_not_depend_on_what_is_padded_beside_them(family: str, examples: pd.DataFrame) -> None:
    model, inputs = lively_model(family, examples)
    texts = [examples["text"][0], examples["text"][7]]
    together = Titler(model, inputs, GREEDY).titles(texts)
    assert together[0] != together[1]
    alone = Titler(model, inputs, GREEDY.model_copy(update={"batch_size": 1})).titles(texts)
    assert together == alone


def test_padding_of_labels_is_not_learnt(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    model.eval()
    # Titles of different lengths, so that one of the labels is padded.
    short, long = inputs.example("so we talk", "Graphs"), inputs.example("so we talk", "Why all of these graphs matter")
    losses = [model(**inputs.training_batch([example])).loss for example in (short, long)]
    counts = [sum(label != IGNORED for label in example.labels) for example in (short, long)]
    together = model(**inputs.training_batch([short, long])).loss
    expected = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert together.item() == pytest.approx(expected.item(), rel=1e-4)


def test_freezing_a_group_leaves_it_as_it_is(family: str, examples: pd.DataFrame) -> None:
    model, inputs = small_model(family, examples)
    freeze(model, inputs.family, ["embedding", "encoder"], lower_layers=1)
    summary = summarise(model, inputs.family)
    still = summary[
        summary["group"].isin(["embedding", "encoder"])
        | summary["layer"].str.contains(f"{inputs.family.decoder_layers}.0.", regex=False)
    ]
    assert not still["trainable"].any()
    assert summary["trainable"].any()


def test_a_text_all_in_capitals_is_read_as_one_in_small_letters(family: str, examples: pd.DataFrame) -> None:
    _, inputs = small_model(family, examples)
    shouted = f"{TALK}, and about Dijkstra".upper()
    assert inputs.source(shouted) == inputs.source(shouted.lower())


def test_a_model_reads_what_is_said_alone(family: str, examples: pd.DataFrame) -> None:
    _, inputs = small_model(family, examples)
    assert inputs.source("[Music] we talk\n[Applause]  about (laughter) graphs ♪") == inputs.source(TALK)


def test_capitals_among_small_letters_stay(examples: pd.DataFrame) -> None:
    _, inputs = small_model("t5", examples)
    text = "NASA AND HOW WE talk about graphs"
    assert inputs.source(text) != inputs.source(text.lower())


def test_t5_is_asked_to_summarize(examples: pd.DataFrame) -> None:
    _, inputs = small_model("t5", examples)
    bare = inputs.tokenizer(TALK)["input_ids"]
    prefixed = inputs.tokenizer(f"summarize: {TALK}")["input_ids"]
    assert inputs.source(TALK) == prefixed != bare


def test_what_t5_is_asked_takes_no_token_from_a_text(examples: pd.DataFrame) -> None:
    _, inputs = small_model("t5", examples)
    text = " ".join(examples["text"])
    asked = inputs.tokenizer("summarize:", add_special_tokens=False)["input_ids"]
    bare = inputs.tokenizer(text, truncation=True, max_length=inputs.max_source_tokens)["input_ids"]
    assert len(bare) == inputs.max_source_tokens
    assert inputs.source(text) == [*asked, *bare]


def test_what_a_family_asks_needs_positions_beside_the_text(
    few_positions: int, examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "bart", replace(FAMILIES["bart"], prefix="so: "))
    _, inputs = small_model("bart", examples)
    room = few_positions - len(inputs.tokenizer("so:", add_special_tokens=False)["input_ids"])
    small_model("bart", examples, max_source_tokens=room)
    with pytest.raises(Rejected, match=f"max_source_tokens is {room + 1}, .* takes {room} tokens"):
        small_model("bart", examples, max_source_tokens=room + 1)


def test_mt5_which_knows_no_tasks_is_given_the_text_alone(examples: pd.DataFrame) -> None:
    _, inputs = small_model("mt5", examples)
    assert inputs.source(TALK) == inputs.tokenizer(TALK)["input_ids"]


def test_led_attends_globally_to_its_first_token_in_training_and_in_generation(examples: pd.DataFrame) -> None:
    _, inputs = small_model("led", examples)
    rows = [inputs.example("we talk about graphs", "Graphs"), inputs.example("we talk", "Talk")]
    for batch in (inputs.training_batch(rows), inputs.batch([row.source for row in rows])):
        assert batch["global_attention_mask"].sum(dim=1).tolist() == [1, 1]
        assert batch["global_attention_mask"][:, 0].tolist() == [1, 1]


def test_led_is_told_so_when_it_writes(examples: pd.DataFrame) -> None:
    model, inputs = lively_model("led", examples)
    given: list[dict[str, Any]] = []
    model.get_encoder().register_forward_pre_hook(lambda _module, _args, named: given.append(named), with_kwargs=True)
    Titler(model, inputs, GREEDY).titles([TALK])
    assert given[0]["global_attention_mask"][0, 0] == 1


def _first_tokens(model: PreTrainedModel, inputs: Inputs) -> tuple[list[int], list[int]]:
    """The first two that the decoder is given of a title: in training, and when it writes one."""
    given: list[int] = []
    model.get_decoder().register_forward_pre_hook(
        lambda _module, _args, named: given.extend(named["input_ids"][0].tolist()), with_kwargs=True
    )
    model(**inputs.training_batch([inputs.example(TALK, TITLE)]))
    taught = given[:2]
    given.clear()
    Titler(model, inputs, GREEDY).titles([TALK])
    return taught, given[:2]


def test_mbart_names_the_language_behind_a_text_and_starts_a_title_with_it(examples: pd.DataFrame) -> None:
    model, inputs = lively_model("mbart", examples)
    language = inputs.tokenizer.convert_tokens_to_ids("en_XX")
    assert inputs.source(TALK)[-1] == language
    taught, written = _first_tokens(model, inputs)
    assert taught == [language, inputs.target(TITLE)[0]]
    assert written[0] == language


def test_mbart_50_names_the_language_ahead_of_a_text_and_of_a_title(examples: pd.DataFrame) -> None:
    model, inputs = lively_model("mbart", examples)
    vocabulary = inputs.tokenizer.get_vocab()
    pieces = [(piece, 0.0) for piece in sorted(vocabulary, key=vocabulary.get)]
    tokenizer = MBart50TokenizerFast(vocab=pieces, src_lang="en_XX", tgt_lang="en_XX")
    language = tokenizer.convert_tokens_to_ids("en_XX")
    fifty = Inputs(inputs.family, tokenizer, max_source_tokens=48, max_target_tokens=12)
    assert fifty.source(TALK)[0] == language
    taught, written = _first_tokens(model, fifty)
    assert taught == written == [tokenizer.eos_token_id, language]


def test_a_course_in_another_language_is_told_to_mbart(examples: pd.DataFrame, tmp_path: Path) -> None:
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
    with pytest.raises(Rejected, match=r"knows no language 'de'.*de_DE"):
        open_checkpoint(settings.model_copy(update={"language": "de"}), [])


@pytest.mark.parametrize(("family", "checkpoint"), [("bart", "somewhere"), ("mbart", "scratch")])
def test_a_language_is_refused_where_nobody_is_told_it(family: str, checkpoint: str) -> None:
    size = {"width": 32, "layers": 2, "heads": 2, "vocabulary": 400} if checkpoint == "scratch" else None
    with pytest.raises(ValidationError, match="'language' goes with a checkpoint of a family that is told it: mbart"):
        ModelSettings(
            family=family,
            checkpoint=checkpoint,
            scratch=size,
            language="de_DE",
            max_source_tokens=48,
            max_target_tokens=12,
        )


@pytest.mark.parametrize("family", ["blenderbot-small", "prophetnet", "encoder-decoder"])
def test_a_tokenizer_that_knows_no_end_of_a_title_is_told(family: str, examples: pd.DataFrame) -> None:
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
def test_a_model_takes_as_many_tokens_as_its_family_says(
    family: str, few_positions: int, examples: pd.DataFrame
) -> None:
    model, inputs = small_model(family, examples)
    source, target = inputs.family.positions(model.config)

    def loss(source: int, target: int) -> torch.Tensor:
        return model(**inputs.batch([[7] * source]), labels=torch.full((1, target), 7)).loss

    assert few_positions - 2 <= min(source, target)
    assert loss(source, target).isfinite()
    with pytest.raises((IndexError, RuntimeError)):
        loss(source, target + 1)


def test_prophetnet_places_no_two_tokens_of_a_text_alike(few_positions: int, examples: pd.DataFrame) -> None:
    model, inputs = small_model("prophetnet", examples)
    longest, _ = inputs.family.positions(model.config)
    embedding = model.get_encoder().position_embeddings
    for length, are_distinct in ((longest, True), (longest + 1, False)):
        _, places = embedding((1, length), torch.device("cpu"))
        assert (places.unique().numel() == length) == are_distinct


def test_titles_longer_than_a_model_has_positions_for_are_misused(examples: pd.DataFrame) -> None:
    model, inputs = small_model("blenderbot-small", examples)
    with pytest.raises(UsageError, match=r"max_new_tokens is 1025, .* titles of 1024 tokens"):
        Titler(model, inputs, GREEDY.model_copy(update={"max_new_tokens": 1025}))
    Titler(model, inputs, GREEDY.model_copy(update={"max_new_tokens": 1024}))


def test_a_causal_model_is_asked_through_its_chat_template(examples: pd.DataFrame) -> None:
    _, inputs = small_model("causal", examples)
    prompt = inputs.family.prompt
    chat = [{"role": "user", "content": prompt.question.format(text=TALK)}]
    asked = inputs.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + prompt.answer
    assert asked.startswith("<|im_start|>user\n")
    assert inputs.tokenizer.decode(inputs.source(TALK)) == asked


def test_a_causal_model_learns_the_title_alone(examples: pd.DataFrame) -> None:
    _, inputs = small_model("causal", examples)
    example = inputs.example("we talk about graphs", "Why graphs matter")
    learnt = [label for label in example.labels if label != IGNORED]
    assert inputs.tokenizer.decode(learnt) == " Why graphs matter<|im_end|>"


def test_a_causal_model_loses_nothing_by_leaving_out_the_logits_of_the_transcript(examples: pd.DataFrame) -> None:
    model, inputs = small_model("causal", examples)
    model.eval()
    rows = [inputs.example(*row) for row in examples[["text", "title"]].head(3).to_numpy()]
    kept = inputs.training_batch(rows)
    everything = {name: value for name, value in kept.items() if name != "logits_to_keep"}
    everything["labels"] = torch.full_like(kept["input_ids"], IGNORED)
    everything["labels"][:, -kept["logits_to_keep"] :] = kept["labels"]
    assert model(**kept).loss.item() == pytest.approx(model(**everything).loss.item(), rel=1e-5)


def test_a_causal_model_is_padded_where_it_does_not_write(examples: pd.DataFrame) -> None:
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
