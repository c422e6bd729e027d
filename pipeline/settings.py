"""Reads a section of `params.yaml` into a typed, checked settings object."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import Misused
from pipeline.paths import PARAMS


class Settings(BaseModel):
    """A part of `params.yaml`: immutable, and without a place for a misspelt knob."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


class Section(Settings):
    """A top-level section of `params.yaml`, read by name."""

    section: ClassVar[str]

    @classmethod
    def read(cls, params: Path = PARAMS) -> Self:
        """The section as `params` holds it.

        Raises:
            Misused: the file or the section is missing, or a value in it is wrong; each wrong value is named.
        """
        return check(cls, read_params(params).get(cls.section), at=cls.section, params=params)


def read_params(params: Path = PARAMS) -> dict[str, Any]:
    """All of `params.yaml`, unchecked.

    Raises:
        Misused: the file is missing or is not a YAML mapping.
    """
    try:
        content = yaml.safe_load(params.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Misused(f"{params} is not here. Run this in the project's folder.") from None
    except yaml.YAMLError as error:
        raise Misused(f"{params} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise Misused(f"{params} must hold sections such as 'split:', and holds none.")
    return content


def check(kind: type[S], value: Any, *, at: str, params: Path = PARAMS) -> S:
    """`value` as settings of `kind`; `at` is its dotted place in `params`.

    Raises:
        Misused: with one line for every value that is wrong.
    """
    if value is None:
        raise Misused(f"{params} has no '{at}'. Add it, or take it back from version control.")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        lines = [f"{'.'.join([at, *map(str, e['loc'])])}: {e['msg']} (it is {e['input']!r})" for e in error.errors()]
        raise Misused(f"{params} is wrong in {len(lines)} place(s):\n  " + "\n  ".join(lines)) from None
