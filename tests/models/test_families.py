from __future__ import annotations

import pandas as pd
import pytest
import torch
from transformers import GenerationConfig

from pipeline.models.families import FAMILIES, GROUPS
from pipeline.models.generation import Titler
from pipeline.models.inputs import IGNORED
from pipeline.models.layers import freeze, group_of, summarise
from tests.models.small import GREEDY, lively_model, small_model


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


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


def test_titles_do_not_depend_on_the_order_of_the_texts(family: str, examples: pd.DataFrame) -> None:
    model, inputs = lively_model(family, examples)
    texts = examples["text"].tolist()
    titler = Titler(model, inputs, GREEDY)
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


def test_t5_is_asked_to_summarize(examples: pd.DataFrame) -> None:
    _, inputs = small_model("t5", examples)
    bare = inputs.tokenizer("we talk about graphs")["input_ids"]
    prefixed = inputs.tokenizer("summarize: we talk about graphs")["input_ids"]
    assert inputs.source("we talk about graphs") == prefixed != bare


def test_led_attends_globally_to_its_first_token_in_training_and_in_generation(examples: pd.DataFrame) -> None:
    _, inputs = small_model("led", examples)
    rows = [inputs.example("we talk about graphs", "Graphs"), inputs.example("we talk", "Talk")]
    for batch in (inputs.training_batch(rows), inputs.batch([row.source for row in rows])):
        assert batch["global_attention_mask"].sum(dim=1).tolist() == [1, 1]
        assert batch["global_attention_mask"][:, 0].tolist() == [1, 1]


def test_mbart_begins_its_titles_with_their_language(examples: pd.DataFrame) -> None:
    model, inputs = small_model("mbart", examples)
    batch = inputs.batch([inputs.source(examples["text"][0])])
    language = inputs.tokenizer.convert_tokens_to_ids("en_XX")
    config = Titler(model, inputs, GREEDY)._config
    written = model.generate(**batch, generation_config=config, tokenizer=inputs.tokenizer)
    assert written[0, :2].tolist() == [language, language]


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
