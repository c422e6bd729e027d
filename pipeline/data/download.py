"""Fetch a workbook from an address through DVC, within limits on size and time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import IO, ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import has_password
from pipeline.settings import Section

_SCHEMES = ("http", "https", "s3")
_REMOTE = "remote"  # DVC's own, for an address and its password that DVC's configuration has
_LOOK_AGAIN = 0.1  # seconds


class FetchSettings(Section):
    """Limits on a file that is fetched from an address."""

    section: ClassVar[str] = "fetch"

    megabytes: float = Field(gt=0, description="largest workbook")
    seconds: float = Field(gt=0, description="longest time for all of it, however slowly it arrives")


def is_address(source: str) -> bool:
    """True if `source` is an address and not a path on this machine."""
    return "://" in source


def file_name(url: str) -> str:
    """The name of the file at an address that may be fetched, and kept in the project.

    Raises:
        UsageError: it is of a kind that is not fetched, names no file, or holds a password.
    """
    if has_password(url):
        raise UsageError(
            f"{url} holds a password or a key, which would stay in the project for all to read. Leave it out, and let "
            "DVC have it: `dvc remote add`, `dvc remote modify --local`, and remote://NAME/PATH as the address. Or "
            "download the file, and give its path."
        )
    _require_known_scheme(url)
    name = Path(urlsplit(url).path).name
    if name in ("", ".."):
        raise UsageError(f"{url} names no file. Give the address of an .xlsx file.")
    return name


def _require_known_scheme(url: str) -> None:
    parts = urlsplit(url)
    scheme = parts.scheme
    if scheme == _REMOTE:
        remote = run_dvc(["config"], f"remote.{parts.netloc}.url", quiet=False).strip()
        if not is_address(remote):  # a folder on this machine
            return
        scheme = urlsplit(remote).scheme
    if scheme not in _SCHEMES:
        raise UsageError(
            f"{url} cannot be fetched: {scheme}:// is none of http://, https:// and s3://. Download the file, and give "
            "its path."
        )


@contextmanager
def fetched(url: str, name: str) -> Iterator[Path]:
    """Yield a copy of what is at `url`, an address or a path; it is removed after the block.

    Raises:
        Rejected: it is larger than `fetch.megabytes`.
        TemporaryFailure: DVC cannot reach or take it, or it takes longer than `fetch.seconds`.
    """
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / name
        run_dvc(["get-url"], url, str(path), limit=Limit.of(url, Path(aside)))
        yield path


@dataclass(frozen=True)
class Limit:
    """Limits on a command: its total time in seconds, and the bytes of the files in a folder.

    Attributes:
        at_most: seconds that the setting does not exceed.
    """

    url: str
    settings: FetchSettings
    folder: Path | None = None
    at_most: float = inf

    @classmethod
    def of(cls, url: str, folder: Path | None = None, *, at_most: float = inf) -> Limit | None:
        """None for a path on this machine."""
        return cls(url, FetchSettings.read(), folder, at_most) if is_address(url) else None

    def hold(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of `process`.

        Raises:
            Rejected: the files are too large.
            TemporaryFailure: it takes too long.
        """
        seconds = min(self.settings.seconds, self.at_most)
        deadline = time.monotonic() + seconds
        while True:
            ended = process.poll() is not None
            if self.folder and _size(self.folder) > self.settings.megabytes * 1_000_000:
                raise Rejected(
                    f"{self.url} sends more than {self.settings.megabytes:g} MB, so it was not taken. If it is the "
                    "right address, raise fetch.megabytes in params.yaml."
                )
            if ended:
                return
            if time.monotonic() > deadline:
                if seconds < self.settings.seconds:
                    raise TemporaryFailure(f"{self.url} did not answer DVC within {seconds:g} s. Try again later.")
                raise TemporaryFailure(
                    f"{self.url} did not arrive within {seconds:g} s. Try again later, or raise fetch.seconds in "
                    "params.yaml."
                )
            time.sleep(_LOOK_AGAIN)


def _size(folder: Path) -> int:
    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:  # DVC renames it when it is whole
            continue
    return sum(sizes)


def run_dvc(command: Sequence[str], *words: str, limit: Limit | None = None, quiet: bool = True) -> str:
    """Run a DVC command and return what it prints; none of `words` is an option, however it begins.

    Raises:
        Rejected, TemporaryFailure: it reaches its limit, and is ended.
        TemporaryFailure: it fails.
    """
    options = ["--quiet"] if quiet else []
    line = [sys.executable, "-m", "dvc", "--wait-for-lock", *command, *options, "--", *words]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            if limit:
                limit.hold(process)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        printed, said = (_read(stream) for stream in (out, err))
    if code:
        why = said.strip() or f"it ended with exit code {code}"
        raise TemporaryFailure(
            f"DVC did not take {words[0]}: {why}. See whether it is there and may be read from here; then give the "
            "same command again."
        )
    return printed


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")
