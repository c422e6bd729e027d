"""From text and title to what a model is fed: token ids, padded batches, and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from pipeline.models.families import Family
from pipeline.models.title_cleanup import without_marks

T = TypeVar("T")

IGNORED = -100  # the label that the loss passes over

_SHOUTED = 0.9  # the share of capitals among the letters of a text beyond which these tell nothing


@dataclass(frozen=True)
class Example:
    """One text with its title, as token ids; for a causal model both sequences already are one."""

    source: list[int]
    labels: list[int]


class Inputs:
    """Feeds one model: knows its family, its tokenizer and its limits.

    Args:
        max_source_tokens: a text's tokens beyond these are cut. The family's prefix or prompt does not count.
        max_target_tokens: a title's tokens beyond these are cut, its end token included.
    """

    def __init__(
        self, family: Family, tokenizer: PreTrainedTokenizerBase, *, max_source_tokens: int, max_target_tokens: int
    ) -> None:
        self.family = family
        self.tokenizer = tokenizer
        self.max_source_tokens = max_source_tokens
        self.max_target_tokens = max_target_tokens
        # Token ids that stand before and after a text, and before its title.
        self.prompt = self._prompt_around_text() if family.prompt else None
        self._prefix_tokens = prefix_tokens(family, tokenizer)

    def source(self, text: str) -> list[int]:
        """Token ids of what is asked of the model about `text`, of which it reads what is said alone: a mark such as
        [Music] it might take for the subject."""
        text = calm(" ".join(without_marks(text).split()))
        if self.prompt is None:
            longest = self._prefix_tokens + self.max_source_tokens
            return self.tokenizer(self.family.prefix + text, truncation=True, max_length=longest)["input_ids"]
        before, after = self.prompt
        words = self.tokenizer(text, add_special_tokens=False, truncation=True, max_length=self.max_source_tokens)
        return [*before, *words["input_ids"], *after]

    def target(self, title: str) -> list[int]:
        """Token ids of `title` as the model should write it, with its end token."""
        if self.prompt is None:
            return self.tokenizer(text_target=title, truncation=True, max_length=self.max_target_tokens)["input_ids"]
        # The answer's beginning ends without a space: a token of a byte-level vocabulary begins with its own.
        words = self.tokenizer(" " + title, add_special_tokens=False)["input_ids"]
        return [*words[: self.max_target_tokens - 1], self.tokenizer.eos_token_id]

    def example(self, text: str, title: str) -> Example:
        source, target = self.source(text), self.target(title)
        if self.prompt is None:
            return Example(source, target)
        return Example(source + target, [IGNORED] * len(source) + target)

    def batch(self, sources: Sequence[list[int]]) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and what else the family wants, each (batch, longest source).

        Padded on the right; on the left for a causal model, which writes on from a sequence's end.
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
        """What `batch` gives, and `labels`, (batch, longest title), whose padding the loss ignores.

        Args:
            features: what the model's frozen part makes of sources; the model is then fed with these instead.
        """
        sources = [example.source for example in examples]
        batch = self.batch(sources)
        labels = pad([example.labels for example in examples], IGNORED, self.side)
        if features:
            batch = self.fed_with(features(sources), batch)
        if not self.family.causal:
            return {**batch, "labels": labels}
        # Titles stand at the sequences' ends. Logits of the transcript's tokens would be most of a step's work, for
        # nothing; one more than the longest title is kept, since a token is predicted at the place before it.
        keep = int((labels != IGNORED).sum(dim=1).max()) + 1
        positions = self.positions(batch["attention_mask"])
        return {**batch, "position_ids": positions, "labels": labels[:, -keep:], "logits_to_keep": keep}

    def positions(self, attention_mask: Tensor) -> Tensor:
        """The place of each token in its sequence, wherever that is padded."""
        return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)

    def fed_with(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Any]:
        """`batch` with what the model's frozen part makes of its sources in their place."""
        fed = {"inputs_embeds": features} if self.family.causal else {"encoder_outputs": BaseModelOutput(features)}
        return {"attention_mask": batch["attention_mask"], **fed}

    @property
    def side(self) -> str:
        return "left" if self.family.causal else "right"

    def _prompt_around_text(self) -> tuple[list[int], list[int]]:
        """Token ids that stand before and after a text."""
        mark = "\x00"
        question = self.family.prompt.question.format(text=mark)
        messages = [{"role": "user", "content": question}]
        rendered = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before, after = (rendered + self.family.prompt.answer).split(mark)
        return tuple(self.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))


def prefix_tokens(family: Family, tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the tokens that the family puts before every text."""
    # A word's token holds the space before the word.
    return len(tokenizer(family.prefix.rstrip(), add_special_tokens=False)["input_ids"]) if family.prefix else 0


def calm(text: str) -> str:
    """`text`, in small letters if all but all of its letters are capitals, as those of some captions are.

    A model that reads capitals letter by letter loses the subject.
    """
    letters = [char for char in text if char.isupper() or char.islower()]
    capitals = sum(map(str.isupper, letters))
    return text.lower() if capitals > _SHOUTED * len(letters) else text


def pad(rows: Sequence[Any], value: float, side: str) -> Tensor:
    """`rows`, each (length, …), as one tensor (rows, longest, …)."""
    return pad_sequence(
        [torch.as_tensor(row) for row in rows], batch_first=True, padding_value=value, padding_side=side
    )


def micro_batches(rows: Sequence[T], length: Callable[[T], int], most_tokens: int) -> list[list[T]]:
    """`rows` in batches of like length, the longest first, none of more than `most_tokens` with its padding.

    A row that is longer has a batch of its own.
    """
    batches: list[list[T]] = []
    for row in sorted(rows, key=length, reverse=True):
        if batches and (len(batches[-1]) + 1) * length(batches[-1][0]) <= most_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
