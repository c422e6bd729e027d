"""What an exported folder says of itself: which version it is, and what was measured when it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from pipeline.errors import Rejected
from pipeline.files import write_text
from pipeline.models.generation import GenerateSettings
from pipeline.settings import Settings

CARD = "export.json"
ENGINE = "ctranslate2"
"""The folder inside of an exported one that holds the converted weights."""

Weights = Literal["float32", "int8"]


class Loss(Settings):
    """ROUGE-1 that a conversion loses: the mean over examples with its lower and upper bound. Below 0 it is a gain."""

    mean: float
    low: float
    high: float


class Measured(Settings):
    """The titles of the plain model or of a conversion, written without sampling on the machine that exported."""

    rouge1: float
    same_titles: float  # share of titles that are the plain model's
    titles_a_second: float
    loss: Loss | None = None  # none of the plain model, nor in exports of earlier releases


class ExportCard(Settings):
    version: str  # NAME/NUMBER
    model_md5: str
    generate: GenerateSettings
    decoder_start: list[int]  # token ids from which a decoder with an encoder of its own goes on
    weights: Weights  # that were kept
    tolerated: float  # ROUGE-1 that int8 may lose, with confidence, of the plain model's
    examples: int  # of the test split
    measured: dict[str, Measured]  # plain, float32, int8
    made: str  # UTC
    machine: str
    libraries: dict[str, str]

    def summary(self, folder: Path) -> str:
        """The measurements, a line each, and the weights that were kept, with the reason."""
        drawn = ", titles without sampling" if self.generate.do_sample else ""
        lines = [f"{self.version} on {self.examples:,} examples of the test split{drawn}:"]
        for name, found in self.measured.items():
            lost = f" (lost {_interval(found.loss)})" if found.loss else ""
            lines.append(
                f"  {name:<8} ROUGE-1 {found.rouge1:.4f}{lost}, {found.titles_a_second:.2f} titles/s, "
                f"{found.same_titles:.0%} the plain model's titles"
            )
        return "\n".join([*lines, f"{folder} holds it with weights in {self.weights}: {self._reason()}"])

    def _reason(self) -> str:
        lost = self.measured["int8"].loss
        if self.weights == "int8" or lost is None:
            return f"with confidence, int8 loses no more than {self.tolerated:g}."
        if lost.low > self.tolerated:
            return f"int8 loses more than {self.tolerated:g}."
        return (
            f"int8 may lose up to {lost.high:.4f}, and {self.tolerated:g} is allowed. More test examples may show a "
            "smaller loss."
        )

    def write(self, folder: Path) -> None:
        write_text(folder / CARD, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> ExportCard:
        """
        Raises:
            Rejected: `folder` is not one that `lectern export` wrote.
        """
        try:
            return cls.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Rejected(
                f"{folder} is no exported version: it has no {CARD}. Make it with `lectern export`."
            ) from None
        except ValidationError as error:
            raise Rejected(f"{folder / CARD} is damaged: {error}. Make it anew with `lectern export`.") from None


def _interval(loss: Loss) -> str:
    return f"{loss.mean:.4f} [{loss.low:.4f}, {loss.high:.4f}]"
