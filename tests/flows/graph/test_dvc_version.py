"""The parts of DVC without a public API are checked against one version only."""

import tomllib
from importlib.metadata import version

from flows.graph.dvc_internals import CHECKED_AGAINST
from tests.conftest import ROOT


def test_the_installed_and_the_pinned_dvc_are_the_version_that_its_internals_were_checked_against():
    assert version("dvc").startswith(f"{CHECKED_AGAINST}.")
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    minor = int(CHECKED_AGAINST.split(".")[1])
    assert f"dvc>={CHECKED_AGAINST},<3.{minor + 1}" in dependencies
