from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.exceptions import PrefectHTTPStatusError

from flows.titles import title_folder, titles, untitled
from pipeline.inbox.outbox import RejectedFile, read_titled, write_rejected
from pipeline.inbox.title_inbox import IGNORED
from pipeline.settings import set_params
from tests.conftest import SUBJECTS
from tests.flows.toy_project import wait_for
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


@pytest.mark.slow
def test_new_files_are_titled_and_shown_and_broken_ones_fail_the_run_once(folder: Path) -> None:
    _register(folder)
    assert titles(return_state=True).message == "Nothing was new."
    (folder / "inbox/a.txt").write_text("we talk about graphs")
    (folder / "inbox/broken.txt").write_text("")
    state = titles(return_state=True)
    assert state.is_failed()
    assert "broken.txt: It is empty" in state.message
    assert [row.file for row in read_titled(folder / "titles")] == ["a.txt"]
    this = FlowRunFilterId(any_=[state.state_details.flow_run_id])
    with get_client(sync_client=True) as client:
        (run,) = client.read_task_runs(flow_run_filter=FlowRunFilter(id=this))
    assert run.run_count == 1


@pytest.mark.slow
def test_a_broken_file_fails_one_run_and_is_named_by_the_later_ones_as_are_those_of_other_kinds(folder: Path) -> None:
    _register(folder)
    (folder / "inbox").mkdir()
    (folder / "inbox/broken.txt").write_text("")
    (folder / "inbox/talk.mp4").touch()
    state = titles(return_state=True)
    assert state.is_failed()
    assert "talk.mp4" in state.message
    state = titles(return_state=True)
    assert state.is_completed()
    nothing, broken, ignored = state.message.splitlines()
    assert nothing == "Nothing was new."
    assert broken.startswith("To be corrected: broken.txt: It is empty")
    assert ignored == f"1 {IGNORED}: talk.mp4"

    (folder / "inbox/worse.txt").write_bytes(b"caf\xe9")
    assert titles(return_state=True).is_failed()


def test_of_many_files_of_other_kinds_a_run_names_the_first(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02d}.mp4").touch()
    (line,) = untitled(tmp_path, tmp_path / "titles")
    assert line.startswith(f"30 {IGNORED}")
    assert line.endswith("18.mp4, 19.mp4, 10 more")


def test_of_a_long_refusal_a_later_run_says_the_first_line(tmp_path: Path) -> None:
    write_rejected(tmp_path / "titles", [RejectedFile("a.xlsx", "0", "a.xlsx has 2 errors:\nrow 3\nrow 4")])
    assert untitled(tmp_path, tmp_path / "titles") == [
        "To be corrected: a.xlsx: a.xlsx has 2 errors: (titles/not_titled.json has all of it)"
    ]


def test_a_wrong_number_of_slots_fails_the_run_with_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LECTERN_GPU_SLOTS", "many")
    state = titles(return_state=True)
    assert state.is_failed()
    assert state.message.startswith("LECTERN_GPU_SLOTS")


def test_without_a_version_the_run_says_what_to_do(folder: Path) -> None:
    set_params(["register"], {"pretrained": None})
    state = titles(return_state=True)
    assert state.is_failed()
    assert "lectern run" in state.message


@pytest.mark.parametrize("parameter", ["inbox", "outbox"])
def test_a_folder_outside_of_the_project_is_refused_before_a_run_starts(parameter: str, folder: Path) -> None:
    deployment = titles.to_deployment("asked").apply()
    with get_client(sync_client=True) as client:
        for place in ("../elsewhere", "talks/../../elsewhere", "/etc", "~/talks", ".", "", ".git", "talks/.git"):
            with pytest.raises(PrefectHTTPStatusError) as refused:
                client.create_flow_run_from_deployment(deployment, parameters={parameter: place})
            assert refused.value.response.status_code in (409, 422), place
        for place in ("talks", "talks/week 1", "Vorträge/", "talks/v1.2"):
            client.create_flow_run_from_deployment(deployment, parameters={parameter: place})


def test_a_link_that_leads_out_of_the_project_is_no_folder_in_it(folder: Path, tmp_path: Path) -> None:
    (folder / "linked").symlink_to(tmp_path)
    state = titles(outbox="linked", return_state=True)
    assert state.is_failed()
    assert "outbox is 'linked', which is not a folder inside" in state.message


def test_the_form_explains_every_parameter() -> None:
    properties = titles.parameters.properties
    assert set(properties) == {"inbox", "outbox", "again"}
    assert all(entry.get("description") for entry in properties.values())


def drifts(model: str) -> list[dict[str, object]]:
    with get_client(sync_client=True) as client:
        wanted = {"event": {"name": ["lectern.drifted"]}, "resource": {"id": [f"lectern.model.{model}"]}}
        found = client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"]
    return [event["payload"] for event in found]


@pytest.mark.slow
def test_a_batch_unlike_the_training_split_raises_an_event_and_fails_nothing(folder: Path) -> None:
    set_params(["register"], {"name": "watched"})
    set_params(["drift"], {"fewest": 4})
    _register(folder)
    spoken = [f"now we talk about {subject} and why all of them matter to us" for subject in SUBJECTS]
    place = {"course_title": "C", "lesson_num": list("12345678"), "start_seconds": 0.0}
    train = pd.DataFrame({**place, "title": "Why", "text": spoken})
    (folder / "data/splits").mkdir(parents=True)
    train.to_parquet(folder / "data/splits/train.parquet")
    (folder / "inbox").mkdir()
    for number in range(4):
        text = f"heute sprechen wir über Graphen und darüber warum die Zahl {number} wichtig ist"
        (folder / f"inbox/{number}.txt").write_text(text, encoding="utf-8")
    assert titles(return_state=True).is_completed()
    wait_for(lambda: drifts("watched"))
    (told,) = drifts("watched")
    assert (told["version"], told["texts"]) == ("watched/1", 4)
    assert "language" in told["drifted"]
    with get_client(sync_client=True) as client:
        shown = client.request("POST", "/artifacts/latest/filter", json={}).json()
    (page,) = [artifact["data"] for artifact in shown if artifact["key"] == "drift"]
    assert "This batch: 4 texts." in page
    assert "| language | en 100% | de 100% |" in page
