"""Which test files are quick: those that load no heavy library, not even through the modules that they import.

The rule reads imports instead of a list of names, so it holds for new and renamed files too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

HEAVY = {
    *("accelerate", "bert_score", "ctranslate2", "datasets", "dvc", "evaluate", "gradio", "great_expectations"),
    *("mlflow", "optuna", "peft", "playwright", "prefect", "subprocess", "torch", "transformers"),
    *("flows", "lectern", "tests"),
}
"""Modules that take seconds to import, start processes, or need Prefect or other tests' helpers."""


@cache
def is_quick(path: Path) -> bool:
    """Return whether a test file loads no heavy module. Its own imports count also inside functions."""
    imports = {name for name in _imports(path, everywhere=True) if not name.startswith("tests.conftest")}
    imports.update(*map(_imports, _fixtures(path)))
    loaded = {name for name in imports if name.startswith("pipeline")}
    todo = [*loaded]
    while todo:
        file = _file(todo.pop())
        new = set(_imports(file)) - imports if file else set()
        imports |= new
        todo += new
    return HEAVY.isdisjoint(name.partition(".")[0] for name in imports)


def _fixtures(path: Path) -> list[Path]:
    """The files with fixtures that pytest loads with a test file, except tests/conftest.py, which is light."""
    folders = [folder for folder in path.parents if ROOT / "tests" in folder.parents]
    return [file for folder in folders if (file := folder / "conftest.py").is_file()]


def _file(name: str) -> Path | None:
    if not name.startswith("pipeline."):
        return None
    path = ROOT / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _imports(path: Path, *, everywhere: bool = False) -> tuple[str, ...]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(_names(ast.walk(tree) if everywhere else tree.body))


def _names(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module != "tests":
                yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
