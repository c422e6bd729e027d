"""Makes a workbook the pipeline's input: a file, a folder of tables, or a URL that DVC can read."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from pipeline.addresses import has_password
from pipeline.data.join import Joined, join
from pipeline.data.tables import table_files
from pipeline.data.workbook import ingest
from pipeline.errors import Misused, Unavailable
from pipeline.files import folder_aside
from pipeline.paths import WORKBOOKS
from pipeline.settings import set_params

JOINED = WORKBOOKS / "joined"
ASKED = WORKBOOKS / "asked"
"""Of one run alone: there it replaces no workbook of its name that the project keeps."""


def adopt(source: str) -> Path:
    """Brings in the workbook and names it in `params.yaml`; returns its place in the project.

    Raises:
        WorkbookRefused, Misused, Unavailable: as `bring_in` says; nothing is changed.
    """
    workbook = bring_in(source)
    set_params(["ingest"], {"workbook": workbook.as_posix()})
    return workbook


def adopt_all(sources: Sequence[str]) -> tuple[Path, Joined]:
    """As `adopt`, of several workbooks on this machine: one is made of them, in which a later one counts for more.

    Raises:
        WorkbookRefused, Unavailable: as `bring_in` says.
        Misused: one of them is a URL, or there is nothing at its path.
    """
    if urls := [source for source in sources if "://" in source]:
        raise Misused(f"{urls[0]} is a URL, and only workbooks on this machine can be joined. Fetch it first.")
    joined = join([Path(source).resolve() for source in sources], JOINED)
    _dvc(["add"], str(JOINED))
    set_params(["ingest"], {"workbook": JOINED.as_posix()})
    return JOINED, joined


def bring_in(source: str, folder: Path = WORKBOOKS) -> Path:
    """Copies the workbook into the project, into `folder`, and puts it under DVC; returns its place there.

    Of a file and of a URL, DVC remembers where it came from, and can fetch it again.

    Raises:
        WorkbookRefused: it is broken; nothing is changed.
        Misused: the URL names no file, or holds a password.
        Unavailable: DVC cannot reach or take it.
    """
    if "://" in source:
        return _from_url(source, folder)
    path = Path(source).resolve()
    ingest(path)
    target = folder / path.name
    if path == target.resolve():
        _dvc(["add"], str(target))
    elif path.is_dir():
        _copy_tables(path, target)
        _dvc(["add"], str(target))
    else:
        _import(str(path), target)
    return target


def import_file(workbook: Path) -> Path | None:
    """The `.dvc` file that says where `workbook` came from; None where nothing does."""
    path = workbook.with_name(f"{workbook.name}.dvc")
    return path if path.is_file() and "deps" in yaml.safe_load(path.read_text(encoding="utf-8")) else None


@contextmanager
def as_it_is_now(workbook: Path) -> Iterator[Path]:
    """Yields a copy of what `workbook` is now where it came from; it is gone after the block.

    Raises:
        Unavailable: DVC cannot reach or take it.
    """
    imported = import_file(workbook)
    (source,) = yaml.safe_load(imported.read_text(encoding="utf-8"))["deps"]
    # A path within the project stands there as it is seen from the .dvc file.
    url = source["path"] if "://" in source["path"] else str(imported.parent / source["path"])
    with _fetched(url, workbook.name) as path:
        yield path


def replace_by_new(workbook: Path) -> None:
    """Takes `workbook` again from where it came.

    Raises:
        Unavailable: DVC cannot reach or take it.
    """
    _dvc(["update"], str(import_file(workbook)))


def _from_url(url: str, folder: Path) -> Path:
    name = Path(urlsplit(url).path).name
    if not name:
        raise Misused(f"{url} names no file. Give the address of an .xlsx file.")
    if has_password(url):
        raise Misused(
            f"{url} holds a password, which would stay in the project for all to read. Leave it out, and let DVC have "
            "it: `dvc remote add`, `dvc remote modify --local`, and remote://NAME/PATH as the address."
        )
    with _fetched(url, name) as path:
        ingest(path)
    _import(url, folder / name)
    return folder / name


@contextmanager
def _fetched(url: str, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / name
        _dvc(["get-url"], url, str(path))
        yield path


def _copy_tables(source: Path, target: Path) -> None:
    with folder_aside(target) as path:
        for table in table_files(source):
            shutil.copyfile(table, path / table.name)


def _import(source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _dvc(["import-url", "--force"], source, str(target))


def _dvc(command: list[str], *words: str) -> None:
    """Runs it; none of `words` is an option, however it begins."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", *command, "--quiet", "--", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(
            f"DVC did not take {words[0]}: {done.stderr.strip()}. See whether it is there and may be read from here; "
            "then give the same command again."
        )
