"""Files from strangers: read in a process of their own, which has so much memory and time, and may die of them."""

from __future__ import annotations

import logging
import multiprocessing
import resource
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from pathlib import Path

from pipeline.data.problems import WorkbookRejected, errors
from pipeline.errors import Rejected, UsageError
from pipeline.transcripts.reading import read_talks
from pipeline.transcripts.transcript import Talk

_BYTES = 1_000_000_000  # beyond what the process has before it reads
_SECONDS = 60
_READERS = multiprocessing.get_context("forkserver")
_READERS.set_forkserver_preload([__name__])
_log = logging.getLogger(__name__)


def get_ready() -> None:
    """Begins to load what reads files, so that the first one is not waited for."""
    forkserver.ensure_running()


def read_apart(path: Path) -> list[Talk]:
    """The talks at `path`, which messages call by its name alone.

    Raises:
        Rejected: it is no transcript, or takes more memory or time than one does.
    """
    with ProcessPoolExecutor(1, mp_context=_READERS) as reader:
        try:
            found = reader.submit(_read, path).result()
        except BrokenProcessPool:
            raise Rejected(_far_larger(path)) from None
    if isinstance(found, str):
        raise Rejected(found.replace(str(path), path.name))
    return found


def _read(path: Path) -> list[Talk] | str:
    """The talks, or why there are none: not every exception of ours can go from process to process."""
    _limit()
    try:
        return read_talks(path)
    except WorkbookRejected as error:
        first, *more = errors(error.problems)
        rest = f" And {len(more):,} more: `lectern check` lists them." if more else ""
        return f"{path.name}, {first.place}: {first.message} {first.remedy}{rest}"
    except (Rejected, UsageError) as error:
        return str(error)
    except MemoryError:
        return _far_larger(path)
    except Exception:
        _log.exception("a file was not read")
        return f"{path.name} cannot be read. Save it anew, as .vtt, .srt, .txt with times, or .xlsx."


def _far_larger(path: Path) -> str:
    return f"{path.name} is far larger inside than a talk is. Give the transcript of one talk."


def _limit() -> None:
    has = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    for what, most in ((resource.RLIMIT_AS, has + _BYTES), (resource.RLIMIT_CPU, _SECONDS), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (most, most))
