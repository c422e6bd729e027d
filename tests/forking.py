"""Processes of `python -m MODULE` that start at once, because they are forks of a server that has the libraries loaded.

Each behaves like a new process: it has its own environment, working directory and streams, leads a process group, and
can be killed. One server serves all processes of a test run, and ends with the process that started it. `python -m
tests.forking FOLDER` is the server. FOLDER also contains a `python`, which asks the server for modules in `FORKED` and
is the real interpreter otherwise. That `python` imports this file each time, so this file imports nothing slow.
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
"""The environment variable with the folder of the server's socket and of its `python`."""

FORKED = ("lectern", "pipeline", "dvc")

_ROOT = Path(__file__).parents[1]
_SECONDS_TO_START = 120
_SPACE_FOR_ARGUMENTS = 1000


class Forked:
    """A running `python -m` with arguments.

    Args:
        arguments: the module and its arguments.
        cwd: the working directory.
        env: all environment variables.
        streams: the descriptors for standard input, output and errors.
    """

    def __init__(self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], streams: Sequence[int]) -> None:
        _wait_for_server()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(_socket()))
        request = json.dumps({"arguments": [*arguments], "cwd": str(cwd), "env": dict(env)}).encode()
        socket.send_fds(self._connection, [len(request).to_bytes(8, "big")], [*streams])
        self._connection.sendall(request)
        self.pid = int.from_bytes(_receive(self._connection, 8), "big")
        self._code: int | None = None

    def wait(self, seconds: float | None = None) -> int:
        """Return the exit code, negative if a signal ended the process.

        Raises:
            TimeoutError: the process is still running after so many seconds.
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
        """Send a signal to the command and to the processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def start_server() -> None:
    """Start the server for this process and its children, unless it runs. It imports when the first request comes."""
    if FOLDER in os.environ:
        return
    folder = tempfile.TemporaryDirectory()
    os.environ[FOLDER] = folder.name
    python = quick_python()
    python.write_text(
        f"#!{sys.executable} -S\nimport os, sys\n"
        f"if sys.argv[1:2] != ['-m'] or sys.argv[2] not in {FORKED}:\n"
        f"    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
        f"sys.path.insert(0, {str(_ROOT)!r})\nos.environ[{FOLDER!r}] = {folder.name!r}\n"
        "from tests.forking import run_forked\nrun_forked(sys.argv[2:])\n",
        encoding="utf-8",
    )
    python.chmod(0o755)
    command = [sys.executable, "-m", __name__, folder.name, " " * _SPACE_FOR_ARGUMENTS]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE)
    atexit.register(folder.cleanup)
    atexit.register(process.terminate)


def _wait_for_server() -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not _socket().exists():
        assert time.monotonic() < deadline, "The fork server did not start."
        time.sleep(0.05)


def quick_python() -> Path:
    """Return the path of the `python` that asks the server for modules in `FORKED`."""
    return Path(os.environ[FOLDER], "python")


def run_forked(arguments: Sequence[str]) -> NoReturn:
    """Run a module in a forked process, pass on signals to it, and end as it ends."""
    command = Forked(arguments, cwd=Path.cwd(), env=os.environ, streams=(0, 1, 2))
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
            raise EOFError("The fork server ended.")
        received += more
    return received


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    new = _socket().with_suffix(".new")
    listener.bind(str(new))
    listener.listen()
    new.rename(_socket())
    return listener


def _wait_for_request(listener: socket.socket) -> None:
    ready, _, _ = select.select([listener, sys.stdin], [], [])
    if sys.stdin in ready:
        os._exit(0)  # the process that started the server ended


def _serve(listener: socket.socket) -> list[str]:
    """Fork a process for each request, and return in each of them the arguments to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        _wait_for_request(listener)
        connection, _ = listener.accept()
        with connection:
            if os.fork():
                continue
            listener.close()
            return _answer(connection)


def _answer(connection: socket.socket) -> list[str]:
    """Fork the command and return in it. This process reports its process number and exit code, and ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = json.loads(_receive(connection, int.from_bytes(header, "big")))
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
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    tempfile.tempdir = None  # a forked process would keep the server's temporary folder
    sys.executable = python
    os.environ["PATH"] = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"  # the `python` of dvc.yaml
    _set_command_line([python, "-m", *request["arguments"]])
    return request["arguments"]


def _set_command_line(arguments: Sequence[str]) -> None:
    """Write arguments where the system reads the command line of this process, for tests that look for it."""
    numbers = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    begin, end = int(numbers[45]), int(numbers[46])
    written = b"".join(os.fsencode(word) + b"\0" for word in arguments)
    ctypes.memmove(begin, written.rjust(end - begin)[begin - end :], end - begin)


def _keep(command: int, connection: socket.socket) -> None:
    """Report how the command ends. Kill it, and what it started, if the process that asked for it ends first."""
    with suppress(PermissionError, ProcessLookupError):
        os.setpgid(command, command)  # the command does the same, because either process may come first
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


def _run_module(arguments: Sequence[str]) -> int:
    sys.argv = [*arguments]
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
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
    """End as the interpreter does, without the seconds that it needs to release all modules."""
    threading._shutdown()
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    os.environ[FOLDER] = sys.argv[1]
    listener = _listen()
    _wait_for_request(listener)
    import pipeline
    from tests import preloaded

    preloaded.forget_environment_readers()
    gc.collect()
    gc.freeze()  # otherwise the collector's marks would copy all objects into each process
    arguments = _serve(listener)
    importlib.reload(pipeline)  # sets environment variables that the request left out
    if arguments[0] == "lectern":
        preloaded.read_environment()
    sys.path[0] = ""
    _end(_run_module(arguments))
