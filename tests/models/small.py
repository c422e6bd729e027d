"""Small models of all families, from scratch."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cache

import pandas as pd
import torch
import transformers
from transformers import PreTrainedModel

from pipeline.models.checkpoints import ModelSettings, open_checkpoint
from pipeline.models.families import FAMILIES
from pipeline.models.generation import GenerateSettings, Titler
from pipeline.models.inputs import Inputs

_LIVELY = 1.5

GREEDY = GenerateSettings(
    num_beams=1, max_new_tokens=8, min_new_tokens=1, no_repeat_ngram_size=0, length_penalty=1.0, batch_size=4
)


def lively_model(family: str, examples: pd.DataFrame, std: float = _LIVELY) -> tuple[PreTrainedModel, Inputs]:
    """A small model with large random weights, which writes different nonsense for each text.

    Args:
        family: Name of the family.
        examples: Examples for the tokenizer.
        std: Standard deviation of the weights. From about 1 on, attention goes to a single token.
    """
    model, inputs = small_model(family, examples)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=std)
    return model.eval(), inputs


def small_model(family: str, examples: pd.DataFrame) -> tuple[PreTrainedModel, Inputs]:
    """A copy of the family's small model, which is built once per process: training its tokenizer takes long."""
    texts = (*examples["text"], *examples["title"])
    model, inputs, random_state = _built_once(family, texts)
    transformers.set_seed(1)
    torch.set_rng_state(random_state)  # as after building the model
    return copy.deepcopy(model), Inputs(inputs.family, inputs.tokenizer, max_source_tokens=48, max_target_tokens=12)


@cache
def _built_once(family: str, texts: tuple[str, ...]) -> tuple[PreTrainedModel, Inputs, torch.Tensor]:
    model, inputs = build_small_model(family, texts)
    return model, inputs, torch.get_rng_state()


def build_small_model(family: str, texts: Iterable[str], **settings: object) -> tuple[PreTrainedModel, Inputs]:
    """A new small model; `settings` override those of its entry in params.yaml."""
    transformers.set_seed(1)
    chosen = ModelSettings(
        **{
            "family": family,
            "checkpoint": "scratch",
            "scratch": {"width": 32, "layers": 2, "heads": 2, "vocabulary": 400},
            "max_source_tokens": 48,
            "max_target_tokens": 12,
            **settings,
        }
    )
    model, tokenizer = open_checkpoint(chosen, [*texts])
    inputs = Inputs(FAMILIES[family], tokenizer, max_source_tokens=48, max_target_tokens=12)
    return model, inputs


def titles_after_learning(model: PreTrainedModel, inputs: Inputs, examples: pd.DataFrame) -> tuple[list[str], ...]:
    """Train on two examples until the model knows them. Return the titles that it writes, and the true ones."""
    texts, titles = examples["text"].tolist()[:2], examples["title"].tolist()[:2]
    rows = [inputs.example(text, title) for text, title in zip(texts, titles, strict=True)]
    batch = inputs.training_batch(rows)
    optimiser = torch.optim.AdamW(model.eval().parameters(), lr=3e-3)
    for _ in range(100):
        optimiser.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimiser.step()
        if loss.item() < 0.1:
            break
    settings = GREEDY.model_copy(update={"max_new_tokens": 16})
    learnt = [inputs.tokenizer.decode(inputs.target(title), skip_special_tokens=True).strip() for title in titles]
    return Titler(model, inputs, settings).best_titles(texts), learnt
