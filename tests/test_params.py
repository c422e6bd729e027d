"""The shipped params.yaml and catalogue.yaml, as a user changes them: by hand, by DVC, by `lectern models add`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml
from ruamel.yaml import YAML
from ruamel.yaml.tokens import CommentToken

from flows.graph.run_copy import RunParameters, with_parameters
from pipeline.catalogue import add
from pipeline.errors import UsageError
from pipeline.models.checkpoints import ModelSettings
from pipeline.models.generation import GenerateSettings
from pipeline.training.settings import TrainSettings
from tests.command import lectern
from tests.conftest import ROOT

FILES = ("params.yaml", "catalogue.yaml")
CATALOGUE = sorted(yaml.safe_load((ROOT / "catalogue.yaml").read_text(encoding="utf-8"))["models"])


def _params() -> dict[str, Any]:
    return yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))


def _leaves(content: object, *place: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from _leaves(value, *place, name)
    else:
        yield place, content


def _another(value: object) -> object:
    """A value of the same kind that no leaf has."""
    if isinstance(value, str):
        return "another"
    return ["another"] if isinstance(value, list) else value + 7


@pytest.mark.parametrize("name", FILES)
def test_no_two_settings_share_a_mapping(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    aliases = [event.anchor for event in yaml.parse(text) if isinstance(event, yaml.AliasEvent)]
    assert not aliases
    assert "<<" not in text


@pytest.mark.parametrize("name", [*FILES, "dvc.yaml"])
def test_dvc_reads_a_file_as_lectern_does(name: str) -> None:
    content = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert load_yaml(ROOT / name) == content  # DVC's reader refuses some lines that others accept


@pytest.mark.slow
def test_dvc_overrides_each_setting_of_each_model_and_nothing_else(project: Path) -> None:
    done = lectern("models", "add", *CATALOGUE, cwd=project)
    assert done.returncode == 0, done.stderr
    written = Path("params.yaml").read_text(encoding="utf-8")
    before = dict(_leaves(yaml.safe_load(written)))
    wrong = []
    for place, value in before.items():
        if place[0] != "models":
            continue
        new = _another(value)
        apply_overrides("params.yaml", [f"{'.'.join(place)}={yaml.safe_dump(new, default_flow_style=True).split()[0]}"])
        if dict(_leaves(_params())) != before | {place: new}:
            wrong.append(".".join(place))
        Path("params.yaml").write_text(written, encoding="utf-8")
    assert not wrong


@pytest.mark.parametrize("name", FILES)
def test_comments_hold_no_settings(name: str) -> None:
    """DVC drops comments when it overrides a setting."""
    lines = [line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    comments = [yaml.safe_load(line.lstrip("# ")) for line in lines if line.startswith("#")]
    settings = [each for each in comments if not isinstance(each, str) and not any(" " in str(name) for name in each)]
    assert settings == []


def test_each_model_of_the_catalogue_is_added_with_all_its_settings(project: Path) -> None:
    offered = yaml.safe_load(Path("catalogue.yaml").read_text(encoding="utf-8"))
    written, before, comments = Path("params.yaml").read_bytes(), _params(), _comments()
    for model in CATALOGUE:
        add([model])
        settings = ModelSettings.read(model)
        TrainSettings.of_model(model, settings)
        GenerateSettings.read(model)
        assert settings.model_dump(exclude_unset=True) == offered["models"][model]
        after = _params()
        assert after["generate"]["models"].pop(model, None) == offered["generate"]["models"].get(model)
        assert after["models"].pop(model) == offered["models"][model]
        assert {*after["contestants"]} == {*before["contestants"], model}
        assert after | {"contestants": before["contestants"]} == before
        assert _comments() >= comments
        Path("params.yaml").write_bytes(written)


def _comments() -> set[str]:
    tokens = YAML().scan(Path("params.yaml").read_text(encoding="utf-8"))
    found = (comment for token in tokens for part in token.comment or () for comment in _flat(part))
    return {line.strip() for comment in found for line in comment.value.splitlines() if line.strip()}


def _flat(part: object) -> list[CommentToken]:
    return [part] if isinstance(part, CommentToken) else [comment for comment in part or () if comment]


def test_a_model_in_params_yaml_becomes_a_contestant_without_changes(project: Path) -> None:
    params = _params()
    params["models"]["bart-tiny"]["max_source_tokens"] = 99
    params["contestants"].remove("bart-tiny")
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for _ in range(2):
        assert lectern("models", "add", "bart-tiny", cwd=project).returncode == 0
        assert _params()["contestants"].count("bart-tiny") == 1
        assert _params()["models"] == params["models"]


def test_an_unknown_model_is_a_usage_error_that_lists_the_known_ones(project: Path) -> None:
    before = Path("params.yaml").read_bytes()
    done = lectern("models", "add", "t5-small", "t5-smal", cwd=project)
    assert done.returncode == 2
    assert "catalogue.yaml has no model t5-smal" in done.stderr
    assert "t5-small" in done.stderr
    assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize("line", ["contestants:", "contestants: []", ""])
def test_a_model_is_added_to_empty_or_missing_sections(line: str, project: Path) -> None:
    params = _params()
    params["generate"].pop("models")
    params.pop("contestants")
    Path("params.yaml").write_text(f"{line}\n# Kept.\n{yaml.safe_dump(params)}", encoding="utf-8")
    done = lectern("models", "add", "smollm2-best", cwd=project)
    assert done.returncode == 0, done.stderr
    assert _params()["contestants"] == ["smollm2-best"]
    assert [*_params()["generate"]["models"]] == ["smollm2-best"]
    assert "# Kept." in Path("params.yaml").read_text(encoding="utf-8")
    ModelSettings.read("smollm2-best")


def test_a_section_of_the_wrong_type_is_a_usage_error(project: Path) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(_params() | {"contestants": "bart-tiny"}), encoding="utf-8")
    done = lectern("models", "add", "t5-small", cwd=project)
    assert done.returncode == 2
    assert "contestants" in done.stderr


def test_the_error_for_a_model_of_the_catalogue_says_how_to_add_it(project: Path) -> None:
    hint = "`lectern models add t5-small` copies it from catalogue.yaml."
    with pytest.raises(UsageError) as stage:
        ModelSettings.read("t5-small")
    with pytest.raises(UsageError) as flow:
        with_parameters(_params(), RunParameters(models=["t5-small"]))
    assert str(stage.value).endswith(hint)
    assert str(flow.value).endswith(hint)
    with pytest.raises(UsageError) as nowhere:
        ModelSettings.read("t5-smal")
    assert "lectern models add" not in str(nowhere.value)


def test_models_without_versions_says_what_to_run(project: Path) -> None:
    done = lectern("models", cwd=project)
    assert (done.returncode, done.stdout) == (1, "")
    assert "No version of 'lectern' is registered" in done.stderr


@pytest.fixture
def project(project: Path) -> Path:
    shutil.copy(ROOT / "catalogue.yaml", project)
    return project


def test_a_contestant_without_an_entry_is_refused_before_any_other_stage(project: Path) -> None:
    params = _params() | {"contestants": ["bart-tiny", "no-such-model"]}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    done = lectern("settings", cwd=project)
    assert done.returncode == 2
    assert "params.yaml has no model 'no-such-model' under 'models'" in done.stderr
    assert not Path("settings").exists()
