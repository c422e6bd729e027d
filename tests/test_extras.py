"""Optional dependencies: what an instruction installs exists, and a missing extra is named."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from pipeline import extras
from tests.command import lectern_here
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "Dockerfile", "Makefile", "flows/**/*.py", "pipeline/**/*.py", "tests/**/*.py")
    for path in ROOT.glob(pattern)
)

COMES_WITH = {
    "datasets": "evaluate",
    "gradio-client": "gradio",
    "httpx": "prefect",
    "httpx2": "huggingface-hub",
    "huggingface-hub": "transformers",
    "markdown-it-py": "rich",
    "marshmallow": "great-expectations",
    "markupsafe": "jinja2",
    "networkx": "dvc",
    "platformdirs": "dvc",
    "requests": "dvc",
    "safetensors": "transformers",
    "scmrepo": "dvc",
    "starlette": "fastapi",
    "tokenizers": "transformers",
    "voluptuous": "dvc",
}
"""Distributions that we import only together with another one, which depends on them."""


def name_of(requirement: str) -> str:
    """Return the normalised name of the distribution in a requirement such as `ray[client]>=2`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


def imported_modules() -> set[str]:
    """Return the top-level modules that our packages import, anywhere in a file."""
    found = set()
    for package in ("lectern", "flows", "pipeline"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"lectern", "flows", "pipeline"}


def test_no_instruction_installs_a_package_of_another_project() -> None:
    """On the package index, the name `lectern` belongs to another project."""
    foreign = re.compile(r"pip install[^\n]*[ '\"]lectern(\[|['\"\s]|$)")
    assert not [str(source) for source in SOURCES if foreign.search((ROOT / source).read_text(encoding="utf-8"))]


def test_every_extra_in_an_instruction_exists() -> None:
    named = {
        extra
        for source in SOURCES
        for listed in re.findall(
            r"pip install (?:-e '?\.|'?lectern-chapters)\[([\w,-]+)\]", (ROOT / source).read_text(encoding="utf-8")
        )
        for extra in listed.split(",")
    }
    assert {"docker", "kubernetes", "ray"} <= named <= PROJECT["optional-dependencies"].keys()


def test_every_extra_that_the_code_requires_exists() -> None:
    assert extras.MODULES.keys() <= PROJECT["optional-dependencies"].keys()


def test_the_name_of_the_distribution_is_not_taken() -> None:
    assert PROJECT["name"] == "lectern-chapters"


def test_every_imported_package_is_declared() -> None:
    declared = {
        name_of(requirement)
        for requirements in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
        for requirement in requirements
    }
    distributions = packages_distributions()
    for module in imported_modules() - {"wandb", "ray", "prefect_ray"}:  # not installed by `make install`
        names = {name_of(name) for name in distributions[module]}
        assert names & (declared | COMES_WITH.keys()), f"pyproject.toml does not declare {module}, of {names}"


@pytest.mark.parametrize(("child", "parent"), COMES_WITH.items())
def test_a_package_that_is_not_declared_comes_with_its_parent(child: str, parent: str) -> None:
    assert child in {name_of(requirement) for requirement in requires(parent)}


@pytest.mark.parametrize(
    ("extra", "words", "message"),
    [
        ("page", ["serve", "--port", "0"], "The page needs gradio."),
        ("search", ["search", "bart"], "lectern search needs optuna."),
        ("fast", ["export"], "lectern export needs ctranslate2."),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(
    extra: str, words: list[str], message: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = extras.MODULES[extra]
    installed = extras.is_installed
    monkeypatch.setattr(extras, "is_installed", lambda module: module not in missing and installed(module))
    done = lectern_here(*words)
    assert done.returncode == 2
    assert f"{message} Run: pip install 'lectern-chapters[{extra}]'" in " ".join(done.stderr.split())


def test_an_installed_extra_is_accepted() -> None:
    extras.require_extra("page", user="The page")


def test_a_folder_named_like_a_missing_package_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "missing_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not extras.is_installed("missing_package")
