import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from flows.execution.child_process import Child
from tests.command import processes_in
from tests.flows.toy_project import wait_for


def child(script: str) -> Child:
    return Child(["sh", "-c", script], env=os.environ)


def test_output_and_errors_come_line_by_line():
    with child("echo one; echo two >&2; echo three") as talker:
        assert list(talker.lines()) == ["one", "two", "three"]


def test_a_progress_bar_is_one_line():
    with child(r"printf '10%%\r50%%\r100%%\n'; echo done") as bar:
        assert list(bar.lines()) == ["100%", "done"]


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 128 + signal.SIGKILL)])
def test_the_exit_code_is_that_of_the_command(script: str, code: int):
    with child(script) as ending:
        assert ending.wait() == code


def test_the_exit_code_of_a_short_command_is_not_lost():
    for _ in range(15):
        with Child(["false"], env=os.environ) as ending:
            assert ending.wait() == 1


def test_a_missing_command_is_named():
    with Child(["no-such-command"], env=os.environ) as missing:
        assert "no-such-command cannot be started" in next(missing.lines())
        assert missing.wait() == 127


def test_stop_ends_all_that_the_command_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    family = child("sleep 300 & sleep 300")
    wait_for(lambda: len([line for line in processes_in(tmp_path) if line.startswith("sleep")]) == 2)
    family.stop()
    assert processes_in(tmp_path) == []


def test_the_command_ends_when_its_parent_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    parent = (
        "import os, flows.execution.child_process as c; "
        "c.Child(['sleep', '300'], env=os.environ); os.kill(os.getpid(), 9)"
    )
    os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", parent)
    wait_for(lambda: processes_in(tmp_path) == [])


def test_the_command_ends_when_its_keeper_is_terminated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    others = set(psutil.Process().children())  # the Prefect server's keeper may be among them
    with child("sleep 300 & sleep 300"):
        wait_for(lambda: len([line for line in processes_in(tmp_path) if line.startswith("sleep")]) == 2)
        (keeper,) = set(psutil.Process().children()) - others
        keeper.terminate()
        wait_for(lambda: processes_in(tmp_path) == [])
