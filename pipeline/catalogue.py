"""Models that `catalogue.yaml` offers, copied into `params.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import Misused
from pipeline.files import file_aside
from pipeline.paths import CATALOGUE, PARAMS
from pipeline.settings import mapping, read_params, round_trip

SECTIONS = (("models",), ("generate", "models"))
"""Sections with the settings of a model, in both files."""


def add(names: Sequence[str], params: Path = PARAMS, catalogue: Path = CATALOGUE) -> None:
    """Copy models from the catalogue into `params` and make them contestants.

    An entry that `params` already has is kept, and so are all comments of the file.

    Raises:
        Misused: neither file has a model of that name.
    """
    known, offered = read_params(params), read_params(catalogue)
    models = {**mapping(offered.get("models")), **mapping(known.get("models"))}
    if unknown := [name for name in names if name not in models]:
        raise Misused(f"{catalogue} has no model {', '.join(unknown)}. It has {', '.join(offered['models'])}.")
    ruamel = round_trip()
    content, source = (ruamel.load(path.read_text(encoding="utf-8")) for path in (params, catalogue))
    for name in reversed(names):
        _copy(content, source, name)
    with file_aside(params) as path, path.open("w", encoding="utf-8") as file:
        ruamel.dump(content, file)


def _copy(content: Any, source: Mapping[str, Any], name: str) -> None:
    if name not in content["models"]:
        for section in SECTIONS:
            target, origin = _within(content, section), _within(source, section)
            if name in origin:
                # First in its section: a comment that follows a section belongs to the last entry for ruamel.
                target.insert(0, name, origin[name])
    if name not in content["contestants"]:
        content["contestants"].insert(0, name)


def _within(content: Any, section: Sequence[str]) -> Any:
    for key in section:
        content = content[key]
    return content
