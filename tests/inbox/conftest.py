"""The project that the tests of titles share too."""

from tests.titles.conftest import shared_project

__all__ = ["shared_project"]
