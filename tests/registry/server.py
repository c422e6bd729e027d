"""A tracking server to be started, and taken away."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from flows.services.service import free_port

DEADLINE = 120


class TrackingServer:
    """MLflow's own, on one database and one port, as often as it is started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self._folder}/served.db"]
        words += ["--artifacts-destination", str(self._folder / "served")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], cwd=self._folder, env=environment, start_new_session=True
        )
        deadline = time.monotonic() + DEADLINE
        while not self._is_well():
            assert self._process.poll() is None, "the tracking server ended"
            assert time.monotonic() < deadline, "the tracking server did not start"
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        self._process = None

    def _is_well(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:
                return reply.status == 200
        except OSError:
            return False
