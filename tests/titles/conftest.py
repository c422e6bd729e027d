"""A project that the tests of titles share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def shared_project(
    tmp_path_factory: pytest.TempPathFactory, empty_tracking: Path, examples: pd.DataFrame
) -> Iterator[Path]:
    """A project with a registered version, for the tests that register no other."""
    from tests.titles.small import project_with_version  # imports torch, which the quick tests beside do without

    with project_with_version(tmp_path_factory.mktemp("project"), empty_tracking, examples) as folder:
        yield folder
