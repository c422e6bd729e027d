"""Records that one stage writes as JSON and others read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from pipeline.errors import Rejected


class Record(BaseModel):
    """An immutable JSON object, strict about unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


R = TypeVar("R", bound=Record)


def read_record(record: type[R], path: Path, stage: str) -> R:
    """Read a record from the file that a stage wrote.

    Args:
        record: the class of the record.
        path: the file.
        stage: the stage that writes it, for the message.

    Raises:
        Rejected: the file is missing or damaged.
    """
    try:
        return record.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Rejected(f"{path} is missing. The stage {stage} writes it: run `dvc repro {stage}`.") from None
    except (OSError, ValueError) as error:
        raise Rejected(f"{path} is damaged: {error}. Run `dvc repro --force {stage}` to write it again.") from None
