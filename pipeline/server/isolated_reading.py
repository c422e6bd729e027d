"""Read uploaded files in a separate process with limited memory and time, to protect the server from harmful files."""

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
from pipeline.transcripts.reading import read_transcripts
from pipeline.transcripts.transcript import Transcript

_MEMORY_BYTES = 1_000_000_000  # added to the memory that the process uses before it reads
_CPU_SECONDS = 60
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])
_log = logging.getLogger(__name__)


def prepare_reading() -> None:
    """Start the process that forks readers, so that the first file is read without delay."""
    forkserver.ensure_running()


def read_isolated(path: Path) -> list[Transcript]:
    """Read the transcripts at `path` in a separate process. Messages show only the file's name.

    Raises:
        Rejected: the file is not a transcript, or takes too much memory or time.
    """
    with ProcessPoolExecutor(1, mp_context=_PROCESSES) as reader:
        try:
            result = reader.submit(_read, path).result()
        except BrokenProcessPool:
            raise Rejected(_too_large(path)) from None
    if isinstance(result, str):
        raise Rejected(result.replace(str(path), path.name))
    return result


def _read(path: Path) -> list[Transcript] | str:
    """Return the transcripts, or an error message, because not every exception can be sent between processes."""
    _limit_resources()
    try:
        return read_transcripts(path)
    except WorkbookRejected as error:
        first, *more = errors(error.problems)
        rest = f" {len(more):,} more problems: run `lectern check` to list them." if more else ""
        return f"{path.name}, {first.place}: {first.message} {first.remedy}{rest}"
    except (Rejected, UsageError) as error:
        return str(error)
    except MemoryError:
        return _too_large(path)
    except Exception:
        _log.exception("an uploaded file cannot be read")
        return f"{path.name} cannot be read. Save it again as .vtt, .srt, .txt with times, or .xlsx."


def _too_large(path: Path) -> str:
    return f"{path.name} needs too much memory or time for a transcript. Give the transcript of one lesson."


def _limit_resources() -> None:
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limits = (
        (resource.RLIMIT_AS, used + _MEMORY_BYTES),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_CORE, 0),
    )
    for limited, most in limits:
        resource.setrlimit(limited, (most, most))
