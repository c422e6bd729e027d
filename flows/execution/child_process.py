"""A child process that never outlives us, nor do the processes that it starts.

Between us and the command stands a keeper: this file, run as a script. It waits on a pipe whose other end only we hold.
When we close that end, or die, even by SIGKILL, it ends the command's whole process group.
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

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""

PR_SET_CHILD_SUBREAPER = 36

_ending = threading.Lock()  # taken once and for all: a second SIGTERM would disturb who is cleaning up after the first


class Child:
    """`command`, running in a session of its own, its standard error among its output.

    It works in `cwd`, or where we do.
    Without `log` the output is there to be read from `lines`; with it, it goes to that file.
    With `private`, only this user may read the files that it makes.
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
        """Each line of output, as it is written; of a progress bar, which redraws its line, how it ended."""
        for line in self._keeper.stdout or ():
            yield line.decode("utf-8", errors="replace").rstrip().rpartition("\r")[2]

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + N if signal N ended it."""
        return self._keeper.poll()

    def wait(self) -> int:
        return self._keeper.wait()

    def let_go(self) -> None:
        """Tells the keeper to end the command and all that it started, and does not wait for it."""
        with suppress(OSError):
            self._keeper.stdin.close()

    def stop(self) -> None:
        """Ends the command and all that it started. Twice is no harm."""
        self.let_go()
        self._keeper.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._keeper.stdout:
            self._keeper.stdout.close()


def keep(command: Sequence[str]) -> int:
    """Runs `command` until it ends or our standard input does, and what it started too. Returns a shell's exit code."""
    _adopt_orphans()
    try:
        # Held on to until the end: one that is let go asks how its process ended, and the answer is given only once.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error}", file=sys.stderr)
        return 127
    group = process.pid
    threading.Thread(target=_end_when_let_go, args=(group,), daemon=True).start()
    # Whoever ends the keeper alone means what it keeps.
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
    """Where Linux allows it: else we could not wait for those whose parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _end_when_let_go(group: int) -> None:
    os.read(0, 1)
    _end(group)


def _end(group: int) -> None:
    if not _ending.acquire(blocking=False):
        return
    _signal(group, signal.SIGTERM)
    time.sleep(GRACE)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    raise SystemExit(keep(sys.argv[1:]))
