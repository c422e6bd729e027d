"""The check of all families names the step at which a family fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from rich.console import Console
from transformers import PretrainedConfig
from typer.testing import CliRunner

from lectern.app import app
from pipeline.errors import UsageError
from pipeline.models import scratch
from pipeline.models.families import FAMILIES
from pipeline.registry import family_check as module
from pipeline.registry.family_check import FamilyResult, check_families, families_table
from tests.command import lectern


def test_every_family_works_from_a_checkpoint_to_served_titles(project: Path) -> None:
    tracking = os.environ["MLFLOW_TRACKING_URI"]
    rows = check_families()
    assert [(row.family, row.result, row.error) for row in rows] == [(family, "PASSED", None) for family in FAMILIES]
    assert all(row.parameters > 10_000 for row in rows)
    assert (Path.cwd(), os.environ["MLFLOW_TRACKING_URI"], mlflow.active_run()) == (project, tracking, None)
    assert {path.name for path in project.iterdir()} == {"params.yaml", "dvc.yaml", "mlflow.db"}


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_family_that_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = lectern("matrix", "t5", "encoder-decoder", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["family"], row["result"], row["failed_at"]) for row in rows] == [
        ("t5", "PASSED", None),
        ("encoder-decoder", "PASSED", None),
    ]
    assert all(row["seconds"] > 0 for row in rows)
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def broken_bart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A BART that does not know how a title begins."""

    def config(size: scratch.ScratchSize, tokenizer: Any) -> PretrainedConfig:
        made = scratch.bart_config(size, tokenizer)
        made.decoder_start_token_id = None
        return made

    monkeypatch.setitem(FAMILIES, "bart", replace(FAMILIES["bart"], new_config=config))


@pytest.mark.slow
def test_a_broken_family_fails_at_its_step_and_the_next_one_is_tried(broken_bart: None, project: Path) -> None:
    done = CliRunner().invoke(app, ["matrix", "bart", "mt5", "--json"])
    broken, whole = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (broken["family"], broken["result"], broken["failed_at"]) == ("bart", "FAILED", "shapes")
    assert "TypeError" in broken["error"]
    assert broken["parameters"] > 0
    assert (whole["family"], whole["result"]) == ("mt5", "PASSED")


def _raise(*_: object) -> None:
    raise RuntimeError("no [tokens] here")


def _untrained(*_: object, **__: object) -> pd.DataFrame:
    return pd.DataFrame({"step": [1], "train_loss": [1.0]})


def _shorter(opened: Callable[..., Any]) -> Callable[..., Any]:
    return lambda folder, settings: opened(folder, settings.model_copy(update={"max_new_tokens": 8}))


def _another(computed: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: computed(*given) + 1


BREAKAGES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "open": lambda patch: patch.setitem(FAMILIES, "t5", replace(FAMILIES["t5"], new_tokenizer=_raise)),
    "cached steps": lambda patch: patch.setattr(module, "logits_by_steps", _another(module.logits_by_steps)),
    "train": lambda patch: patch.setattr(module, "fit", _untrained),
    "generate": lambda patch: patch.setattr(module, "Titler", _raise),
    "reload": lambda patch: patch.setattr(module, "open_titler", _shorter(module.open_titler)),
    "serve": lambda patch: patch.setattr(module, "log_served_model", _shorter(module.log_served_model)),
}


@pytest.mark.slow
@pytest.mark.parametrize("step", BREAKAGES)
def test_the_row_names_the_step_that_failed(step: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BREAKAGES[step](monkeypatch)
    (row,) = check_families(["t5"])
    assert (row.passed, row.failed_at) == (False, step)
    assert (row.parameters is None) == (step == "open")
    printed = _printed([row])
    assert "0 of 1 families work" in printed
    assert row.error in printed


def _printed(rows: list[FamilyResult]) -> str:
    console = Console(width=1000)
    with console.capture() as captured:
        console.print(families_table(rows))
    return captured.get()


def test_the_table_of_all_families_says_which_one_the_library_has_dropped() -> None:
    rows = [FamilyResult(family, "PASSED", 1.0) for family in FAMILIES]
    assert "Not tried: xlm-prophetnet; transformers 4 was the last to have it" in _printed(rows)
    assert "xlm-prophetnet" not in _printed(rows[:1])


def test_an_unknown_family_is_misused() -> None:
    with pytest.raises(UsageError, match="no family t6; the families are t5, mt5"):
        check_families(["t5", "t6"])


def test_a_family_that_the_library_has_dropped_is_said_to_be_gone() -> None:
    with pytest.raises(UsageError, match="xlm-prophetnet is no longer supported: transformers 4 was the last"):
        check_families(["xlm-prophetnet"])
