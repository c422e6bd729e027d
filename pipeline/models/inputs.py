"""Turn texts and titles into a model's inputs: token ids, padded batches and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from pipeline.models.families import Family, Prompt
from pipeline.models.title_cleanup import remove_sound_marks

T = TypeVar("T")

IGNORED = -100  # label that the loss ignores

_MOSTLY_CAPITALS = 0.9  # share of capitals above which a text is lowered


@dataclass(frozen=True)
class Example:
    """Token ids of one text and its title. For a causal model, both fields cover the one sequence of text and title."""

    source: list[int]
    labels: list[int]


class Inputs:
    """Build the inputs of one model from texts and titles.

    Args:
        family: The model's family.
        tokenizer: The model's tokenizer.
        max_source_tokens: Longer texts are cut. The family's prefix or prompt does not count.
        max_target_tokens: Longer titles are cut. The end token counts.
    """

    def __init__(
        self, family: Family, tokenizer: PreTrainedTokenizerBase, *, max_source_tokens: int, max_target_tokens: int
    ) -> None:
        self.family = family
        self.tokenizer = tokenizer
        self.max_source_tokens = max_source_tokens
        self.max_target_tokens = max_target_tokens
        self.prompt = _prompt_around_text(family.prompt, tokenizer) if family.prompt else None
        self._prefix_tokens = prefix_tokens(family, tokenizer)

    def source(self, text: str) -> list[int]:
        """Return the token ids of a text with the family's prefix or prompt.

        Marks of sounds such as [Music] are left out: a model may take one for the topic.
        """
        text = lower_if_capitals(" ".join(remove_sound_marks(text).split()))
        if self.prompt is None:
            longest = self._prefix_tokens + self.max_source_tokens
            return self.tokenizer(self.family.prefix + text, truncation=True, max_length=longest)["input_ids"]
        before, after = self.prompt
        words = self.tokenizer(text, add_special_tokens=False, truncation=True, max_length=self.max_source_tokens)
        return [*before, *words["input_ids"], *after]

    def target(self, title: str) -> list[int]:
        """Return the token ids of a title as the model should write it, with its end token."""
        if self.prompt is None:
            return self.tokenizer(text_target=title, truncation=True, max_length=self.max_target_tokens)["input_ids"]
        # In a byte-level vocabulary the space before a word belongs to the word's token.
        words = self.tokenizer(" " + title, add_special_tokens=False)["input_ids"]
        return [*words[: self.max_target_tokens - 1], self.tokenizer.eos_token_id]

    def example(self, text: str, title: str) -> Example:
        """Return the token ids of a text with its title."""
        source, target = self.source(text), self.target(title)
        if self.prompt is None:
            return Example(source, target)
        return Example(source + target, [IGNORED] * len(source) + target)

    def batch(self, sources: Sequence[list[int]]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` and the family's other inputs, each (batch, longest source).

        Sources are padded on the right. For a causal model, which continues a sequence at its end, they are padded on
        the left.
        """
        batch = {
            "input_ids": pad(sources, self.tokenizer.pad_token_id, self.side),
            "attention_mask": pad([[1] * len(source) for source in sources], 0, self.side),
        }
        if self.family.global_attention:
            batch["global_attention_mask"] = torch.zeros_like(batch["input_ids"])
            batch["global_attention_mask"][:, 0] = 1
        return batch

    def training_batch(
        self, examples: Sequence[Example], features: Callable[[Sequence[list[int]]], Tensor] | None = None
    ) -> dict[str, Any]:
        """Return the inputs of `batch` with `labels`, (batch, longest title). The loss ignores their padding.

        Args:
            examples: The batch.
            features: Computes the output of the model's frozen part for sources. It then replaces the sources.
        """
        sources = [example.source for example in examples]
        batch = self.batch(sources)
        labels = pad([example.labels for example in examples], IGNORED, self.side)
        if features:
            batch = self.with_features(features(sources), batch)
        if not self.family.causal:
            return {**batch, "labels": labels}
        # Titles are at the ends of the sequences. Computing unused logits of the texts would be most of a step's work.
        # One position more than the longest title is kept: each token is predicted at the position before it.
        keep = int((labels != IGNORED).sum(dim=1).max()) + 1
        positions = self.positions(batch["attention_mask"])
        return {**batch, "position_ids": positions, "labels": labels[:, -keep:], "logits_to_keep": keep}

    def positions(self, attention_mask: Tensor) -> Tensor:
        """Return the position of each token in its sequence, counted without padding: (batch, tokens)."""
        return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)

    def with_features(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Any]:
        """Replace the sources of a batch by the output of the model's frozen part, (batch, longest source, width)."""
        name, value = (
            ("inputs_embeds", features) if self.family.causal else ("encoder_outputs", BaseModelOutput(features))
        )
        return {"attention_mask": batch["attention_mask"], name: value}

    @property
    def side(self) -> str:
        """Return the padded side of a batch."""
        return "left" if self.family.causal else "right"


def _prompt_around_text(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the token ids before a text, and those between the text and its title."""
    placeholder = "\x00"
    rendered, start = prompt.question.replace("{text}", placeholder), []
    if prompt.chat:
        messages = [{"role": "user", "content": rendered}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    elif tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]:  # a chat template writes this token itself
        start = [tokenizer.bos_token_id]
    before, after = (rendered + prompt.answer).split(placeholder)
    first, last = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))
    return [*start, *first], last


def prefix_tokens(family: Family, tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the tokens of the family's prefix."""
    # The last space belongs to the token of the text's first word.
    return len(tokenizer(family.prefix.rstrip(), add_special_tokens=False)["input_ids"]) if family.prefix else 0


def lower_if_capitals(text: str) -> str:
    """Lower a text that is written in capitals, as some captions are.

    Tokenizers split words in capitals into single letters, and a model then misses the topic.
    """
    letters = [char for char in text if char.isupper() or char.islower()]
    capitals = sum(map(str.isupper, letters))
    return text.lower() if capitals > _MOSTLY_CAPITALS * len(letters) else text


def pad(rows: Sequence[Any], value: float, side: str) -> Tensor:
    """Pad rows of shape (length, …) on one side, and return them as one tensor (rows, longest, …)."""
    return pad_sequence(
        [torch.as_tensor(row) for row in rows], batch_first=True, padding_value=value, padding_side=side
    )


def micro_batches(rows: Sequence[T], length: Callable[[T], int], most_tokens: int) -> list[list[T]]:
    """Divide rows into batches of similar length, the longest first.

    Args:
        rows: The rows.
        length: Counts the tokens of a row.
        most_tokens: Most tokens of a batch, with its padding. A longer row gets its own batch.
    """
    batches: list[list[T]] = []
    for row in sorted(rows, key=length, reverse=True):
        if batches and (len(batches[-1]) + 1) * length(batches[-1][0]) <= most_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
