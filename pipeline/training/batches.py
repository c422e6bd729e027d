"""Measure examples in tokens, and put examples of similar length into the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pandas as pd
import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from pipeline.models.inputs import IGNORED, Example, Inputs

# A title token that attends to a whole text needs about as much memory as this many text tokens.
_TEXT_TOKENS_PER_TITLE_TOKEN = 8


class SeededLengthSampler(LengthGroupedSampler):
    """Group examples of similar length, in an order that depends only on seed and epoch.

    A resumed training therefore gets the same batches as an undisturbed one.

    Args:
        batch_size: Examples per batch.
        lengths: Length of each example.
        seed: The training's seed.
        epoch: Returns the current epoch. The library sets a sampler's epoch, but not when several processes resume
            within an epoch.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed = seed
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self._seed + self._epoch())
        return super().__iter__()


def build_examples(inputs: Inputs, frame: pd.DataFrame) -> list[Example]:
    """Tokenize the columns `text` and `title`."""
    return [inputs.example(text, title) for text, title in zip(frame["text"], frame["title"], strict=True)]


def source_tokens(example: Example) -> int:
    """Count the tokens of an example's text, and of its title too for a causal model."""
    return len(example.source)


def title_cost(example: Example) -> int:
    """Estimate the cost of an example with a frozen encoder, in text tokens: only its title needs a backward pass."""
    return _TEXT_TOKENS_PER_TITLE_TOKEN * len(example.labels)


def count_title_tokens(examples: Sequence[Example]) -> int:
    """Count the tokens from which the loss is computed."""
    return sum(label != IGNORED for example in examples for label in example.labels)
