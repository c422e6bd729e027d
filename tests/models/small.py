"""A small model of any family, from nothing."""

from __future__ import annotations

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
    """A small model with large random weights: it writes nonsense, and other nonsense for every text.

    Args:
        std: standard deviation of the weights; from about 1, attention goes to a single token.
    """
    model, inputs = small_model(family, examples)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=std)
    return model.eval(), inputs


def small_model(family: str, examples: pd.DataFrame, **settings: object) -> tuple[PreTrainedModel, Inputs]:
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
    model, tokenizer = open_checkpoint(chosen, [*examples["text"], *examples["title"]])
    inputs = Inputs(FAMILIES[family], tokenizer, max_source_tokens=48, max_target_tokens=12)
    return model, inputs


def titles_after_learning(model: PreTrainedModel, inputs: Inputs, examples: pd.DataFrame) -> tuple[list[str], ...]:
    """What the model writes for two texts whose titles it was shown until it knew them; and these titles."""
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
