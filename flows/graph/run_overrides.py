"""What a person asks of one run. `params.yaml` says it for as long as the run takes, since DVC reads nothing else.

A run that is killed leaves its `params.yaml`; the next one puts back what stood there before. What somebody else has
written into the file since is theirs, and stays.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from flows.graph.trained_workbooks import note_last
from pipeline.errors import UsageError
from pipeline.files import file_aside, move, write_text
from pipeline.paths import PARAMS, STATE
from pipeline.settings import hint_at_catalogue, read_params, train_settings

_BEFORE = STATE / "params_before.yaml"
_AS_ASKED = STATE / "params_asked.yaml"


def _models() -> tuple[str, ...]:
    with suppress(UsageError):  # who reads the settings says what is wrong with them
        return tuple(read_params().get("models") or ()) if PARAMS.is_file() else ()
    return ()


# Prefect's form offers these; it is made where a deployment is.
_MODELS = _models()
Model = Literal[_MODELS] if _MODELS else str  # type: ignore[valid-type]
Epochs = Annotated[int, Field(ge=1, le=1000)]


@contextmanager
def params_as_asked(models: list[str] | None, epochs: int | None, workbook: str | None) -> Iterator[None]:
    """While the block runs, `params.yaml` says what is asked for; what is None, or empty, as it stands there.

    Raises:
        UsageError: the workbook is not there, or a model is not one of `params.yaml`.
        WorkbookRejected: it is broken.
    """
    _put_back()
    if not (models or epochs or workbook):
        yield
        return
    from flows.graph.workbook import ASKED, bring_in  # loads pandas, which most runs of the flow need not wait for

    if workbook:
        note_last()
    params = asked(read_params(), models, epochs, str(bring_in(workbook, ASKED)) if workbook else None)
    with file_aside(_BEFORE) as path:
        shutil.copyfile(PARAMS, path)
    write_text(_AS_ASKED, yaml.safe_dump(params, sort_keys=False, allow_unicode=True))
    with file_aside(PARAMS) as path:
        shutil.copyfile(_AS_ASKED, path)
    try:
        yield
    finally:
        _put_back()


def asked(params: dict[str, Any], models: list[str] | None, epochs: int | None, workbook: str | None) -> dict[str, Any]:
    """`params`, changed. A model that is taken as it comes, with no epochs, stays so.

    Raises:
        UsageError: a model is not one of them.
    """
    params = copy.deepcopy(params)
    known, contestants = params.get("models") or {}, models or params.get("contestants") or []
    if unknown := {*contestants} - known.keys():
        missing = sorted(map(str, unknown))
        raise UsageError(
            f"{PARAMS} has no model {', '.join(missing)}; it has {', '.join(known)}.{hint_at_catalogue(missing)}"
        )
    params["contestants"] = contestants
    if epochs:
        for name in contestants:
            if train_settings(params, name).get("epochs") != 0:
                entry = known[name] or {}
                # Not in place: through an anchor several models may share a mapping.
                known[name] = {**entry, "train": {**(entry.get("train") or {}), "epochs": epochs}}
    if workbook:
        params["ingest"] = {**(params.get("ingest") or {}), "workbook": workbook}
    return params


def _put_back() -> None:
    if _BEFORE.exists():
        if _AS_ASKED.exists() and PARAMS.read_bytes() == _AS_ASKED.read_bytes():
            move(_BEFORE, PARAMS)
        _BEFORE.unlink(missing_ok=True)
    _AS_ASKED.unlink(missing_ok=True)
