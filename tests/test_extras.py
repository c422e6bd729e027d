"""Extras are installed from a clone: on the package index, the name `lectern` belongs to another project."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "Dockerfile", "Makefile", "flows/**/*.py", "pipeline/**/*.py", "tests/**/*.py")
    for path in ROOT.glob(pattern)
)


def test_no_instruction_installs_a_package_of_another_project() -> None:
    foreign = re.compile(r"pip install[^\n]*[ '\"]lectern(\[|['\"\s]|$)")
    assert not [str(source) for source in SOURCES if foreign.search((ROOT / source).read_text(encoding="utf-8"))]


def test_every_extra_in_an_instruction_exists() -> None:
    named = {
        extra
        for source in SOURCES
        for extras in re.findall(r"pip install -e '?\.\[([\w,-]+)\]", (ROOT / source).read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert {"docker", "kubernetes", "ray"} <= named <= PROJECT["optional-dependencies"].keys()


def test_the_name_of_the_distribution_is_not_taken() -> None:
    assert PROJECT["name"] == "lectern-chapters"
