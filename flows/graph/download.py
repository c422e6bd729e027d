"""Download a workbook through DVC, within limits on size and time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field

from flows.graph.command_line import Process, run_dvc
from pipeline.errors import Rejected, TemporaryFailure, UsageError
from pipeline.redaction import has_password
from pipeline.settings import Section

_SCHEMES = ("http", "https", "s3")
_REMOTE = "remote"  # DVC's own scheme: its configuration holds the address and the password
_POLL_SECONDS = 0.1


class FetchSettings(Section):
    """Limits on a downloaded file."""

    section: ClassVar[str] = "fetch"

    megabytes: float = Field(gt=0, description="largest workbook")
    seconds: float = Field(gt=0, description="longest time for all of it, however slowly it arrives")


def is_address(source: str) -> bool:
    """Return whether `source` is an address, and not a path on this machine."""
    return "://" in source


def file_name(url: str) -> str:
    """Return the name of the file at an address that Lectern may download and keep in the project.

    Raises:
        UsageError: the scheme is not supported, or the address names no file or holds a password.
    """
    if has_password(url):
        raise UsageError(
            f"{url} holds a password or a key, which would be saved in the project where others can read it. Remove it "
            "from the address and give it to DVC: `dvc remote add`, `dvc remote modify --local`, then use "
            "remote://NAME/PATH. Or download the file and give its path."
        )
    _require_supported_scheme(url)
    name = Path(urlsplit(url).path).name
    if name in ("", ".."):
        raise UsageError(f"{url} names no file. Give the address of an .xlsx file.")
    return name


def _require_supported_scheme(url: str) -> None:
    parts = urlsplit(url)
    scheme = parts.scheme
    if scheme == _REMOTE:
        remote = run_dvc(["config"], f"remote.{parts.netloc}.url", quiet=False).strip()
        if not is_address(remote):  # a folder on this machine
            return
        scheme = urlsplit(remote).scheme
    if scheme not in _SCHEMES:
        raise UsageError(
            f"{url} cannot be downloaded: {scheme}:// is not supported. Use http://, https:// or s3://, or download "
            "the file and give its path."
        )


@contextmanager
def downloaded(url: str, name: str) -> Iterator[Path]:
    """Yield a copy of the file at `url`, an address or a path; remove the copy after the block.

    Raises:
        Rejected: the file is larger than `fetch.megabytes`.
        TemporaryFailure: DVC cannot read the file, or the download takes longer than `fetch.seconds`.
    """
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / name
        limit = DownloadLimit.of(url, Path(aside))
        run_dvc(["get-url"], url, str(path), watch=limit.watch if limit else None)
        yield path


@dataclass(frozen=True)
class DownloadLimit:
    """Limits on a DVC command that reads from an address.

    Attributes:
        url: the address, for messages.
        settings: the limits of params.yaml.
        folder: the folder whose size is limited, if any.
        at_most: a limit in seconds below that of the settings.
    """

    url: str
    settings: FetchSettings
    folder: Path | None = None
    at_most: float = inf

    @classmethod
    def of(cls, url: str, folder: Path | None = None, *, at_most: float = inf) -> DownloadLimit | None:
        """Return the limits for an address, or None for a path on this machine."""
        return cls(url, FetchSettings.read(), folder, at_most) if is_address(url) else None

    def watch(self, process: Process) -> None:
        """Wait until `process` ends.

        Raises:
            Rejected: the files are too large.
            TemporaryFailure: the process takes too long.
        """
        seconds = min(self.settings.seconds, self.at_most)
        deadline = time.monotonic() + seconds
        while True:
            has_ended = process.poll() is not None
            if self.folder and _size(self.folder) > self.settings.megabytes * 1_000_000:
                raise Rejected(
                    f"{self.url} sends more than {self.settings.megabytes:g} MB, so the download was stopped. If the "
                    "address is right, raise fetch.megabytes in params.yaml."
                )
            if has_ended:
                return
            if time.monotonic() > deadline:
                if seconds < self.settings.seconds:
                    raise TemporaryFailure(f"{self.url} did not answer DVC within {seconds:g} s. Try again later.")
                raise TemporaryFailure(
                    f"{self.url} did not arrive within {seconds:g} s. Try again later, or raise fetch.seconds in "
                    "params.yaml."
                )
            time.sleep(_POLL_SECONDS)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # DVC renames a file once it is complete
            total += path.stat().st_size
    return total
