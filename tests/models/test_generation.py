"""Titles are what `generate` writes; how they are computed does not show."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from pipeline.models.families import FAMILIES
from pipeline.models.generation import GenerateSettings, Titler
from tests.models.small import GREEDY, lively_model


@pytest.mark.parametrize(
    "otherwise",
    [
        {"num_beams": 4},
        {"num_beams": 3, "candidates": 3},
        {"num_beams": 3, "do_sample": True, "candidates": 2},
        {"num_beams": 2, "min_new_tokens": 4, "no_repeat_ngram_size": 2, "length_penalty": 2.0},
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_beams_write_what_generate_writes_by_itself(
    family: str, otherwise: dict[str, object], examples: pd.DataFrame
) -> None:
    model, inputs = lively_model(family, examples)
    settings = GenerateSettings(**{**GREEDY.model_dump(), **otherwise, "batch_size": 16})
    titler = Titler(model, inputs, settings)
    texts = sorted(examples["text"], key=lambda text: len(inputs.source(text)), reverse=True)
    sources = [inputs.source(text) for text in texts]
    torch.manual_seed(settings.seed)
    with torch.inference_mode():
        sequences = model.generate(
            **inputs.batch(sources), generation_config=titler._config, tokenizer=inputs.tokenizer
        )
    prompt = max(map(len, sources)) if inputs.family.causal else 0
    written = inputs.tokenizer.batch_decode(sequences[:, prompt:], skip_special_tokens=True)
    expected = [" ".join(next(iter(text.strip().splitlines()), "").split()) for text in written]
    found = [title for titles in titler.titles(texts) for title in titles]
    assert found == expected
    assert len(set(found)) > 3
