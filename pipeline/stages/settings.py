"""`settings`: per contestant the settings that decide its weights and its titles, as files that other stages depend on.

Settings that apply to another model, that a model overrides, or that only suit the machine are not among them. The
stages themselves read params.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.files import folder_aside, write_text
from pipeline.paths import SETTINGS
from pipeline.settings import (
    MACHINE_SETTINGS,
    generate_settings,
    mapping,
    read_contestants,
    read_params,
    train_settings,
)

# Without training, the seed still decides weights that a checkpoint lacks.
_WITHOUT_TRAINING = ("epochs", "seed")
_OF_DRAWN_TITLES = {"temperature", "top_k", "top_p", "seed"}
_OF_BEAM_SEARCH = {"length_penalty"}


def run() -> None:
    contestants, params = read_contestants(), read_params()
    with folder_aside(SETTINGS, durable=False) as folder:
        for model in contestants:
            _write(folder / model / "train.json", training(params, model))
            _write(folder / model / "predict.json", titling(params, model))
        # Titles of a registered version can be drawn on request: all settings of generation belong to it.
        _write(folder / "generate.json", {model: _set(generate_settings(params, model)) for model in contestants})


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    """Write sorted JSON: the order in params.yaml decides nothing."""
    write_text(path, json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n", durable=False)


def training(params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The settings that decide the weights of `model`."""
    entry = {
        name: value for name, value in mapping(mapping(params.get("models")).get(model)).items() if name != "train"
    }
    knobs = train_settings(params, model)
    if knobs.get("epochs") == 0:
        knobs = {name: knobs.get(name) for name in _WITHOUT_TRAINING}
    decisive = {name: value for name, value in knobs.items() if name not in MACHINE_SETTINGS}
    return {"model": _set(entry), "train": _set(decisive)}


def titling(params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The settings that decide which titles `model` writes."""
    settings, unused = generate_settings(params, model), set()
    if not settings.get("do_sample"):
        unused |= _OF_DRAWN_TITLES
    if settings.get("num_beams") == 1:
        unused |= _OF_BEAM_SEARCH
    return _set({name: value for name, value in settings.items() if name not in unused})


def _set(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have a value: null means the same as leaving one out."""
    return {name: value for name, value in settings.items() if value is not None}
