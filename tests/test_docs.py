"""The documentation names only commands, options and files that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from lectern.app import app
from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CODE = re.compile(r"^```(?:bash)?\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
CHANGELOG = ROOT / "CHANGELOG.md"  # it also names what no longer exists


def _code(page: Path) -> Iterator[str]:
    """The commands in the code blocks and in the inline code of a page, one per line."""
    for block, inline in CODE.findall(page.read_text(encoding="utf-8")):
        yield from (block or inline).replace("\\\n", " ").splitlines()


def _calls(line: str) -> Iterator[list[str]]:
    """The words after each `lectern` that a line calls."""
    for call in re.findall(r"(?:^|&& |bin/|=\w+ |while |nohup )lectern ([a-z-][^;&|#>]*)", line):
        yield call.split()


@pytest.mark.parametrize("page", [page for page in PAGES if page != CHANGELOG], ids=lambda page: page.name)
def test_each_command_and_option_of_a_page_exists(page: Path) -> None:
    group = typer.main.get_command(app)
    wrong = []
    for line in _code(page):
        for words in _calls(line):
            if words[0] in ("--help", "COMMAND", "NAME"):
                continue
            command = group.commands.get(words[0])
            if len(words) > 1:
                command = getattr(command, "commands", {}).get(words[1], command)
            options = {"--help"} | {opt for each in getattr(command, "params", []) for opt in each.opts}
            used = {word.partition("=")[0] for word in words if word.startswith("--")}
            if command is None or used - options:
                wrong.append(line)
    assert wrong == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != CHANGELOG], ids=lambda page: page.name)
def test_each_file_of_the_project_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.-])(?:pipeline|flows|tests|benchmarks|docs|expectations)/[\w/.-]*\w", text))
    named |= set(re.findall(r"`((?:\w+/)*test_\w+\.py)`", text))  # in a table of the tests' own folder
    placeholders = {"pipeline/stages/NAME.py", "pipeline/stages/STAGE.py"}
    folders = (ROOT, ROOT / "tests")
    assert [name for name in named - placeholders if not any((folder / name).exists() for folder in folders)] == []
