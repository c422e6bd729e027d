"""Script of `try_version`: load a version as `mlflow models serve` would, by the code that it carries.

It runs by its path and with -P, so that Python imports the version's copy of the package `pipeline`, not the project's.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mlflow

FILES_MISSING = 66
"""Exit code if the version has no files: EX_NOINPUT, which Python itself never uses."""

_MEGABYTE = 1_000_000


def write_titles(folder: Path, requested: dict[str, list[str]]) -> dict[str, object]:
    """Return the fields of a `Trial` of the version in `folder`."""
    model = mlflow.pyfunc.load_model(str(folder))
    code = folder / "code/pipeline"
    # Versions without such a module do not know the mark of an opening and would read it as text.
    texts = requested["texts" if any(code.glob("data/*openings.py")) else "spoken"]
    # Versions without this module cannot be asked for all candidates that their search finds.
    settings = {"candidates": 0} if (code / "registry/talk_titles.py").exists() else None
    start = time.monotonic()
    candidates = _candidates(model, texts, settings)
    seconds = time.monotonic() - start
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "candidates": candidates,
        "seconds_a_title": round(seconds / max(1, len(texts)), 3),
        "megabytes": round(size / _MEGABYTE, 1),
    }


def _candidates(model: mlflow.pyfunc.PyFuncModel, texts: list[str], settings: dict[str, int] | None) -> list[list[str]]:
    try:
        return [list(candidates) for candidates in model.predict(texts, params=settings)["candidates"]]
    except Exception as error:
        if len(texts) == 1:  # the length tells the user which text it is
            error.add_note(f"(a text of {len(texts[0].split()):,} words)")
        else:
            for text in reversed(texts):  # the unusual texts come last
                _candidates(model, [text], settings)
        raise


def main(uri: str) -> int:
    """Try the version at `uri` and print the result.

    Returns:
        The exit code: 0; 1 if the version does not work; `FILES_MISSING`; or the code of one of Lectern's errors.
    """
    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri))
    except Exception as error:  # the store may be of any kind
        from pipeline.errors import Rejected
        from pipeline.registry.outages import translate_error

        known = translate_error(error)
        print(known or f"{type(error).__name__}: {error}", file=sys.stderr)
        if isinstance(known, Rejected) or getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            return FILES_MISSING
        return known.exit_code if known else 1
    if not any(folder.iterdir()):  # a bucket has no folders, so an empty one means that the files were deleted
        print("MLflow has no artifacts of it", file=sys.stderr)
        return FILES_MISSING
    try:
        print(json.dumps(write_titles(folder, json.load(sys.stdin))))
    except Exception as error:  # a damaged or foreign version may raise anything
        print(f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
