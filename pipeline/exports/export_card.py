"""`export.json` of an exported version: its origin, its settings and its measurements."""

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
"""The subfolder of an export with the converted weights."""

FASTER = 1.1
"""Lectern uses an export only if it is at least this many times as fast as the model. A smaller gain may be chance."""

Weights = Literal["float32", "int8"]


class Loss(Settings):
    """Loss of ROUGE-1 by a conversion: the mean over examples with its bounds. A negative loss is a gain."""

    mean: float
    low: float
    high: float


class Measured(Settings):
    """Quality and speed of the plain model or of a conversion, without sampling, on the machine of the export."""

    rouge1: float
    same_titles: float  # share of titles that equal the plain model's
    titles_a_second: float
    loss: Loss | None = None  # None for the plain model and in exports of earlier releases

    def is_faster_than(self, plain: Measured) -> bool:
        """Return whether this conversion is at least `FASTER` times as fast as the plain model."""
        return self.titles_a_second >= FASTER * plain.titles_a_second


class ExportCard(Settings):
    """The content of `export.json`."""

    version: str  # NAME/NUMBER
    model_md5: str
    generate: GenerateSettings
    decoder_start: list[int]  # token ids that the decoder of an encoder-decoder model starts from
    weights: Weights  # of this export
    tolerated: float  # largest loss of ROUGE-1 for int8
    examples: int  # of the test split
    measured: dict[str, Measured]  # plain, float32, int8
    made: str  # UTC
    machine: str
    libraries: dict[str, str]

    def summary(self, folder: Path) -> str:
        """Return the measurements, one per line, and the chosen weights with the reason."""
        drawn = ", titles without sampling" if self.generate.do_sample else ""
        lines = [f"{self.version} on {self.examples:,} examples of the test split{drawn}:"]
        for name, found in self.measured.items():
            lost = f" (lost {_interval(found.loss)})" if found.loss else ""
            lines.append(
                f"  {name:<8} ROUGE-1 {found.rouge1:.4f}{lost}, {found.titles_a_second:.2f} titles/s, "
                f"{found.same_titles:.0%} of titles equal the plain model's"
            )
        ratio = self.measured[self.weights].titles_a_second / self.measured["plain"].titles_a_second
        lines.append(f"{folder} writes titles {ratio:.1f} times as fast as the model itself.")
        return "\n".join([*lines, f"Its weights are {self.weights}: {self._reason()}"])

    @property
    def is_faster(self) -> bool:
        """Return whether the export is faster than the model."""
        return self.measured[self.weights].is_faster_than(self.measured["plain"])

    def _reason(self) -> str:
        lost = self.measured["int8"].loss
        if self.weights == "int8" or lost is None:
            return f"with confidence, int8 loses at most {self.tolerated:g}."
        if lost.high <= self.tolerated:
            return "they are faster than int8."
        if lost.low > self.tolerated:
            return f"int8 loses more than {self.tolerated:g}."
        return (
            f"int8 may lose up to {lost.high:.4f}, more than the tolerated {self.tolerated:g}. More test examples may "
            "show a smaller loss."
        )

    def write(self, folder: Path) -> None:
        write_text(folder / CARD, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> ExportCard:
        """Read the card of an exported version.

        Raises:
            Rejected: the card is missing or damaged.
        """
        try:
            return cls.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValidationError) as error:
            raise damaged(folder) from error


def damaged(folder: Path) -> Rejected:
    """Return the error of an export that does not load."""
    return Rejected(f"The export in {folder} is damaged. Delete the folder, or repeat `lectern export`.")


def _interval(loss: Loss) -> str:
    return f"{loss.mean:.4f} [{loss.low:.4f}, {loss.high:.4f}]"
