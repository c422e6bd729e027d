from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.registry.lineage import lineage_tags, md5


def _run(*words: str, cwd: Path) -> None:
    subprocess.run(words, cwd=cwd, check=True, capture_output=True)


def _dvc_project(folder: Path) -> None:
    _run("git", "init", "--quiet", cwd=folder)
    _run(sys.executable, "-m", "dvc", "init", "--quiet", cwd=folder)


@pytest.mark.slow
def test_files_and_folders_hash_as_dvc_hashes_them(tmp_path: Path) -> None:
    _dvc_project(tmp_path)
    (tmp_path / "file.txt").write_text("one line\r\nand é\n", encoding="utf-8")
    nested = tmp_path / "folder" / "b" / "deep.txt"
    nested.parent.mkdir(parents=True)
    nested.write_text("deep", encoding="utf-8")
    (tmp_path / "folder" / "b.txt").write_text("beside", encoding="utf-8")
    (tmp_path / "folder" / "a.txt").write_text("", encoding="utf-8")
    for name in ("file.txt", "folder"):
        _run(sys.executable, "-m", "dvc", "add", "--quiet", name, cwd=tmp_path)
        assert f"md5: {md5(tmp_path / name)}\n" in (tmp_path / f"{name}.dvc").read_text(encoding="utf-8")


def test_a_changed_tree_is_dirty_unless_only_dvc_lock_changed(project: Path) -> None:
    _run("git", "init", "--quiet", cwd=project)
    _run("git", "add", ".", cwd=project)
    _run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first", cwd=project)
    (project / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
    assert lineage_tags()["git.dirty"] == "false"
    (project / "new.py").write_text("", encoding="utf-8")
    assert lineage_tags()["git.dirty"] == "true"


def test_lineage_outside_git_names_no_commit(project: Path) -> None:
    assert lineage_tags()["git.commit"] == "none"
