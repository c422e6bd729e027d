"""Training and generation compute the same function of the text and of the title so far."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.prophetnet.modeling_prophetnet import ProphetNetNgramSelfAttention

from pipeline.models.checkpoints import Card, load_model, save_model
from pipeline.models.families import FAMILIES
from pipeline.models.generation import decoder_start
from pipeline.models.inputs import Inputs
from pipeline.models.title_logits import logits_at_once, logits_by_steps
from tests.models.small import build_small_model, lively_model, small_model

METHOD = "get_predict_relative_pos_embeddings"

STD = 0.5  # of the weights: large enough for logits to differ, small enough for attention to see several tokens
CLOSE = {"rtol": 1e-3, "atol": 1e-3}


def _texts_and_titles(
    model: PreTrainedModel, inputs: Inputs, examples: pd.DataFrame
) -> tuple[list[list[int]], list[list[int]]]:
    """Texts of different lengths, and titles of one length as a decoder is given them."""
    rows = examples.iloc[[0, 1, 5]]
    start = [] if inputs.family.causal else decoder_start(model.config, inputs)
    titles = [[*start, *inputs.target(title)] for title in rows["title"]]
    length = min(map(len, titles))
    return [inputs.source(text) for text in rows["text"]], [title[:length] for title in titles]


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_with_a_cache_gives_the_logits_of_training(family: str, examples: pd.DataFrame) -> None:
    model, inputs = lively_model(family, examples, STD)
    sources, titles = _texts_and_titles(model, inputs, examples)
    whole, steps = logits_at_once(model, inputs, sources, titles), logits_by_steps(model, inputs, sources, titles)
    assert whole.shape == (len(titles), len(titles[0]), model.get_output_embeddings().out_features)
    assert whole.std() > 0.5
    torch.testing.assert_close(steps, whole, **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_title_token_does_not_depend_on_later_tokens(family: str, examples: pd.DataFrame) -> None:
    model, inputs = lively_model(family, examples, STD)
    sources, titles = _texts_and_titles(model, inputs, examples)
    whole = logits_at_once(model, inputs, sources, titles)
    vocabulary = len(inputs.tokenizer)
    for place in range(1, len(titles[0])):
        others = [[*title[:place], *((token + 1) % vocabulary for token in title[place:])] for title in titles]
        changed = logits_at_once(model, inputs, sources, others)
        torch.testing.assert_close(changed[:, :place], whole[:, :place], **CLOSE)
        assert (changed[:, place] - whole[:, place]).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_batch_has_the_logits_that_titles_are_written_by(family: str, examples: pd.DataFrame) -> None:
    model, inputs = lively_model(family, examples, STD)
    text, title = examples.loc[1, ["text", "title"]]
    with torch.inference_mode():
        trained = model(**inputs.training_batch([inputs.example(text, title)])).logits
    source, target = inputs.source(text), inputs.target(title)
    if inputs.family.causal:  # a title's first token follows from the last one of its prompt
        trained, start, source = trained[:, :-1], source[-1], source[:-1]
    else:
        start = decoder_start(model.config, inputs)[0]
    written = logits_by_steps(model, inputs, [source], [[start, *target[:-1]]])
    torch.testing.assert_close(trained, written, **CLOSE)


@pytest.fixture
def library_biases(examples: pd.DataFrame) -> Callable[..., Tensor]:
    """The library's own method, without the correction."""
    build_small_model("prophetnet", examples["text"])
    return getattr(ProphetNetNgramSelfAttention, METHOD).__wrapped__


def test_the_library_still_needs_its_prophetnet_corrected(
    library_biases: Callable[..., Tensor], examples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, transformers is corrected: delete pipeline/models/prophetnet.py and `correct_library`."""
    model, inputs = lively_model("prophetnet", examples, STD)
    sources, titles = _texts_and_titles(model, inputs, examples)
    corrected = logits_at_once(model, inputs, sources, titles)
    monkeypatch.setattr(ProphetNetNgramSelfAttention, METHOD, library_biases)
    assert (logits_at_once(model, inputs, sources, titles) - corrected).abs().max() > 0.1


def test_prophetnet_is_corrected_wherever_it_is_opened(
    library_biases: Callable[..., Tensor], examples: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"max_source_tokens": 48, "max_target_tokens": 12}
    card = Card(model="ours", family="prophetnet", checkpoint="scratch", **limits)
    model, inputs = small_model("prophetnet", examples)
    save_model(tmp_path, model, inputs.tokenizer, card, "float32")
    places = {
        "scratch": lambda: build_small_model("prophetnet", examples["text"]),
        "checkpoint": lambda: build_small_model("prophetnet", [], checkpoint=str(tmp_path), scratch=None),
        "model folder, also of a served version": lambda: load_model(tmp_path),
    }
    for place, open_model in places.items():
        monkeypatch.setattr(ProphetNetNgramSelfAttention, METHOD, library_biases)
        open_model()
        assert getattr(ProphetNetNgramSelfAttention, METHOD) is not library_biases, place
