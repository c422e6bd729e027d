"""Makes a workbook the pipeline's input."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.data.problems import WorkbookRefused, errors
from pipeline.data.tables import table_files
from pipeline.data.workbook import read_workbook
from pipeline.errors import Unavailable
from pipeline.files import file_aside, folder_aside
from pipeline.paths import PARAMS, WORKBOOKS


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
    _name_in_params(target)
    return target


def _copy(workbook: Path, target: Path) -> None:
    if workbook.is_file():
        with file_aside(target) as path:
            shutil.copyfile(workbook, path)
        return
    with folder_aside(target) as path:
        for table in table_files(workbook):
            shutil.copyfile(table, path / table.name)


def _name_in_params(workbook: Path) -> None:
    """Changes that one value and keeps the rest of the file, comments included, as it is."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    params = yaml.load(PARAMS.read_text(encoding="utf-8"))
    params["ingest"]["workbook"] = workbook.as_posix()
    with file_aside(PARAMS) as path, path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
