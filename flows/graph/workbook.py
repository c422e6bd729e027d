"""Make a workbook the pipeline's input: a file, a folder of tables, or an address that DVC can read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from pipeline.data.combine_workbooks import Combined, combine_workbooks
from pipeline.data.download import Limit, fetched, file_name, is_address, run_dvc
from pipeline.data.folder_reader import table_files
from pipeline.data.workbook import ingest
from pipeline.errors import UsageError
from pipeline.files import file_aside, folder_aside
from pipeline.paths import WORKBOOKS
from pipeline.settings import set_params

JOINED = WORKBOOKS / "joined"
ASKED = WORKBOOKS / "asked"
"""Of one run alone: there it replaces no workbook of its name that the project keeps."""

_COMMIT_SECONDS = 30.0  # a server that does not answer shall not keep others from the project


def adopt(source: str) -> Path:
    """Bring in the workbook and name it in `params.yaml`; return its place in the project.

    Raises:
        WorkbookRejected, Rejected, UsageError, TemporaryFailure: as `bring_in` says; nothing is changed.
    """
    workbook = bring_in(source)
    set_params(["ingest"], {"workbook": workbook.as_posix()})
    return workbook


def adopt_all(sources: Sequence[str]) -> tuple[Path, Combined]:
    """As `adopt`, of several workbooks on this machine: one is made of them, in which a later one counts for more.

    Raises:
        WorkbookRejected, TemporaryFailure: as `bring_in` says.
        UsageError: one of them is a URL, or there is nothing at its path.
    """
    if urls := [source for source in sources if is_address(source)]:
        raise UsageError(f"{urls[0]} is a URL, and only workbooks on this machine can be joined. Fetch it first.")
    joined = combine_workbooks([Path(source).resolve() for source in sources], JOINED)
    run_dvc(["add"], str(JOINED))
    set_params(["ingest"], {"workbook": JOINED.as_posix()})
    return JOINED, joined


def bring_in(source: str, folder: Path = WORKBOOKS) -> Path:
    """Copy the workbook into the project, into `folder`, and put it under DVC; return its place there.

    DVC remembers where a file or an address was, and can fetch it again.

    Raises:
        WorkbookRejected: it is broken; nothing is changed.
        Rejected: it is larger than `fetch.megabytes`.
        UsageError: the address is of a kind that is not fetched, names no file, or holds a password.
        TemporaryFailure: DVC cannot reach or take it, or it takes longer than `fetch.seconds`.
    """
    if is_address(source):
        target = folder / file_name(source)
        with fetched(source, target.name) as new:
            ingest(new)
            _take(new, target, source)
        return target
    path = Path(source).resolve()
    ingest(path)
    target = folder / path.name
    if path == target.resolve():
        run_dvc(["add"], str(target))
    elif path.is_dir():
        _copy(path, target)
        run_dvc(["add"], str(target))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        run_dvc(["import-url", "--force"], str(path), str(target))
    return target


def import_file(workbook: Path) -> Path | None:
    """The `.dvc` file that says where `workbook` came from; None where nothing does."""
    path = _dvc_file(workbook)
    return path if path.is_file() and "deps" in yaml.safe_load(path.read_text(encoding="utf-8")) else None


@contextmanager
def as_it_is_now(workbook: Path) -> Iterator[Path]:
    """Yield a copy of what `workbook` is now where it came from; it is removed after the block.

    Raises:
        UsageError: it came from an address of a kind that is not fetched, or with a password.
        Rejected: it is larger than `fetch.megabytes`.
        TemporaryFailure: DVC cannot reach or take it, or it takes longer than `fetch.seconds`.
    """
    source = _source(workbook)
    if is_address(source):
        file_name(source)
    with fetched(source, workbook.name) as path:
        yield path


def replace_by(new: Path, workbook: Path) -> None:
    """Put `new`, a copy of what `workbook` is where it came from, into its place, and tell DVC. Nothing is downloaded.

    Raises:
        TemporaryFailure: DVC does not take it; `workbook` is as before.
    """
    source = _source(workbook)
    with _put_back_if_it_fails(workbook, _dvc_file(workbook)):
        _copy(new, workbook)
        _commit(workbook, source)


def _source(workbook: Path) -> str:
    imported = import_file(workbook)
    (source,) = yaml.safe_load(imported.read_text(encoding="utf-8"))["deps"]
    # A path within the project stands there as it is seen from the .dvc file.
    return source["path"] if is_address(source["path"]) else str(imported.parent / source["path"])


def _dvc_file(workbook: Path) -> Path:
    return workbook.with_name(f"{workbook.name}.dvc")


def _take(new: Path, target: Path, source: str) -> None:
    """Copy `new` to `target`, which DVC then knows to have come from `source`.

    `dvc import-url` and `dvc update` would download it again: it could be another one by now, and no limit would hold.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _put_back_if_it_fails(target, _dvc_file(target)):
        run_dvc(["import-url", "--force", "--no-exec"], source, str(target))
        _copy(new, target)
        _commit(target, source)


def _commit(workbook: Path, source: str) -> None:
    """Have DVC keep `workbook` as what is at `source`, of which it reads the header only."""
    run_dvc(["commit", "--force"], str(_dvc_file(workbook)), limit=Limit.of(source, at_most=_COMMIT_SECONDS))


@contextmanager
def _put_back_if_it_fails(*paths: Path) -> Iterator[None]:
    with tempfile.TemporaryDirectory(dir=paths[0].parent, prefix=f".{paths[0].name}.") as aside:
        # Not by their own names: DVC reads every .dvc file in the project.
        kept_as = [Path(aside) / f"{paths[0].name}-before{number}" for number in range(len(paths))]
        before = {path: kept for path, kept in zip(paths, kept_as, strict=True) if path.exists()}
        for path, kept in before.items():
            _copy(path, kept)
        try:
            yield
        except BaseException:
            for path in paths:
                _remove(path)
            for path, kept in before.items():
                kept.replace(path)
            raise


def _copy(source: Path, target: Path) -> None:
    """Copy a workbook, or the tables of a folder."""
    if source.is_dir():
        with folder_aside(target) as path:
            for table in table_files(source):
                shutil.copyfile(table, path / table.name)
    else:
        with file_aside(target) as path:
            shutil.copyfile(source, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
