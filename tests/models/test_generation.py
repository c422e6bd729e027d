"""Our faster generation writes the same titles as transformers' own `generate`."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pipeline.data.lesson_openings import mark_opening
from pipeline.models.families import FAMILIES
from pipeline.models.generation import GenerateSettings, Titler, rank_by_consensus, rank_candidates
from pipeline.models.title_cleanup import TitleStyle, clean_up_title
from tests.models.small import GREEDY, lively_model

WITH_ENCODER = [name for name, family in FAMILIES.items() if not family.causal]
IN_FLOAT32 = {"prophetnet"}
"""Families whose classes compute only in float32."""


@pytest.mark.parametrize(
    ("family", "otherwise"),
    [
        *((family, otherwise) for family in FAMILIES for otherwise in ({}, {"num_beams": 3, "candidates": 3})),
        *(
            (family, otherwise)
            for family in ("bart", "causal")
            for otherwise in (
                {"candidates": 3, "do_sample": True},
                {"num_beams": 3, "do_sample": True, "candidates": 2},
                {"num_beams": 2, "min_new_tokens": 4, "no_repeat_ngram_size": 2, "length_penalty": 2.0},
            )
        ),
    ],
)
def test_titles_equal_those_of_the_librarys_generate(
    family: str, otherwise: dict[str, object], examples: pd.DataFrame
) -> None:
    model, inputs = lively_model(family, examples)
    if family not in IN_FLOAT32:
        model.double()  # rounding could make another beam the best one
    settings = GenerateSettings(**{**GREEDY.model_dump(), **otherwise, "batch_size": 16})
    titler = Titler(model, inputs, settings)
    texts = sorted(examples["text"], key=lambda text: len(inputs.source(text)), reverse=True)
    sources = [inputs.source(text) for text in texts]
    expected = []
    for together in [[source] for source in sources] if settings.do_sample else [sources]:
        torch.manual_seed(settings.seed)
        with torch.inference_mode():
            sequences = model.generate(
                **inputs.batch(together), generation_config=titler._config, tokenizer=inputs.tokenizer
            )
        prompt = max(map(len, together)) if inputs.family.causal else 0
        written = inputs.tokenizer.batch_decode(sequences[:, prompt:], skip_special_tokens=True)
        expected += map(clean_up_title, written)
    found = [title for titles in titler.titles(texts) for title in titles]
    assert found == expected
    assert len(set(found)) > 3


def test_batches_have_texts_of_similar_length(examples: pd.DataFrame) -> None:
    model, inputs = lively_model("causal", examples)
    texts = ["word " * words for words in (40, 1, 39, 2, 38, 3, 37, 4)]
    read: list[torch.Size] = []

    def look(_module: object, _args: object, named: dict[str, torch.Tensor]) -> None:
        if named["input_ids"].shape[1] > 1:  # a prompt; later calls read single tokens
            read.append(named["input_ids"].shape)

    model.register_forward_pre_hook(look, with_kwargs=True)
    Titler(model, inputs, GREEDY).titles(texts)
    assert read == [(4, len(inputs.source(longest))) for longest in (texts[0], texts[-1])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "otherwise"),
    [*((family, {"num_beams": 4}) for family in FAMILIES), ("t5", {"candidates": 4, "do_sample": True})],
)
def test_four_titles_of_a_text_cost_less_than_with_the_librarys_generate(
    family: str, otherwise: dict[str, object], examples: pd.DataFrame
) -> None:
    model, inputs = lively_model(family, examples)
    titler = Titler(model, inputs, GenerateSettings(**{**GREEDY.model_dump(), **otherwise}))
    texts = examples["text"].tail(4).tolist()
    with FlopCounterMode(display=False) as by_itself:
        batch = inputs.batch([inputs.source(text) for text in texts])
        model.generate(**batch, generation_config=titler._config, tokenizer=inputs.tokenizer)
    with FlopCounterMode(display=False) as ours:
        titler.titles(texts)
    assert ours.get_total_flops() < by_itself.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "causal"])
@pytest.mark.parametrize("otherwise", [{"consensus": 6, "candidates": 2}, {}, {"num_beams": 2}])
def test_a_sampled_title_depends_only_on_its_text(
    family: str, otherwise: dict[str, object], examples: pd.DataFrame
) -> None:
    model, inputs = lively_model(family, examples)
    drawn = {"do_sample": True, "batch_size": 4, **otherwise}
    titler = Titler(model, inputs, GenerateSettings(**{**GREEDY.model_dump(), **drawn}))
    texts = examples["text"].tolist()
    together = titler.titles(texts)
    assert together == [titler.titles([text])[0] for text in texts]
    assert len({titles[0] for titles in together}) > 1


def test_an_opening_gets_its_usual_title_first_and_what_the_model_wrote_after_it(examples: pd.DataFrame) -> None:
    model, inputs = lively_model("t5", examples)
    settings = GREEDY.model_copy(update={"num_beams": 3, "candidates": 3})
    text = examples["text"][0]
    titler = Titler(model, inputs, settings, style=TitleStyle(opening="Intro"))
    (own,), (of_opening,) = titler.titles([text]), titler.titles([mark_opening(text)])
    assert of_opening == ["Intro", *own[:2]]
    assert Titler(model, inputs, settings).titles([mark_opening(text)]) == [own]


@pytest.mark.parametrize("found", [{"num_beams": 3}, {"num_beams": 1, "do_sample": True, "consensus": 4}])
def test_all_titles_of_a_search_begin_with_the_title_that_it_gives_otherwise(
    found: dict[str, object], examples: pd.DataFrame
) -> None:
    model, inputs = lively_model("t5", examples)
    titler = Titler(model, inputs, GREEDY.model_copy(update=found))
    texts = examples["text"].tolist()[:3]
    everything = titler.with_overrides({"candidates": 0})
    assert everything.settings.sequences == titler.settings.sequences
    titles = everything.titles(texts)
    assert [each[0] for each in titles] == titler.best_titles(texts)
    assert max(map(len, titles)) > 1


def test_the_mark_of_an_opening_changes_no_capitals() -> None:
    style = TitleStyle(capitals="sentence")
    assert rank_candidates(
        ["Why the Lecture Begins"], mark_opening("The Lecture Begins"), style, GREEDY
    ) == rank_candidates(["Why the Lecture Begins"], "The Lecture Begins", style, GREEDY)


def test_the_title_that_agrees_most_with_the_others_comes_first() -> None:
    drawn = ["Learning rates", "How to choose learning rates", "Choose learning rates", "Trees", "Trees"]
    assert rank_by_consensus(drawn)[0] == "Choose learning rates"


@given(st.lists(st.text("ab ", max_size=8), min_size=1, max_size=8))
def test_by_consensus_keeps_each_title_once(drawn: list[str]) -> None:
    assert sorted(rank_by_consensus(drawn)) == sorted(set(drawn))


@pytest.mark.parametrize(
    "wrong", [{"consensus": 4}, {"consensus": 4, "do_sample": True, "num_beams": 2}, {"consensus": 2, "candidates": 3}]
)
def test_a_consensus_that_cannot_be_found_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"consensus|candidates"):
        GenerateSettings(**{**GREEDY.model_dump(), **wrong})
