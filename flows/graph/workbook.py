"""Make a workbook the pipeline's input: a file, a folder of tables, or an address that DVC can read."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import yaml

from flows.graph.command_line import run_dvc
from flows.graph.download import DownloadLimit, downloaded, file_name, is_address
from pipeline.data.combine_workbooks import Combined, combine_workbooks
from pipeline.data.folder_reader import table_files
from pipeline.data.problems import by_kind
from pipeline.data.split import SplitSettings, nearest_seed
from pipeline.data.workbook import IngestSettings, Workbook, ingest
from pipeline.errors import UsageError
from pipeline.files import file_aside, folder_aside
from pipeline.paths import WORKBOOKS
from pipeline.settings import read_params, set_params

_log = logging.getLogger(__name__)

JOINED = WORKBOOKS / "joined"

_COMMIT_SECONDS = 30.0  # DVC's lock is held meanwhile: a server that does not answer must not block the project


def adopt(source: str, *, set_aside: bool = False) -> Path:
    """Bring in the workbook and name it in `params.yaml`; return its path in the project.

    The first time, also choose the seed of the split that suits its lessons. Later the seed stays, so that new lessons
    move no old ones to another split.

    Args:
        source: a path or an address.
        set_aside: whether rows with errors are set aside from now on.

    Raises:
        WorkbookRejected, Rejected, UsageError, TemporaryFailure: as for `bring_in`; nothing is changed.
    """
    workbook, content = _bring_in(source, set_aside=set_aside)
    if _needs_seed(workbook):
        _choose_seed(content.topics)
    set_params(["ingest"], {"workbook": workbook.as_posix()} | ({"broken_rows": "set-aside"} if set_aside else {}))
    return workbook


def adopt_all(sources: Sequence[str]) -> tuple[Path, Combined]:
    """Merge several workbooks of this machine into one, then adopt it; a lesson is taken from the last that has it.

    Raises:
        WorkbookRejected, TemporaryFailure: as for `bring_in`.
        UsageError: one of the workbooks is an address, or does not exist.
    """
    if addresses := [source for source in sources if is_address(source)]:
        raise UsageError(
            f"{addresses[0]} is an address, and only workbooks on this machine can be merged. Download it and give its "
            "path."
        )
    joined = combine_workbooks([Path(source).resolve() for source in sources], JOINED)
    run_dvc(["add"], str(JOINED))
    if _needs_seed(JOINED):
        _choose_seed(ingest(JOINED).topics)
    set_params(["ingest"], {"workbook": JOINED.as_posix()})
    return JOINED, joined


def _needs_seed(workbook: Path) -> bool:
    """Return whether the project splits lessons, and has not read `workbook` so far."""
    params = read_params()
    return "split" in params and bool(params["ingest"]["workbook"] != workbook.as_posix())


def _choose_seed(topics: pd.DataFrame) -> None:
    """Write the seed whose splits come nearest to the wanted shares."""
    seed = nearest_seed(topics, SplitSettings.read())
    set_params(["split"], {"seed": seed})
    _log.info("split.seed is now %d in params.yaml: its splits come nearest to the wanted shares", seed)


def bring_in(source: str, *, set_aside: bool = False) -> Path:
    """Copy the workbook into the project and track it with DVC; return its path in the project.

    DVC remembers the source of a file and can update it. Rows with errors are accepted if `set_aside` is true or
    `ingest.broken_rows` sets them aside.

    Raises:
        WorkbookRejected: the workbook has errors; nothing is changed.
        Rejected: the workbook is larger than `fetch.megabytes`.
        UsageError: the address is not supported, names no file, or holds a password.
        TemporaryFailure: DVC cannot read the source, or the download takes longer than `fetch.seconds`.
    """
    return _bring_in(source, set_aside=set_aside)[0]


def _bring_in(source: str, *, set_aside: bool) -> tuple[Path, Workbook]:
    """Bring in the workbook as `bring_in` does; also return its content, so that it is read once."""
    set_aside = set_aside or IngestSettings.read().sets_aside
    if is_address(source):
        target = WORKBOOKS / file_name(source)
        with downloaded(source, target.name) as new:
            content = _check(new, set_aside=set_aside)
            _import(new, target, source)
        return target, content
    path = Path(source).resolve()
    content = _check(path, set_aside=set_aside)
    target = WORKBOOKS / path.name
    if path == target.resolve():
        run_dvc(["add"], str(target))
    elif path.is_dir():
        _copy(path, target)
        run_dvc(["add"], str(target))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        run_dvc(["import-url", "--force"], str(path), str(target))
    return target, content


def _check(workbook: Path, *, set_aside: bool) -> Workbook:
    """Read the workbook, log its warnings by kind, and return its content.

    Raises:
        WorkbookRejected: it has errors.
    """
    content = ingest(workbook, set_aside=set_aside)
    for line in by_kind(content.problems):
        _log.warning("%s", line)
    return content


def import_file(workbook: Path) -> Path | None:
    """Return the `.dvc` file that records the source of `workbook`, or None if it has no recorded source."""
    path = _dvc_file(workbook)
    return path if path.is_file() and "deps" in yaml.safe_load(path.read_text(encoding="utf-8")) else None


def trained_on(workbook: Path) -> str | None:
    """Return the hash that `workbook` had when the pipeline last read it, or None if it last read another one."""
    path = Path("dvc.lock")
    lock = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    read = (lock or {}).get("stages", {}).get("ingest", {}).get("deps", [])
    return next((dep.get("md5") for dep in read if dep["path"] == workbook.as_posix()), None)


@contextmanager
def latest(workbook: Path) -> Iterator[Path]:
    """Yield a copy of the current content of the source of `workbook`; remove the copy after the block.

    Raises:
        UsageError: the address of the source is not supported, or holds a password.
        Rejected: the content is larger than `fetch.megabytes`.
        TemporaryFailure: DVC cannot read the source, or the download takes longer than `fetch.seconds`.
    """
    source = _source(workbook)
    if is_address(source):
        file_name(source)
    with downloaded(source, workbook.name) as path:
        yield path


def replace_by(new: Path, workbook: Path) -> None:
    """Replace `workbook` by `new`, a copy of the content of its source, and tell DVC. Download nothing.

    Raises:
        TemporaryFailure: DVC fails; `workbook` is unchanged.
    """
    source = _source(workbook)
    with _restored_on_failure(workbook, _dvc_file(workbook)):
        _copy(new, workbook)
        _commit(workbook, source)


def _source(workbook: Path) -> str:
    record = _dvc_file(workbook)
    (source,) = yaml.safe_load(record.read_text(encoding="utf-8"))["deps"]
    # DVC writes a path within the project relative to the .dvc file.
    return source["path"] if is_address(source["path"]) else str(record.parent / source["path"])


def _dvc_file(workbook: Path) -> Path:
    return workbook.with_name(f"{workbook.name}.dvc")


def _import(new: Path, target: Path, source: str) -> None:
    """Copy `new` to `target`, and have DVC record that it came from `source`.

    `dvc import-url` and `dvc update` would download it a second time: without limits, and it may have changed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _restored_on_failure(target, _dvc_file(target)):
        run_dvc(["import-url", "--force", "--no-exec"], source, str(target))
        _copy(new, target)
        _commit(target, source)


def _commit(workbook: Path, source: str) -> None:
    """Have DVC record `workbook` as the content of `source`. DVC requests only the headers of an address."""
    limit = DownloadLimit.of(source, at_most=_COMMIT_SECONDS)
    run_dvc(["commit", "--force"], str(_dvc_file(workbook)), watch=limit.watch if limit else None)


@contextmanager
def _restored_on_failure(*paths: Path) -> Iterator[None]:
    with tempfile.TemporaryDirectory(dir=paths[0].parent, prefix=f".{paths[0].name}.") as aside:
        # Under other names: DVC reads every .dvc file in the project.
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
