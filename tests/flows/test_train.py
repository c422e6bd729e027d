import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from prefect import get_client, runtime
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from flows.execution.stage import run_stage
from flows.graph.plan import Busy
from flows.train import train
from tests.command import processes_in
from tests.flows.toy_project import TWO_STAGES, MakeProject, dvc, wait_for

pytestmark = pytest.mark.usefixtures("prefect_server", "no_waiting_between_attempts")

CHAIN = f"""{TWO_STAGES}\
      three:
        cmd: echo three >> ran.txt && cp two.txt three.txt
        deps: [two.txt]
        outs: [three.txt]
"""

# Succeeds only if stage 1 and stage 2 run at the same time.
MEET_EACH_OTHER = (
    "touch here-${item} && timeout 30 sh -c 'until [ -e here-1 ] && [ -e here-2 ]; do sleep 0.1; done'"
    " && echo > met-${item}"
)


@pytest.fixture
def no_waiting_between_attempts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_stage, "retry_delay_seconds", None)


@pytest.fixture
def chain(make_project: MakeProject) -> Path:
    folder = make_project(CHAIN)
    (folder / "source.txt").write_text("1")
    return folder


def ran(folder: Path) -> list[str]:
    note = folder / "ran.txt"
    return note.read_text().split() if note.exists() else []


def task_states(flow_state: State) -> dict[str, str]:
    this_run = FlowRunFilter(id=FlowRunFilterId(any_=[flow_state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return {run.name: run.state_name for run in client.read_task_runs(flow_run_filter=this_run)}


@pytest.mark.slow
def test_repro_finds_nothing_to_do_after_the_flow(chain: Path):
    train(return_state=True)
    assert "up to date" in dvc("repro")
    assert ran(chain) == ["one", "two", "three"]


def test_the_flow_starts_no_task_after_repro(chain: Path):
    dvc("repro", "--quiet")
    state = train(return_state=True)
    assert state.message == "Nothing was stale."
    assert task_states(state) == {}


def test_only_stale_stages_run(chain: Path):
    dvc("repro", "--quiet")
    (chain / "ran.txt").unlink()
    (chain / "dvc.yaml").write_text((chain / "dvc.yaml").read_text().replace("cp one.txt", "cp  one.txt"))
    assert task_states(train(return_state=True)).keys() == {"two", "three"}
    # The output of two is unchanged, so DVC does not run three.
    assert ran(chain) == ["two"]


def test_independent_stages_run_in_parallel_and_gpu_stages_one_at_a_time(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("LECTERN_GPU_SLOTS", "1")
    make_project(f"""
        stages:
          meet:
            foreach: [1, 2]
            do:
              cmd: {MEET_EACH_OTHER}
              outs:
                - met-${{item}}
          train:
            foreach: [1, 2]
            do:
              cmd: mkdir busy && sleep 0.5 && rmdir busy && echo > trained-${{item}}
              outs:
                - trained-${{item}}
              meta:
                slot: gpu
    """)
    assert train(return_state=True).is_completed()


def test_two_stages_train_in_parallel_on_two_gpus(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    folder = make_project(f"""
        stages:
          train:
            foreach: [1, 2]
            do:
              cmd: {MEET_EACH_OTHER} && echo $CUDA_VISIBLE_DEVICES > met-${{item}}
              outs:
                - met-${{item}}
              meta:
                slot: gpu
    """)
    assert train(return_state=True).is_completed()
    assert {(folder / f"met-{item}").read_text().strip() for item in (1, 2)} == {"3", "5"}


def test_a_training_of_two_processes_gets_two_gpus(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    folder = make_project("""
        stages:
          train:
            foreach: [big, small]
            do:
              cmd: echo $CUDA_VISIBLE_DEVICES > seen-${item}
              outs:
                - seen-${item}
              meta:
                slot: gpu
    """)
    (folder / "params.yaml").write_text("{train: {processes: 1}, models: {big: {train: {processes: 2}}, small: {}}}")
    assert train(return_state=True).is_completed()
    seen = {item: (folder / f"seen-{item}").read_text().strip().split(",") for item in ("big", "small")}
    assert {item: len(devices) for item, devices in seen.items()} == {"big": 2, "small": 1}
    assert {*seen["big"], *seen["small"]} <= {"3", "5", "7"}


# Like the shipped graph: one stage writes a file for each model, on which its training depends.
SETTINGS_FIRST = """
    stages:
      settings:
        cmd: mkdir -p settings && echo ${a} > settings/a && echo ${b} > settings/b
        params: [a, b]
        outs: [settings]
        meta: {before_plan: true}
      train:
        foreach: [a, b]
        do:
          cmd: echo train-${item} >> ran.txt && cp settings/${item} model-${item}
          deps:
            - settings/${item}
          outs:
            - model-${item}
"""


def test_only_the_model_whose_settings_changed_is_trained_again(make_project: MakeProject):
    folder = make_project(SETTINGS_FIRST)
    (folder / "params.yaml").write_text("{a: 1, b: 1}")
    assert train(return_state=True).message == "3 stages brought up to date."
    (folder / "ran.txt").unlink()
    (folder / "params.yaml").write_text("{a: 1, b: 2}")
    state = train(return_state=True)
    assert ran(folder) == ["train-b"]
    assert task_states(state) == {"settings": "Completed", "train@b": "Completed"}
    assert "up to date" in dvc("repro")


def test_wrong_settings_stop_the_run_before_any_training(make_project: MakeProject):
    folder = make_project(SETTINGS_FIRST.replace("cmd: mkdir", "cmd: python refuse.py 2 'Nobody takes part.' && mkdir"))
    (folder / "params.yaml").write_text("{a: 1, b: 1}")
    state = train(return_state=True)
    assert state.message == "1 of 1 stages failed.\nsettings has wrong settings:\n  Nobody takes part."
    assert ran(folder) == []


def test_a_rejection_is_not_retried_and_stops_only_downstream_stages(make_project: MakeProject):
    folder = make_project("""
        stages:
          refuses:
            cmd: echo x >> attempts.txt && python refuse.py 1 "Row 7 has no title."
            outs: [refused.txt]
          after:
            cmd: cp refused.txt after.txt
            deps: [refused.txt]
            outs: [after.txt]
          beside:
            cmd: touch beside.txt
            outs: [beside.txt]
    """)
    state = train(return_state=True)
    assert state.is_failed()
    assert state.message == "1 of 3 stages failed.\nrefuses was refused:\n  Row 7 has no title."
    assert task_states(state) == {"refuses": "Failed", "after": "NotReady", "beside": "Completed"}
    assert (folder / "attempts.txt").read_text().count("x") == 1


def test_a_stage_that_crashed_is_retried(make_project: MakeProject):
    make_project("""
        stages:
          shaky:
            cmd: if [ -e before ]; then touch out.txt; else touch before; exit 137; fi
            outs: [out.txt]
    """)
    assert train(return_state=True).is_completed()


def test_a_missing_input_is_not_retried(make_project: MakeProject):
    make_project("stages: {lone: {cmd: touch out.txt, deps: [nowhere.txt], outs: [out.txt]}}")
    state = train(return_state=True)
    assert "lone lacks an input" in state.message
    assert "nowhere.txt" in state.message


def test_an_unreachable_pretrained_model_stops_the_run_before_the_first_stage(make_project: MakeProject):
    folder = make_project("""
        stages:
          prepare:
            cmd: touch prepared
            outs: [prepared]
          train:
            foreach: [one, two]
            do:
              cmd: touch model-${item}
              deps: [prepared]
    """)
    (folder / "params.yaml").write_text(
        "models: {one: {checkpoint: no/such/folder}, two: {checkpoint: 'package:no_such_package/model'}}"
    )
    state = train(return_state=True)
    assert state.is_failed()
    assert "models.one.checkpoint" in state.message
    assert "no_such_package" in state.message
    assert not (folder / "prepared").exists()


def test_a_damaged_registry_is_reported_before_the_first_stage(make_project: MakeProject):
    folder = make_project("""
        stages:
          train:
            foreach: [one]
            do:
              cmd: touch model-${item}
              outs: ['model-${item}']
    """)
    (folder / "params.yaml").write_text("models: {one: {checkpoint: 'models:/lectern@champion'}}")
    (folder / "mlflow.db").write_bytes(b"damaged" * 1000)
    state = train(return_state=True)
    assert state.is_failed()
    assert "MLflow's database" in state.message
    assert "is damaged. Restore the last backup" in state.message
    assert not (folder / "model-one").exists()


def test_an_unknown_slot_is_named(make_project: MakeProject):
    make_project("stages: {lone: {cmd: touch out.txt, outs: [out.txt], meta: {slot: tpu}}}")
    assert "there is no slot 'tpu'" in train(return_state=True).message


def test_dvc_explains_a_graph_that_it_cannot_read(make_project: MakeProject):
    make_project("stages: [")
    state = train(return_state=True)
    assert state.is_failed()
    assert "dvc.yaml" in state.message


def test_cancel_ends_the_stage_and_all_that_it_started(make_project: MakeProject):
    folder = make_project("stages: {slow: {cmd: echo $LECTERN_FLOW_RUN_ID > id && sleep 300, outs: [out.txt]}}")

    def press_cancel():
        wait_for(lambda: (folder / "id").exists() and (folder / "id").read_text().strip())
        with get_client(sync_client=True) as client:
            client.set_flow_run_state((folder / "id").read_text().strip(), Cancelled(), force=True)

    thread = threading.Thread(target=press_cancel)
    thread.start()
    state = train(return_state=True)
    thread.join()
    assert state.is_cancelled()
    assert processes_in(folder) == []


def test_a_run_can_be_cancelled_while_it_waits_for_dvc(chain: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def busy(root: Path):
        """Behave like an endless `dvc repro`; after the first call, a user presses Cancel."""
        calls.append(root)
        assert len(calls) < 3
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(runtime.flow_run.id, Cancelled(), force=True)
        raise Busy("train@t5-tiny is at work.")

    monkeypatch.setattr("flows.train.read_plan", busy)
    monkeypatch.setattr("flows.train.POLL_SECONDS", 0.1)
    assert train(return_state=True).is_cancelled()
    assert ran(chain) == []


@pytest.mark.slow
def test_a_second_run_in_the_work_tree_waits_for_the_first(chain: Path):
    (chain / ".lectern").mkdir()
    with FileLock(chain / ".lectern" / "train.lock"):
        second = subprocess.Popen([sys.executable, "-m", "lectern", "run"], stdout=subprocess.PIPE, text=True)
        assert "waiting" in second.stdout.readline()
        assert ran(chain) == []
    assert second.wait(60) == 0
    assert ran(chain) == ["one", "two", "three"]


def test_the_leaderboard_becomes_a_table_of_the_run(make_project: MakeProject):
    folder = make_project("stages: {}")
    rows = [
        {"model": "first-words", "validation": {"rouge1": 0.2}, "difference": None},
        {
            "model": "t5-tiny",
            "validation": {"rouge1": 0.123456},
            "test": {"rouge1": {"mean": 0.2, "low": 0.1234, "high": 0.3}},
            "difference": {"mean": 0.0, "low": -0.1, "high": 0.1},
        },
    ]
    (folder / "reports").mkdir()
    (folder / "reports" / "leaderboard.json").write_text(json.dumps({"rows": rows}))
    state = train(return_state=True)
    with get_client(sync_client=True) as client:
        artifacts = client.request(
            "POST",
            "/artifacts/filter",
            json={"artifacts": {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}},
        ).json()
    tables = [json.loads(artifact["data"]) for artifact in artifacts if artifact["key"] == "leaderboard"]
    assert tables == [
        [
            {"model": "first-words", "validation rouge1": 0.2, "test rouge1": None, "difference": None},
            {
                "model": "t5-tiny",
                "validation rouge1": 0.1235,
                "test rouge1": "0.200 [0.123, 0.300]",
                "difference": "0.000 [-0.100, 0.100]",
            },
        ]
    ]
