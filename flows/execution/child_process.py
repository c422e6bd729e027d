"""Child processes that never outlive this process, nor do the processes that they start.

A keeper is between this process and the command: this file, run as a script. The keeper reads a pipe whose other end
only this process holds. When this process closes the pipe or dies, even by SIGKILL, the keeper ends the command's whole
process group.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

GRACE_SECONDS = 10.0
"""Seconds between SIGTERM and SIGKILL."""

PR_SET_CHILD_SUBREAPER = 36

_ending = threading.Lock()  # never released: a second SIGTERM would disturb a process that cleans up after the first


class Child:
    """A running command in a session of its own. Its standard error is part of its output.

    Args:
        command: the program and its arguments.
        env: all its environment variables.
        cwd: its working directory; by default that of this process.
        log: a file for the output; by default, read it with `lines`.
        private: let only this user read the files that the command creates.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        log: IO[bytes] | None = None,
        private: bool = False,
    ) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-S", __file__, *command],
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=log or subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077 if private else -1,
        )

    def lines(self) -> Iterator[str]:
        """Yield each line of output; of a progress bar, which redraws its line, only the last state."""
        for line in self._keeper.stdout or ():
            yield line.decode("utf-8", errors="replace").rstrip().rpartition("\r")[2]

    @property
    def exit_code(self) -> int | None:
        """The exit code: None while it runs, 128 + N if signal N ended it."""
        return self._keeper.poll()

    def wait(self) -> int:
        """Wait until the command ends; return its exit code."""
        return self._keeper.wait()

    def end(self) -> None:
        """Tell the keeper to end the command and all that it started; do not wait."""
        with suppress(OSError):
            if self._keeper.stdin:
                self._keeper.stdin.close()

    def stop(self) -> None:
        """End the command and all that it started, and wait. A second call does nothing."""
        self.end()
        self._keeper.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._keeper.stdout:
            self._keeper.stdout.close()


def keep(command: Sequence[str]) -> int:
    """Run `command` until it or our standard input ends, then end what it started; return a shell's exit code."""
    _adopt_orphans()
    try:
        # Kept in a variable: a discarded Popen collects the exit code itself, and it can be collected only once.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error}", file=sys.stderr)
        return 127
    group = process.pid
    threading.Thread(target=_end_with_input, args=(group,), daemon=True).start()
    # A signal to the keeper is meant for the command.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=_end, args=(group,), daemon=True).start())
    code = 0
    with suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-group, 0)
            if ended == group:
                code = os.waitstatus_to_exitcode(status)
                threading.Thread(target=_end, args=(group,), daemon=True).start()
    _signal(group, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _adopt_orphans() -> None:
    """Become the parent of orphaned grandchildren, to be able to wait for them. Only Linux can do this."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _end_with_input(group: int) -> None:
    os.read(0, 1)
    _end(group)


def _end(group: int) -> None:
    if not _ending.acquire(blocking=False):
        return
    _signal(group, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    raise SystemExit(keep(sys.argv[1:]))
