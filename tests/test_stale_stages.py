"""Each stage depends on its own effective settings only: a changed setting makes no other stage stale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from pipeline.stages import settings

TRAINED = ("t5", "smollm2", "bart-tiny")
CONTESTANTS = ("t5-zero-shot", *TRAINED)
T5_AND_BART = ("t5", "bart-tiny")


def _each(stage: str, models: tuple[str, ...] = CONTESTANTS) -> str:
    return " ".join(f"{stage}@{model}" for model in models)


# A setting, and the stages that run again when it changes. Their downstream stages follow if an output changes. The
# stage `settings` is not listed: it takes a second. The first row that matches applies.
TABLE = {
    "sample.topics": "sample",
    "sample.words_per_minute": "sample",
    "sample.seed": "sample",
    "ingest.workbook": "ingest",
    "ingest.broken_rows": "ingest",
    # Scores are intervals over lessons; with a random split, over examples.
    "split.by": f"split {_each('score')} baselines",
    "split.validation": "split",
    "split.test": "split",
    "split.seed": "split",
    # The test switches bart-tiny off: the stages of other models stay up to date.
    "contestants": "collect joint register",
    # Every contestant has its own epochs, t5 its own rate, and smollm2 its own rate, batch and frozen layers.
    "train.epochs": "",
    "train.learning_rate": "train@bart-tiny",
    "train.batch_size": _each("train", T5_AND_BART),
    "train.freeze": _each("train", T5_AND_BART),
    "train.freeze_lower_layers": _each("train", T5_AND_BART),
    # Also without training, the seed decides the weights that a checkpoint lacks.
    "train.seed": _each("train"),
    "train.optimiser": _each("train", TRAINED),
    "train.schedule": _each("train", TRAINED),
    "train.warmup": _each("train", TRAINED),
    "train.weight_decay": _each("train", TRAINED),
    "train.lora": _each("train", TRAINED),
    "train.unfreeze_every": _each("train", TRAINED),
    "train.discriminative": _each("train", TRAINED),
    "train.early_stopping": _each("train", TRAINED),
    "train.precision": _each("train", TRAINED),
    "train.bertscore": _each("train", TRAINED),
    "train.processes": _each("train", TRAINED),
    # Settings of the machine, which do not change the weights.
    "train.device": "",
    "train.report_to": "",
    "train.micro_batch_tokens": "",
    "train.gradient_checkpointing": "",
    # A registered version carries all settings of generation, and the best model titles whole lessons with them.
    # smollm2 has its own num_beams and no_repeat_ngram_size.
    "generate.default.num_beams": f"{_each('predict', ('t5-zero-shot', *T5_AND_BART))} joint register",
    "generate.default.no_repeat_ngram_size": f"{_each('predict', ('t5-zero-shot', *T5_AND_BART))} joint register",
    "generate.default.length_penalty": f"{_each('predict', ('t5-zero-shot', *T5_AND_BART))} joint register",
    "generate.default.max_new_tokens": f"{_each('predict')} joint register",
    "generate.default.batch_size": f"{_each('predict')} joint register",
    "generate.default.do_sample": f"{_each('predict')} joint register",
    "generate.default.consensus": f"{_each('predict')} joint register",
    "generate.default.candidates": f"{_each('predict')} joint register",
    "generate.models.smollm2.*": "predict@smollm2 joint register",
    "evaluate.bertscore_model": f"{_each('score')} baselines",
    "evaluate.bertscore_layers": f"{_each('score')} baselines",
    "evaluate.confidence": f"{_each('score')} baselines compare joint segment",
    "compare.metric": "compare",
    "register.*": "register",
    "models.smollm2-zero-shot.*": "",  # not a contestant
    "generate.models.smollm2-zero-shot.*": "",
    "models.t5.*": "train@t5",
    "models.t5-zero-shot.*": "train@t5-zero-shot",
    "models.bart-tiny.*": "train@bart-tiny",
    "models.smollm2.*": "train@smollm2",
    # Read by commands, not by stages.
    "fetch.*": "",
    "promote.*": "",
    "drift.*": "",
    "titles.*": "",
    "chapters.minutes": "",
    "chapters.*": "segment",
    "segment.*": "segment",
    "serve.*": "",
    "page.*": "",
    "search.*": "",
}


@pytest.fixture
def params(project: Path) -> dict[str, Any]:
    """The shipped settings, in a project with the shipped graph in which no stage has run."""
    with Repo.init(no_scm=True):
        pass
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))


def _stages(params: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The settings that each stage depends on, by DVC: in params.yaml, or in a file of the stage `settings`."""
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    settings.run()
    with Repo() as repo:
        stages = {stage.addressing: stage.deps for stage in repo.index.stages if stage.addressing != "settings"}
        return {name: dict(content for dep in deps for content in _content(dep)) for name, deps in stages.items()}


def _content(dep: Any) -> Iterator[tuple[str, str]]:
    if isinstance(dep, ParamsDependency):
        yield dep.def_path, json.dumps(dep.read_params(), sort_keys=True)
    elif dep.def_path.startswith("settings/"):
        yield dep.def_path, Path(dep.def_path).read_text(encoding="utf-8")


def _stale(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> set[str]:
    return {name for name, inputs in after.items() if inputs != before.get(name)}


def _leaves(content: object, *place: str) -> Iterator[tuple[str, ...]]:
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from _leaves(value, *place, name)
    else:
        yield place


def _changed(params: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    name, *rest = place
    return params | {name: _changed(params[name], tuple(rest)) if rest else _another(name, params[name])}


def _another(name: str, value: object) -> object:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case list():
            return value[:-1] if value else ["embedding"]
        case None | {}:
            return {"rank": 8}
        case _:
            return f"{value}-other"


@pytest.mark.slow
def test_a_changed_setting_makes_the_stages_of_the_table_stale_and_no_others(params: dict[str, Any]) -> None:
    assert tuple(sorted(params["contestants"])) == tuple(sorted(CONTESTANTS))
    params["contestants"] = [*(name for name in params["contestants"] if name != "bart-tiny"), "bart-tiny"]
    before, wrong, idle = _stages(params), {}, params
    for place in _leaves(params):
        setting = ".".join(place)
        row = next((stages for pattern, stages in TABLE.items() if fnmatch(setting, pattern)), None)
        if row == "":
            idle = _changed(idle, place)  # all of them at once, to save time
            continue
        stale = _stale(before, _stages(_changed(params, place)))
        if row is None or stale != {*row.split()}:
            wrong[setting] = f"stale: {' '.join(sorted(stale)) or 'none'}; in the table: {row}"
    assert not wrong, json.dumps(wrong, indent=2)
    assert _stale(before, _stages(idle)) == set()


def test_the_order_of_settings_and_settings_of_other_models_make_nothing_stale(
    params: dict[str, Any],
) -> None:
    before = _stages(params)
    params["models"] = {"other": {**params["models"]["bart-tiny"]}} | {
        name: dict(reversed(entry.items())) for name, entry in params["models"].items()
    }
    params["generate"]["models"]["other"] = {"num_beams": 3}
    assert _stale(before, _stages(params)) == set()


def test_an_override_that_repeats_the_section_makes_nothing_stale(params: dict[str, Any]) -> None:
    before = _stages(params)
    params["models"]["bart-tiny"]["train"]["learning_rate"] = params["train"]["learning_rate"]
    params["models"]["bart-tiny"]["train"]["lora"] = None
    params["models"]["bart-tiny"]["language"] = None
    assert _stale(before, _stages(params)) == set()
