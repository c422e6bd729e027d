"""From text and title to what a model is fed: token ids, padded batches, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from pipeline.models.families import Family

IGNORED = -100  # the label that the loss passes over


@dataclass(frozen=True)
class Example:
    """One text with its title, as token ids; for a causal model both sequences already are one."""

    source: list[int]
    labels: list[int]


class Inputs:
    """Feeds one model: knows its family, its tokenizer and its limits.

    Args:
        max_source_tokens: a text's tokens beyond these are cut; the family's prefix or prompt stands besides.
        max_target_tokens: a title's tokens beyond these are cut, its end token included.
    """

    def __init__(
        self, family: Family, tokenizer: PreTrainedTokenizerBase, *, max_source_tokens: int, max_target_tokens: int
    ) -> None:
        self.family = family
        self.tokenizer = tokenizer
        self.max_source_tokens = max_source_tokens
        self.max_target_tokens = max_target_tokens
        self._prompt = self._prompt_around_text() if family.prompt else None

    def source(self, text: str) -> list[int]:
        """Token ids of what is asked of the model about `text`."""
        if self._prompt is None:
            return self.tokenizer(self.family.prefix + text, truncation=True, max_length=self.max_source_tokens)[
                "input_ids"
            ]
        before, after = self._prompt
        words = self.tokenizer(text, add_special_tokens=False, truncation=True, max_length=self.max_source_tokens)
        return [*before, *words["input_ids"], *after]

    def target(self, title: str) -> list[int]:
        """Token ids of `title` as the model should write it, with its end token."""
        if self._prompt is None:
            return self.tokenizer(text_target=title, truncation=True, max_length=self.max_target_tokens)["input_ids"]
        # The answer's beginning ends without a space: a token of a byte-level vocabulary begins with its own.
        words = self.tokenizer(" " + title, add_special_tokens=False)["input_ids"]
        return [*words[: self.max_target_tokens - 1], self.tokenizer.eos_token_id]

    def example(self, text: str, title: str) -> Example:
        source, target = self.source(text), self.target(title)
        if self._prompt is None:
            return Example(source, target)
        return Example(source + target, [IGNORED] * len(source) + target)

    def batch(self, sources: Sequence[list[int]]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and what else the family wants, each (batch, longest source).

        Padded on the right; on the left for a causal model, which writes on from a sequence's end.
        """
        batch = {
            "input_ids": _pad(sources, self.tokenizer.pad_token_id, self._side),
            "attention_mask": _pad([[1] * len(source) for source in sources], 0, self._side),
        }
        if self.family.global_attention:
            batch["global_attention_mask"] = torch.zeros_like(batch["input_ids"])
            batch["global_attention_mask"][:, 0] = 1
        return batch

    def training_batch(self, examples: Sequence[Example]) -> dict[str, Tensor | int]:
        """What `batch` gives, and `labels`, (batch, longest title), whose padding the loss ignores."""
        batch = self.batch([example.source for example in examples])
        labels = _pad([example.labels for example in examples], IGNORED, self._side)
        if not self.family.causal:
            return {**batch, "labels": labels}
        # Titles stand at the sequences' ends. Logits of the transcript's tokens would be most of a step's work, for
        # nothing; one more than the longest title is kept, since a token is predicted at the place before it.
        keep = int((labels != IGNORED).sum(dim=1).max()) + 1
        places = (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        return {**batch, "position_ids": places, "labels": labels[:, -keep:], "logits_to_keep": keep}

    @property
    def _side(self) -> str:
        return "left" if self.family.causal else "right"

    def _prompt_around_text(self) -> tuple[list[int], list[int]]:
        """Token ids that stand before and after a text."""
        mark = "\x00"
        question = self.family.prompt.question.format(text=mark)
        messages = [{"role": "user", "content": question}]
        rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before, after = (rendered + self.family.prompt.answer).split(mark)
        return tuple(self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))


def _pad(rows: Sequence[list[int]], value: int, side: str) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value, padding_side=side)
