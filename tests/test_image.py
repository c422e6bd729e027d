"""The Dockerfile, as far as it can be checked without an engine."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def test_the_image_installs_what_make_installs():
    made = re.findall(r"^\t\$\(PIP\) (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    # All but the code, which comes with the job.
    installed = re.findall(r"^RUN pip install --quiet --disable-pip-version-check (.*)", DOCKERFILE, re.MULTILINE)
    # And what speaks to a team's bucket, which each machine of theirs installs by hand.
    assert installed == [*(line for line in made if "--editable" not in line), "--no-deps -r requirements-team.txt"]


def test_files_copied_into_the_image_exist_and_are_not_ignored():
    sources = [name for line in re.findall(r"^COPY (.+)", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    taken = re.findall(r"^!(.+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(sources) == sorted(taken)
    assert all((ROOT / name).is_file() for name in sources)


def test_the_image_does_not_run_as_root():
    assert re.findall(r"^USER (.+)", DOCKERFILE, re.MULTILINE)[-1] == "lectern"
