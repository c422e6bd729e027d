from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from flows.titles import title_folder, titles
from pipeline.errors import Misused
from pipeline.titles.inbox import read_rows
from tests.conftest import SUBJECTS
from tests.titles.small import register

pytestmark = pytest.mark.usefixtures("prefect_server")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(title_folder, "retry_delay_seconds", None)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copy(ROOT / "prefect.toml", project)
    return project


def _register(folder: Path) -> None:
    texts = [f"we talk about {subject} and why they matter" for subject in SUBJECTS]
    register(folder / "small", pd.DataFrame({"text": texts, "title": list(SUBJECTS)}))


def test_new_files_are_titled_and_shown_and_broken_ones_fail_the_run_once(folder: Path) -> None:
    _register(folder)
    assert titles(return_state=True).message == "Nothing was new."
    (folder / "inbox/a.txt").write_text("we talk about graphs")
    (folder / "inbox/broken.txt").write_text("")
    state = titles(return_state=True)
    assert state.is_failed()
    assert "broken.txt: it holds no text" in state.message
    assert [row.file for row in read_rows(folder / "titles/titles.csv")] == ["a.txt"]
    this = FlowRunFilterId(any_=[state.state_details.flow_run_id])
    with get_client(sync_client=True) as client:
        (run,) = client.read_task_runs(flow_run_filter=FlowRunFilter(id=this))
    assert run.run_count == 1


def test_without_a_version_the_run_says_what_to_do(folder: Path) -> None:
    state = titles(return_state=True)
    assert state.is_failed()
    assert "lectern run" in state.message


@pytest.mark.parametrize("place", ["../elsewhere", "/etc", "."])
def test_a_folder_outside_of_the_project_is_misused(place: str, folder: Path) -> None:
    state = titles(outbox=Path(place), return_state=True)
    assert isinstance(state.result(raise_on_failure=False), Misused)


def test_the_form_explains_every_parameter() -> None:
    properties = titles.parameters.properties
    assert set(properties) == {"inbox", "outbox", "again"}
    assert all(entry.get("description") for entry in properties.values())
