"""The Dockerfile, as far as it can be checked without an engine: it installs as `make install` does, and finds its files."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def test_the_image_installs_what_make_installs():
    installs = r"pip (install --quiet .*)"
    made = re.findall(rf"/{installs}", (ROOT / "Makefile").read_text())
    assert re.findall(rf"RUN {installs}", DOCKERFILE) == [line for line in made if line in DOCKERFILE]
    left_out = [line for line in made if line not in DOCKERFILE and "--editable" not in line and ".venv" not in line]
    assert [line for line in left_out if "pip-tools" not in line] == []


def test_what_is_copied_is_there_and_not_ignored():
    sources = [name for line in re.findall(r"^COPY (.+)", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    taken = re.findall(r"^!(.+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(sources) == sorted(taken)
    assert all((ROOT / name).is_file() for name in sources)


def test_it_does_not_run_as_root():
    assert re.findall(r"^USER (.+)", DOCKERFILE, re.MULTILINE)[-1] == "lectern"
