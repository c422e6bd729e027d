"""A background process on this machine, with a log and, if it is a server, a health check."""

from __future__ import annotations

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from flows.execution.child_process import Child
from pipeline.errors import UsageError
from pipeline.files import open_private
from pipeline.redaction import hide_passwords

HOST = "127.0.0.1"
STARTUP_SECONDS = 120.0
"""Seconds for a server to become healthy: a new database on a busy machine takes half a minute."""

NO_TELEMETRY = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


class ServiceDied(Exception):
    """A service did not start, or ended by itself. The message holds the last lines of its log."""


class Service:
    """A command that runs until the end of a `with` block.

    Args:
        name: name for messages.
        command: the program and its arguments.
        log: file for the output.
        health: address that answers when a server is ready.
        env: variables added to those of this process.
        private: files that the service creates are readable for this user only.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        health: str = "",
        env: Mapping[str, str] | None = None,
        private: bool = False,
    ) -> None:
        self.name = name
        self._log = log.resolve()
        self._health = health
        with open_private(log) as output:  # the output may hold an address with a password
            self._child = Child(command, env={**os.environ, **NO_TELEMETRY, **(env or {})}, log=output, private=private)

    def wait_until_healthy(self) -> None:
        """Wait until the server answers.

        Raises:
            ServiceDied: the server ended, or did not answer in time.
        """
        deadline = time.monotonic() + STARTUP_SECONDS
        while not is_healthy(self._health):
            self.check()
            if time.monotonic() > deadline:
                raise ServiceDied(f"{self.name} did not answer within {STARTUP_SECONDS:.0f} s. {self._end_of_log()}")
            time.sleep(0.1)

    def check(self) -> None:
        """Check that the service still runs.

        Raises:
            ServiceDied: it has ended.
        """
        code = self._child.exit_code
        if code is not None:
            raise ServiceDied(f"{self.name} ended with exit code {code}. {self._end_of_log()}")

    def _end_of_log(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return hide_passwords("\n  ".join([f"The end of {self._log}:", *lines]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()


def is_healthy(health: str) -> bool:
    """Return whether a server answers at the address `health` with status 200."""
    try:
        with urllib.request.urlopen(health, timeout=5) as reply:
            return reply.status == 200
    except (OSError, ValueError):
        return False


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def require_free(port: int, option: str) -> None:
    """Check that nothing listens on `port`.

    Args:
        port: the port.
        option: the option of the command line that chooses another port.

    Raises:
        UsageError: the port is taken.
    """
    with socket.socket() as probe:
        # As the servers do: a port is free although connections of its last server are still closing.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise UsageError(f"Port {port} is taken. Choose another port with {option}.") from None
