"""Writing that never leaves half a file: aside first, then moved into place."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock


@contextmanager
def file_aside(target: Path) -> Iterator[Path]:
    """Yields a path beside `target` to write to; it becomes `target` if the block ends well, and is gone if not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as aside:
        path = Path(aside) / target.name
        yield path
        path.replace(target)


@contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; it replaces `target` if the block ends well, and is gone if not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as aside:
        path = Path(aside) / target.name
        path.mkdir()
        yield path
        if target.exists():
            shutil.rmtree(target)
        path.replace(target)


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, which `make` fills where it is not there yet: of several processes one does, and the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with folder_aside(folder) as aside:
                make(aside)
    return folder


def write_text(target: Path, text: str) -> None:
    """`text` as UTF-8, all of it or nothing."""
    with file_aside(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: Path, content: Any) -> None:
    """`content` as indented JSON with a last newline, all of it or nothing."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
