"""Restoring an archive that somebody else has made: nothing outside the new folder ever changes."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import Rejected, TemporaryFailure
from pipeline.maintenance.backup import restore

LABEL = '{"folder": "/was/there", "made": "2026-11-24T00:00:00Z"}'
VICTIM = "the victim's own words"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **attributes: int) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    for attribute, value in attributes.items():
        setattr(made, attribute, value)
    return made


def write_archive(file: Path, members: Sequence[tarfile.TarInfo]) -> None:
    with tarfile.open(file, "w") as tar:
        for each in (member("lectern-backup.json"), *members, member("lectern-backup.json")):
            content = LABEL if each.name == "lectern-backup.json" else "overwritten"
            if each.isreg():
                each.size = len(content)
            tar.addfile(each, BytesIO(content.encode()) if each.isreg() else None)


def outside(folder: Path, new: Path) -> dict[str, tuple[int, int, bytes | str | None]]:
    """Return mode, number of links and content of everything in `folder` outside `new`, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_relative_to(new):
            state = path.lstat()
            content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path)] = (state.st_mode, state.st_nlink if path.is_file() else 0, content)
    return found


NAMES = st.sampled_from(
    (
        *("a", "b", "A", "a/b", "a/b/c", "b/a", "a/", "./a", "a//b", ".", "..", "../victim", "a/../../victim"),
        *("OUT/victim", "OUT/new/a", "lectern-backup.json", "a/lectern-backup.json", "x.db", "x.db-journal"),
        *("\N{KELVIN SIGN}", "k", "k/a"),
    )
)
ENDS = st.one_of(NAMES, st.sampled_from(("", "a/..", "b/..", "../..", "a/../..", "../a/..", "OUT", "b/../..")))
KINDS = st.sampled_from(
    (
        *(tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE),
        *(tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE),
    )
)
MEMBERS = st.lists(st.tuples(NAMES, KINDS, ENDS, st.sampled_from([0o644, 0o6777, 0])), max_size=6)


@given(members=MEMBERS)
@example(members=[("a", tarfile.LNKTYPE, "OUT/victim", 0o644), ("a", tarfile.REGTYPE, "", 0o644)])
@example(members=[("a", tarfile.SYMTYPE, "..", 0o644), ("a/victim", tarfile.REGTYPE, "", 0o644)])
@example(
    members=[
        ("a", tarfile.DIRTYPE, "", 0o755),
        ("a/b", tarfile.SYMTYPE, "..", 0o644),
        ("b", tarfile.SYMTYPE, "a/b/..", 0o644),
        ("b/victim", tarfile.REGTYPE, "", 0o644),
    ]
)
@settings(max_examples=150, deadline=None)
def test_restoring_changes_nothing_outside_the_folder(
    members: list[tuple[str, bytes, str, int]],
) -> None:
    with TemporaryDirectory() as place:
        # So deep that no link of these leaves `place`, whatever `restore` makes of it.
        folder = Path(place).resolve() / "1/2/3"
        folder.mkdir(parents=True)
        new = folder / "new"
        (folder / "victim").write_text(VICTIM, encoding="utf-8")
        (folder / "victim").chmod(0o640)
        (folder / "link").symlink_to("victim")
        file = folder / "lectern.tar"
        here = [(name.replace("OUT", str(folder)), kind, end.replace("OUT", str(folder)), mode)
                for name, kind, end, mode in members]  # fmt: skip
        write_archive(file, [member(name, kind, end, mode=mode) for name, kind, end, mode in here])
        before = outside(Path(place), new)
        try:
            restore(file, new)
        except Rejected:
            assert not new.exists()
        assert outside(Path(place), new) == before
        for path in new.rglob("*"):
            assert Path(os.path.realpath(path)).is_relative_to(new), f"{path} leads out"
            assert path.is_symlink() or path.is_dir() or path.is_file()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([member("a", tarfile.LNKTYPE, "/no/such/file"), member("a")], "hard link to '/no/such/file'"),
        ([member("a", tarfile.LNKTYPE, "b"), member("b")], "hard link to 'b'"),
        ([member("a", tarfile.SYMTYPE, "/no/such")], "leaves the folder: it points to '/no/such'"),
        ([member("a/b", tarfile.SYMTYPE, "../../x")], "leaves the folder"),
        ([member("a", tarfile.SYMTYPE, "b"), member("a/c"), member("b", tarfile.DIRTYPE)], "written through 'a'"),
        ([member("a", tarfile.SYMTYPE, "b"), member("A/c")], "written through 'a'"),
        ([member("a"), member("a")], "It has 'a' twice"),
        ([member("/a")], "'/a' is not a plain name"),
        ([member("../a")], "'../a' is not a plain name"),
        ([member("a", tarfile.FIFOTYPE)], "not a file, a folder or a link"),
        ([member("a", tarfile.BLKTYPE)], "not a file, a folder or a link"),
        ([member("mlflow.db"), member("mlflow.db-journal")], "belongs to a running server"),
        ([member("a", tarfile.LNKTYPE, "lectern-backup.json")], "'a' is a hard link to 'lectern-backup.json'"),
    ],
)
def test_a_member_that_could_leave_the_folder_is_named_and_rejected(
    members: list[tarfile.TarInfo], said: str, tmp_path: Path
) -> None:
    write_archive(tmp_path / "lectern.tar", [member("kept"), *members])
    with pytest.raises(Rejected, match=said):
        restore(tmp_path / "lectern.tar", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["lectern.tar"]


def test_files_and_folders_that_differ_by_case_are_restored(tmp_path: Path) -> None:
    write_archive(
        tmp_path / "lectern.tar", [member("Fix"), member("fix", tarfile.DIRTYPE, mode=0o755), member("fix/a")]
    )
    restore(tmp_path / "lectern.tar", tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").rglob("*")} == {"Fix", "fix", "a"}


@pytest.mark.parametrize("size", [-512, -1024])
def test_an_archive_with_a_negative_size_is_rejected(size: int, tmp_path: Path) -> None:
    odd = member("a")
    odd.pax_headers = {"size": str(size)}
    with tarfile.open(tmp_path / "lectern.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for each, content in (
            (member("lectern-backup.json"), LABEL),
            (odd, ""),
            (member("lectern-backup.json"), LABEL),
        ):
            each.size = len(content)
            tar.addfile(each, BytesIO(content.encode()))
    # For some versions of Python (Debian's 3.13.5), the archive ends before such a member.
    with pytest.raises(Rejected, match=r"has an invalid size|its end is missing"):
        restore(tmp_path / "lectern.tar", tmp_path / "new")


@pytest.mark.parametrize(
    ("header", "said"),
    [({"mtime": "inf"}, "invalid time"), ({"mtime": "1e30"}, "invalid time"), ({"mtime": "nan"}, "invalid time"),
     ({"size": "1" + "0" * 30}, "cannot be restored")],
)  # fmt: skip
def test_an_archive_with_an_invalid_number_is_rejected(header: dict[str, str], said: str, tmp_path: Path) -> None:
    odd = member("a")
    odd.pax_headers = header
    write_archive(tmp_path / "lectern.tar", [odd])
    with pytest.raises(Rejected, match=said):
        restore(tmp_path / "lectern.tar", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["lectern.tar"]


def test_an_oversized_label_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.maintenance.test_malicious_archives.LABEL", LABEL + " " * 100_000)
    write_archive(tmp_path / "lectern.tar", [member("a")])
    with pytest.raises(Rejected, match=r"'lectern-backup\.json' is larger than 65,536 bytes"):
        restore(tmp_path / "lectern.tar", tmp_path / "new")


def test_a_backup_larger_than_the_disk_is_rejected_before_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(tmp_path / "lectern.tar", [member("a")])
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(TemporaryFailure, match="too little room: the backup needs 11 bytes, and 10 are free"):
        restore(tmp_path / "lectern.tar", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["lectern.tar"]


def test_a_compressed_archive_is_rejected(tmp_path: Path) -> None:
    write_archive(tmp_path / "plain.tar", [member("a")])
    packed = tmp_path / "lectern.tar.gz"
    packed.write_bytes(gzip.compress((tmp_path / "plain.tar").read_bytes()))
    with pytest.raises(Rejected, match=r"lectern\.tar\.gz is not a backup of Lectern.*gunzip"):
        restore(packed, tmp_path / "new")
