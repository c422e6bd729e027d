"""Makes a workbook the pipeline's input."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.data.problems import WorkbookRefused, errors
from pipeline.data.tables import table_files
from pipeline.data.workbook import read_workbook
from pipeline.errors import Unavailable
from pipeline.files import file_aside, folder_aside
from pipeline.paths import WORKBOOKS
from pipeline.settings import set_params


def adopt(workbook: Path) -> Path:
    """Copies `workbook` into the project, puts it under DVC and names it in `params.yaml`; returns its new place.

    Raises:
        WorkbookRefused: it is broken; nothing is changed.
        Unavailable: DVC cannot take it.
    """
    found = read_workbook(workbook).problems
    if errors(found):
        raise WorkbookRefused(workbook, found)
    target = WORKBOOKS / workbook.name
    if workbook != target.resolve():
        _copy(workbook, target)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "add", "--quiet", str(target)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"DVC did not take {target}: {done.stderr.strip()}")
    set_params(["ingest"], {"workbook": target.as_posix()})
    return target


def _copy(workbook: Path, target: Path) -> None:
    if workbook.is_file():
        with file_aside(target) as path:
            shutil.copyfile(workbook, path)
        return
    with folder_aside(target) as path:
        for table in table_files(workbook):
            shutil.copyfile(table, path / table.name)
