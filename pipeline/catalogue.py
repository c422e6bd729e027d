"""Models that `catalogue.yaml` offers, copied into `params.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import file_aside
from pipeline.paths import CATALOGUE, PARAMS
from pipeline.settings import mapping, read_params, round_trip

SECTIONS = (("models",), ("generate", "models"))
"""Sections with the settings of a model, in both files."""


def add(names: Sequence[str], params: Path = PARAMS, catalogue: Path = CATALOGUE) -> None:
    """Copy models from the catalogue into `params` and make them contestants.

    Sections that `params` lacks are made. An entry that it already has is kept, and so are all comments of the file.

    Raises:
        UsageError: neither file has a model of that name, or a section of `params` is of another kind.
    """
    known, offered = read_params(params), read_params(catalogue)
    choice = mapping(offered.get("models"))
    models = {**choice, **mapping(known.get("models"))}
    if unknown := [name for name in names if name not in models]:
        raise UsageError(f"{catalogue} has no model {', '.join(unknown)}. It has {', '.join(choice)}.")
    ruamel = round_trip()
    content, source = (ruamel.load(path.read_text(encoding="utf-8")) for path in (params, catalogue))
    for name in reversed(names):
        _copy(content, source, name)
    with file_aside(params) as path, path.open("w", encoding="utf-8") as file:
        ruamel.dump(content, file)


def _copy(content: Any, source: Mapping[str, Any], name: str) -> None:
    if name not in _within(content, ("models",)):
        for section in SECTIONS:
            origin = _within(source, section)
            if name in origin:
                # First in its section: a comment that follows a section belongs to the last entry for ruamel.
                _within(content, section).insert(0, name, origin[name])
    contestants = _made(content, "contestants", [])
    if name not in contestants:
        contestants.insert(0, name)


def _within(content: Any, section: Sequence[str]) -> Any:
    """The mapping at `section`, made where it is missing or empty."""
    from ruamel.yaml import CommentedMap  # as `pipeline.settings.round_trip` does

    for key in section:
        content = _made(content, key, CommentedMap())
    return content


def _made(content: Any, key: str, empty: dict[str, Any] | list[str]) -> Any:
    """The value of `key`, which becomes `empty` where it is missing or null.

    Raises:
        UsageError: it is of another kind than `empty`.
    """
    if content.get(key) is None:
        content[key] = empty
    if not isinstance(content[key], dict if isinstance(empty, dict) else list):
        raise UsageError(f"{PARAMS}: '{key}' should hold models, and is {content[key]!r}. Correct it and try again.")
    return content[key]
