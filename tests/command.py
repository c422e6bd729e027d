"""Run the command `lectern` and other modules in forked processes, which start at once."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psutil

from tests.forking import Forked

_SECONDS = 120


def lectern(
    *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. `env` defaults to the environment of this process."""
    return run_module("lectern", *words, cwd=cwd, env=env, stdin=stdin)


def lectern_here(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in this process, where a test may have replaced something."""
    from lectern.app import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    argv, sys.argv = sys.argv, ["lectern", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = argv
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def run_module(
    *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with arguments to its end. `env` defaults to the environment of this process."""
    with tempfile.TemporaryDirectory() as streams:
        (Path(streams) / "0").write_text(stdin, encoding="utf-8")
        code = _start(words, cwd=cwd, env=env, streams=Path(streams)).wait()
        out, err = ((Path(streams) / name).read_text(encoding="utf-8") for name in "12")
        return subprocess.CompletedProcess(words, code, out, err)


def start(*words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, streams: Path) -> Forked:
    """Start `lectern`. The files 0, 1 and 2 in the folder `streams` are its standard streams."""
    return _start(("lectern", *words), cwd=cwd, env=env, streams=streams)


def kill_once(
    happened: Callable[[], object],
    *words: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    streams: Path,
    by: signal.Signals = signal.SIGKILL,
) -> int:
    """Start `lectern`, kill it as soon as `happened` returns true, and return its exit code."""
    process = start(*words, cwd=cwd, env=env, streams=streams)
    deadline = time.monotonic() + _SECONDS
    while not happened():
        assert process.is_alive(), "The command ended before it could be killed."
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(by)
    return process.wait()


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of all processes with a working directory in `folder`, except this one."""
    others = (process.info for process in psutil.process_iter(["pid", "cwd", "cmdline", "status"]))
    return [
        " ".join(info["cmdline"] or [])
        for info in others
        if info["pid"] != os.getpid()
        and info["cwd"]
        and info["status"] != psutil.STATUS_ZOMBIE
        and Path(info["cwd"]).is_relative_to(folder)
    ]


def _start(words: tuple[str | Path, ...], *, cwd: Path, env: Mapping[str, str] | None, streams: Path) -> Forked:
    (streams / "0").touch()
    with (streams / "0").open() as given, (streams / "1").open("w") as out, (streams / "2").open("w") as err:
        files = [file.fileno() for file in (given, out, err)]
        return Forked([*map(str, words)], cwd=cwd, env=dict(env or os.environ), streams=files)
