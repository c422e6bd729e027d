"""Asks a version for titles as `mlflow models serve` would: by the code that it carries.

Run by its path, with -P, so that no other code of ours is imported ahead of the version's own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mlflow

GONE = 66
"""The exit code that says that nothing is left of the version: EX_NOINPUT, with which no Python ends by itself."""

_MEGABYTE = 1_000_000


def answer(folder: Path, asked: dict[str, list[str]]) -> dict[str, object]:
    """The fields of a `Trial` of the version in `folder`."""
    model = mlflow.pyfunc.load_model(str(folder))
    # A version of before openings were marked would read the mark as what is said.
    code = folder / "code/pipeline/data"
    knows_mark = any((code / name).exists() for name in ("lesson_openings.py", "openings.py"))  # the newer name first
    texts = asked["texts" if knows_mark else "spoken"]
    start = time.monotonic()
    titles = _first_candidates(model, texts)
    seconds = time.monotonic() - start
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "titles": titles,
        "seconds_a_title": round(seconds / max(1, len(texts)), 3),
        "megabytes": round(size / _MEGABYTE, 1),
    }


def _first_candidates(model: mlflow.pyfunc.PyFuncModel, texts: list[str]) -> list[str]:
    try:
        return [candidates[0] for candidates in model.predict(texts)["candidates"]]
    except Exception as error:
        if len(texts) == 1:  # whoever reads the message knows by its length which one it is
            error.add_note(f"(a text of {len(texts[0].split()):,} words)")
        else:
            for text in reversed(texts):  # the oddest are the last ones
                _first_candidates(model, [text])
        raise


def main(uri: str) -> int:
    """Exit code 0; 1: the version does not work; `GONE`; another one of our errors': it cannot be had now."""
    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri))
    except Exception as error:  # of whatever store its artifacts are in
        from pipeline.errors import Rejected
        from pipeline.registry.outages import in_our_words

        ours = in_our_words(error)
        print(ours or f"{type(error).__name__}: {error}", file=sys.stderr)
        if isinstance(ours, Rejected) or getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            return GONE
        return ours.exit_code if ours else 1
    if not any(folder.iterdir()):  # a bucket has no folders, and so none that is missing
        print("nothing is left of it among MLflow's artifacts", file=sys.stderr)
        return GONE
    try:
        print(json.dumps(answer(folder, json.load(sys.stdin))))
    except Exception as error:  # whatever a damaged or foreign version raises
        print(f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
