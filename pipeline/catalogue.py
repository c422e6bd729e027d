"""Copy models from `catalogue.yaml` into `params.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files import file_aside
from pipeline.paths import CATALOGUE, PARAMS
from pipeline.settings import mapping, read_params, round_trip

SECTIONS = (("models",), ("generate", "models"))
"""The sections of both files that hold settings of a model."""


def add(names: Sequence[str], params: Path = PARAMS, catalogue: Path = CATALOGUE) -> None:
    """Copy models from the catalogue into `params` and make them contestants.

    Missing sections of `params` are created. Existing entries and all comments are kept.

    Raises:
        UsageError: neither file has a model with that name, or a section of `params` has the wrong type.
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
    if name not in _section(content, ("models",)):
        for section in SECTIONS:
            origin = _section(source, section)
            if name in origin:
                # First in its section: ruamel attaches a comment after a section to the section's last entry.
                _section(content, section).insert(0, name, origin[name])
    contestants = _get_or_create(content, "contestants", [])
    if name not in contestants:
        contestants.insert(0, name)


def _section(content: Any, section: Sequence[str]) -> Any:
    """Return the mapping at `section`; create it if it is missing or empty."""
    from ruamel.yaml.comments import CommentedMap  # imported here for the reason in `pipeline.settings.round_trip`

    for key in section:
        content = _get_or_create(content, key, CommentedMap())
    return content


def _get_or_create(content: Any, key: str, empty: dict[str, Any] | list[str]) -> Any:
    """Return the value of `key`; set it to `empty` if it is missing or null.

    Raises:
        UsageError: the value is not of the type of `empty`.
    """
    if content.get(key) is None:
        content[key] = empty
    if not isinstance(content[key], dict if isinstance(empty, dict) else list):
        raise UsageError(f"{PARAMS}: '{key}' must hold models, but is {content[key]!r}. Correct it and try again.")
    return content[key]
