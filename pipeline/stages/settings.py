"""The stage `settings`: files with the settings that decide each contestant's weights and titles.

Other stages depend on these files, which leave out settings of other models, settings that the model overrides, and
settings of the machine. The stages themselves read params.yaml.
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
    unknown_model,
)

# Without training, the seed still decides the weights that a checkpoint lacks.
_WITHOUT_TRAINING = ("epochs", "seed")
_SAMPLING_SETTINGS = {"temperature", "top_k", "top_p", "seed"}
_BEAM_SETTINGS = {"length_penalty"}


def run() -> None:
    """Write the files of all contestants.

    Raises:
        UsageError: a contestant has no entry under `models`. The stages would find out only after the work before them.
    """
    contestants, params = read_contestants(), read_params()
    models = mapping(params.get("models"))
    for model in contestants:
        if model not in models:
            raise unknown_model(model, models)
    with folder_aside(SETTINGS, durable=False) as folder:
        for model in contestants:
            _write(folder / model / "train.json", training(params, model))
            _write(folder / model / "predict.json", titling(params, model))
        # A registered version carries all settings of generation: a request may ask for sampled titles.
        _write(folder / "generate.json", {model: _set(generate_settings(params, model)) for model in contestants})


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    """Write sorted JSON, so that the order in params.yaml does not matter."""
    write_text(path, json.dumps(settings, indent=2, sort_keys=True, default=str) + "\n", durable=False)


def training(params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the settings that decide the weights of `model`."""
    entry = {
        name: value for name, value in mapping(mapping(params.get("models")).get(model)).items() if name != "train"
    }
    own = train_settings(params, model)
    if own.get("epochs") == 0:
        own = {name: own.get(name) for name in _WITHOUT_TRAINING}
    decisive = {name: value for name, value in own.items() if name not in MACHINE_SETTINGS}
    return {"model": _set(entry), "train": _set(decisive)}


def titling(params: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the settings that decide the titles of `model`."""
    settings, unused = generate_settings(params, model), set()
    if not settings.get("do_sample"):
        unused |= _SAMPLING_SETTINGS
    if settings.get("num_beams") == 1:
        unused |= _BEAM_SETTINGS
    return _set({name: value for name, value in settings.items() if name not in unused})


def _set(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that have a value: null is the same as a missing setting."""
    return {name: value for name, value in settings.items() if value is not None}
