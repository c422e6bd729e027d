"""DVC's command line, for everything that its Python API does not do in one call."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import IO

from pipeline.errors import TemporaryFailure

Process = subprocess.Popen[bytes]


def dvc_command(*words: str) -> list[str]:
    """Return the command that runs DVC with `words` and waits while another DVC process holds the project's lock."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *words]


def run_dvc(
    command: Sequence[str], *arguments: str, watch: Callable[[Process], None] | None = None, quiet: bool = True
) -> str:
    """Run a DVC command and return its output.

    Args:
        command: the subcommand and its options.
        arguments: paths and addresses. None of them is read as an option, whatever it begins with.
        watch: called with the running process. The process ends if `watch` raises an error.
        quiet: pass `--quiet` to DVC.

    Raises:
        TemporaryFailure: DVC fails. The errors of `watch` pass through.
    """
    options = ["--quiet"] if quiet else []
    line = dvc_command(*command, *options, "--", *arguments)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            if watch:
                watch(process)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        printed, messages = (_read(stream) for stream in (out, err))
    if code:
        why = messages.strip() or f"exit code {code}"
        raise TemporaryFailure(
            f"DVC cannot read {arguments[0]}: {why}. Check that it exists and can be read from this machine, then run "
            "the same command again."
        )
    return printed


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")
