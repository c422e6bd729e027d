"""Processes of `python -m MODULE` that start within a moment, because a server forks them that has the libraries.

Each is as if it were new: it has its own environment, working directory and streams, leads a process group, and can be
killed. One server serves all processes of the tests, and ends with the one that started it; `python -m tests.forking
FOLDER` is the server. In FOLDER stands a `python` too, which has it fork `QUICK` modules and else is the real one.
This file imports nothing that takes time, for that `python` imports it each time.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

FOLDER = "LECTERN_TESTS_FORKING"
"""The environment variable that says where the server listens, and where its `python` is."""

QUICK = ("lectern", "pipeline", "dvc")

_ROOT = Path(__file__).parents[1]
_SECONDS_TO_START = 120
_ROOM_FOR_WORDS = 1000


class Forked:
    """`python -m` with `words`, at work in `cwd`. `streams` are the descriptors that it reads and writes."""

    def __init__(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], streams: Sequence[int]) -> None:
        _wait_for_server()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(_socket()))
        asked = json.dumps({"words": [*words], "cwd": str(cwd), "env": dict(env)}).encode()
        socket.send_fds(self._connection, [len(asked).to_bytes(8, "big")], [*streams])
        self._connection.sendall(asked)
        self.pid = int.from_bytes(_receive(self._connection, 8), "big")
        self._code: int | None = None

    def wait(self, seconds: float | None = None) -> int:
        """How it ended, as `subprocess` says it: negative, if a signal ended it.

        Raises:
            TimeoutError: it did not end within so many seconds.
        """
        if self._code is None:
            self._connection.settimeout(seconds)
            self._code = int.from_bytes(_receive(self._connection, 8), "big", signed=True)
            self._connection.close()
        return self._code

    def is_alive(self) -> bool:
        return self._code is None and not select.select([self._connection], [], [], 0)[0]

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """To the command and to what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def start_server() -> None:
    """Starts the server, if it was not, for this process and those that it starts; it may go on importing a while."""
    if FOLDER in os.environ:
        return
    folder = tempfile.TemporaryDirectory()
    os.environ[FOLDER] = folder.name
    python = quick_python()
    python.write_text(
        f"#!{sys.executable} -S\nimport os, sys\n"
        f"if sys.argv[1:2] != ['-m'] or sys.argv[2] not in {QUICK}:\n"
        f"    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
        f"sys.path.insert(0, {str(_ROOT)!r})\nos.environ[{FOLDER!r}] = {folder.name!r}\n"
        "from tests.forking import be_forked\nbe_forked(sys.argv[2:])\n",
        encoding="utf-8",
    )
    python.chmod(0o755)
    command = [sys.executable, "-m", __name__, folder.name, " " * _ROOM_FOR_WORDS]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE)
    atexit.register(folder.cleanup)
    atexit.register(process.terminate)


def _wait_for_server() -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not _socket().exists():
        assert time.monotonic() < deadline, "the server that forks processes did not start"
        time.sleep(0.05)


def quick_python() -> Path:
    return Path(os.environ[FOLDER], "python")


def be_forked(words: Sequence[str]) -> NoReturn:
    """Stands for the forked command: is told to stop in its place, and ends as it does."""
    command = Forked(words, cwd=Path.cwd(), env=os.environ, streams=(0, 1, 2))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: command.send_signal(number))
    code = command.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _socket() -> Path:
    return Path(os.environ[FOLDER], "socket")


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        if not (more := connection.recv(size - len(received))):
            raise EOFError("the server that forks processes is gone")
        received += more
    return received


def _serve() -> list[str]:
    """Returns in each forked process what it is to run, as soon as its surroundings are those that were asked for."""
    with socket.socket(socket.AF_UNIX) as listener:
        new = _socket().with_suffix(".new")
        listener.bind(str(new))
        listener.listen()
        new.rename(_socket())
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                os._exit(0)
            connection, _ = listener.accept()
            with connection:
                if os.fork():
                    continue
                listener.close()
                return _answer(connection)


def _answer(connection: socket.socket) -> list[str]:
    """Forks the command, in which it returns; its keeper says its process number and how it ended, and exits."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, streams, _, _ = socket.recv_fds(connection, 8, 3)
    asked = json.loads(_receive(connection, int.from_bytes(header, "big")))
    python = str(quick_python())
    if command := os.fork():
        _keep(command, connection)
        os._exit(0)
    os.setpgid(0, 0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - a descriptor, for good
        for number, mode in enumerate(("r", "w", "w"))
    )
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    tempfile.tempdir = None  # the server's; the command's comes from TMPDIR
    sys.executable = python
    os.environ["PATH"] = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"  # the `python` of dvc.yaml
    _call_itself([python, "-m", *asked["words"]])
    return asked["words"]


def _call_itself(words: Sequence[str]) -> None:
    """Writes `words` where the system reads what this process was started with: who asks for it shall find them."""
    numbers = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    begin, end = int(numbers[45]), int(numbers[46])
    written = b"".join(os.fsencode(word) + b"\0" for word in words)
    ctypes.memmove(begin, written.rjust(end - begin)[begin - end :], end - begin)


def _keep(command: int, connection: socket.socket) -> None:
    """Kills the command, and what it started, if who asked for it is gone."""
    with suppress(PermissionError, ProcessLookupError):
        os.setpgid(command, command)  # both sides do, for neither knows which is first
    for number in (0, 1, 2):
        os.close(number)
    with suppress(OSError):
        connection.sendall(command.to_bytes(8, "big"))
        ended = os.pidfd_open(command)
        ready, _, _ = select.select([ended, connection], [], [])
        if ended not in ready:
            os.killpg(command, signal.SIGKILL)
        _, status = os.waitpid(command, 0)
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def _run_module(words: Sequence[str]) -> int:
    sys.argv = [*words]
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """As the interpreter ends, but for the seconds that it takes to let go of all the modules."""
    threading._shutdown()
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    import pipeline

    os.environ[FOLDER] = sys.argv[1]
    importlib.import_module("tests.preloaded")
    gc.freeze()  # or the collector's marks would copy all of it into each process
    words = _serve()
    importlib.reload(pipeline)  # sets what the environment leaves open
    sys.path[0] = ""
    _end(_run_module(words))
