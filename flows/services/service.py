"""A server that we start on this machine: its log, its health, its end."""

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
PATIENCE = 120.0
"""Seconds that a server may take to become healthy: a fresh database on a busy machine needs half a minute."""

QUIET = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


class ServiceDied(Exception):
    """A server did not start, or ended by itself. The message holds the last lines of its log."""


class Service:
    """`command` as a child, its output in `log`. It answers at the address `health` when it is ready, if it has one.

    With `private`, only this user may read the files that it makes.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        health: str | None = None,
        env: Mapping[str, str] | None = None,
        private: bool = False,
    ) -> None:
        self.name = name
        self._log = log.resolve()
        self._health = health
        with open_private(log) as output:  # what a server says may hold an address with a password
            self._child = Child(command, env=os.environ | QUIET | (env or {}), log=output, private=private)

    def wait_until_healthy(self) -> None:
        """Returns once the server answers.

        Raises:
            ServiceDied: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + PATIENCE
        while not answers(self._health):
            self.check()
            if time.monotonic() > deadline:
                raise ServiceDied(f"{self.name} did not answer within {PATIENCE:.0f} s. {self._last_words()}")
            time.sleep(0.1)

    def check(self) -> None:
        """
        Raises:
            ServiceDied: the server has ended.
        """
        code = self._child.exit_code
        if code is not None:
            raise ServiceDied(f"{self.name} ended with exit code {code}. {self._last_words()}")

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return hide_passwords("\n  ".join([f"The end of {self._log}:", *lines]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()


def answers(health: str) -> bool:
    """Whether a server says at the address `health` that it is well."""
    try:
        with urllib.request.urlopen(health, timeout=5) as reply:
            return reply.status == 200
    except (OSError, ValueError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def require_free(port: int, option: str) -> None:
    """
    Raises:
        UsageError: something listens on `port` already; the message names the `option` that chooses another one.
    """
    with socket.socket() as probe:
        # As the servers do: a port whose last user is gone is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise UsageError(f"Port {port} is taken. Choose another one with {option}.") from None
