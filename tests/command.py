"""The command `lectern` in processes of its own, which start within a moment.

Its libraries take seconds to import. A server that has them forks each process, which then is as if it were new: it
has its environment, working directory and streams, can be killed, and leaves nothing in the tests' own process.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

import pipeline
from pipeline.cli import main

_SECONDS = 120
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.preloaded"])


def lectern(
    *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end; in this process's environment where `env` is None."""
    with tempfile.TemporaryDirectory() as streams:
        (Path(streams) / "0").write_text(stdin, encoding="utf-8")
        process = start(*words, cwd=cwd, env=env, streams=Path(streams))
        process.join()
        out, err = ((Path(streams) / name).read_text(encoding="utf-8") for name in "12")
        return subprocess.CompletedProcess(words, process.exitcode, out, err)


def start(*words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, streams: Path) -> BaseProcess:
    """Starts the command. `streams` is a folder, whose files 0, 1 and 2 are what it reads and writes."""
    arguments = [str(word) for word in words]
    process = _FORKING.Process(target=_be_lectern, args=(arguments, cwd, dict(env or os.environ), streams))
    process.start()
    return process


def kill_once(
    happened: Callable[[], object], *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, streams: Path
) -> None:
    """Starts the command, and kills it as soon as that has happened."""
    process = start(*words, cwd=cwd, env=env, streams=streams)
    deadline = time.monotonic() + _SECONDS
    while not happened():
        assert process.is_alive(), "it was over before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()


def _be_lectern(words: list[str], cwd: Path, env: dict[str, str], streams: Path) -> None:
    (streams / "0").touch()
    for number, mode in enumerate(("r", "w", "w")):
        with (streams / str(number)).open(mode) as stream:
            os.dup2(stream.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8", closefd=False) for number, mode in enumerate(("r", "w", "w"))
    )
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    importlib.reload(pipeline)  # sets what the environment leaves open
    sys.argv = ["lectern", *words]
    main()
