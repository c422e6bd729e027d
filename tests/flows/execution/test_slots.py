import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
import yaml
from prefect import get_client

from flows.execution.run_processes import RunProcesses
from flows.execution.slots import GPU, Slots, devices
from pipeline.errors import UsageError
from tests.flows.toy_project import PrefectServer, wait_for

ROOT = Path(__file__).parents[3]

HOLD = """
import threading
from flows.execution.slots import Slots
with Slots(["0"], threading.Event()).take():
    print("held", flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("visible", "slots", "expected"),
    [
        ("0", None, ["0"]),
        ("3, 5", None, ["3", "5"]),
        ("3,-1,5", None, ["3"]),
        ("3,5", "1", ["3"]),
        ("0", "2", ["0", "0"]),
        ("", "2", ["", ""]),
    ],
)
def test_each_device_has_a_slot_unless_the_environment_sets_the_number(
    monkeypatch: pytest.MonkeyPatch, visible: str, slots: str | None, expected: list[str]
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if slots:
        monkeypatch.setenv("LECTERN_GPU_SLOTS", slots)
    assert devices() == expected


@pytest.mark.parametrize(("cores", "gib", "slots"), [(1, 64, 1), (2, 8, 1), (2, 16, 2), (64, 512, 2)])
def test_a_cpu_with_two_cores_and_enough_memory_has_two_slots(
    monkeypatch: pytest.MonkeyPatch, cores: int, gib: int, slots: int
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=gib << 30))
    assert devices() == [""] * slots


@pytest.mark.parametrize(("given", "threads"), [(None, "4"), ("7", "7")])
def test_stages_that_share_the_cpu_share_its_cores(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch, given: str | None, threads: str
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("LECTERN_GPU_SLOTS", "2")
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    show = [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"]
    processes = RunProcesses()
    processes.declare_slots()
    with processes.run(show, {"OMP_NUM_THREADS": given} if given else {}, slot=GPU) as child:
        assert list(child.lines()) == [threads]


@pytest.mark.parametrize("slots", ["0", "-1", "many", ""])
def test_a_wrong_number_of_slots_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, slots: str):
    monkeypatch.setenv("LECTERN_GPU_SLOTS", slots)
    with pytest.raises(UsageError, match="LECTERN_GPU_SLOTS"):
        devices()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [(["0", "1"], 1, "0"), (["3", "5", "7"], 2, "3,5"), (["0", "0", "1", "1"], 2, "0,1"), ([""], 4, "")],
)
def test_a_stage_of_several_processes_gets_a_device_for_each(
    prefect_server: PrefectServer, found: list[str], wanted: int, expected: str
):
    slots = Slots(found, Event())
    slots.declare()
    for _ in range(3):  # returned slots can be taken again
        with slots.take(wanted) as visible:
            assert len({*visible.split(",")}) == len(expected.split(","))
    with Slots(found, Event()).take(wanted) as visible:
        assert visible == expected


def test_flow_runs_on_one_machine_get_different_devices(prefect_server: PrefectServer):
    found = ["0", "1", "2"]
    Slots(found, Event()).declare()
    with Slots(found, Event()).take() as first, Slots(found, Event()).take(2) as others:
        assert sorted([first, *others.split(",")]) == found
    with Slots(found, Event()).take(3) as all_of_them:
        assert all_of_them == "0,1,2"


def test_more_processes_than_devices_are_refused(prefect_server: PrefectServer):
    with pytest.raises(UsageError, match="processes is 3, and there are 2 devices"), Slots(["0", "1"], Event()).take(3):
        pass


def test_the_most_urgent_stage_gets_the_next_slot(prefect_server: PrefectServer):
    slots, order = Slots([""], Event()), []
    slots.declare()

    def run(urgency: int) -> None:
        with slots.take(urgency=urgency):
            order.append(urgency)

    with ThreadPoolExecutor() as pool, slots.take():
        for urgency in (1, 3, 2):
            pool.submit(run, urgency)
        time.sleep(0.5)
    assert order == [3, 2, 1]


def limits() -> set[str]:
    """The names of all limits of the Prefect server."""
    with get_client(sync_client=True) as client:
        return {limit.name for limit in client.read_global_concurrency_limits(limit=200, offset=0)}


@pytest.mark.parametrize(
    ("pool", "kept"), [("docker", {"gpu-lectern-docker-0", "gpu-lectern-docker-1"}), ("kubernetes", set())]
)
def test_containers_leave_no_limits_of_their_own_in_prefect(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch, pool: str, kept: set[str]
):
    definitions = yaml.safe_load((ROOT / "prefect.yaml").read_text())["definitions"]
    before = limits()
    monkeypatch.setenv("LECTERN_GPU_LIMIT", definitions[pool]["work_pool"]["job_variables"]["env"]["LECTERN_GPU_LIMIT"])
    for container in ("3f2a", "9b1c"):
        monkeypatch.setattr("platform.node", lambda name=container: name)
        slots = Slots(["0", "1"], Event())
        slots.declare()
        with slots.take() as visible:
            assert visible in ("0", "1")
    assert limits() - before == kept


def held(limit: str) -> int:
    """The number of slots that are taken, by Prefect."""
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(limit).active_slots


@pytest.mark.hard
def test_the_slot_of_a_process_that_was_killed_is_free_within_seventy_seconds(
    prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LECTERN_GPU_LIMIT", "killed")
    Slots(["0"], Event()).declare()
    with subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert held("killed-0") == 1
        holder.kill()
    wait_for(lambda: not held("killed-0"), seconds=70)
