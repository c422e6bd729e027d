"""Title the files of a folder, the inbox. Each is titled once; a second folder, the outbox, gets the titles.

A text without times gets a title, a workbook a title for each topic, and a transcript chapters with titles.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from filelock import FileLock

from pipeline.chapters.segmentation import ChaptersSettings
from pipeline.data.fallback_titles import KEYPHRASE
from pipeline.data.folder_reader import table_files
from pipeline.data.tables import is_workbook
from pipeline.data.workbook import read_untitled
from pipeline.errors import Rejected, UsageError
from pipeline.files import make_folder
from pipeline.inbox.outbox import (
    RejectedFile,
    TitledFile,
    read_rejected,
    read_titled,
    write_rejected,
    write_titled,
)
from pipeline.paths import STATE
from pipeline.titles.batch_titling import title_texts
from pipeline.titles.served_version import ServedVersion
from pipeline.titles.title_chapters import chapters_with_titles
from pipeline.titles.workbook import fill_titles
from pipeline.transcripts.chapter_files import write_chapters
from pipeline.transcripts.course_folder import LessonFiles, find_lessons, is_called_chapters
from pipeline.transcripts.file_sizes import check_size
from pipeline.transcripts.reading import is_passage

IGNORED = "ignored: it is neither a text, nor a transcript, nor a workbook"
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_WRITE_DELAY = timedelta(seconds=2)  # a row is written after its workbook, and its time has whole seconds
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderResult:
    """The result of one run over the inbox.

    titled: the rows added to titles.csv.
    titled_before: number of files that earlier runs have titled.
    failed: the reason by file.
    failed_before: the failed files that an earlier run rejected with the same content.
    ignored: files of other kinds.
    """

    titled: list[TitledFile]
    titled_before: int
    failed: dict[str, str]
    failed_before: list[str]
    ignored: list[str]

    @property
    def has_new_failures(self) -> bool:
        """Whether a file failed that did not fail before, or that failed with other content."""
        return len(self.failed_before) < len(self.failed)

    def summary(self) -> str:
        """Describe the result in one line, with one more line for each file to check."""
        messages = [
            f"{len(self.titled):,} files titled, {self.titled_before:,} titled before, {len(self.failed):,} not titled"
        ]
        if fallbacks := [row.file for row in self.titled if row.fallback]:
            messages.append(f"  a keyphrase, because the model wrote no usable title: {', '.join(fallbacks)}")
        messages += [f"  {file}: {why}" for file, why in self.failed.items() if file not in self.failed_before]
        messages += [f"  as before, {file}: {self.failed[file]}" for file in self.failed_before]
        if self.ignored:
            messages.append(f"  {IGNORED}: {', '.join(self.ignored)}")
        return "\n".join(messages)


def title_inbox(inbox: Path, outbox: Path, version: ServedVersion, *, again: bool = False) -> FolderResult:
    """Title the new files of an inbox: each text as one passage, workbooks topic by topic, transcripts by chapters.

    A transcript may have a chapter list of the same name. A file is recognised by its content. A broken file does not
    stop the others; the next run tries it again.

    Args:
        again: also title the files that another version has titled.

    Raises:
        UsageError: `outbox` is a file, or the same folder as `inbox`.
        Rejected: the version cannot be loaded, or titles.csv lacks columns.
    """
    if outbox.exists() and (not outbox.is_dir() or outbox.samefile(inbox)):
        raise UsageError(
            f"--out {outbox} must be a folder other than the inbox, for titles.csv and the titled workbooks. "
            "Name another folder."
        )
    make_folder(STATE)
    with FileLock(STATE / "titles.lock"):
        return _InboxRun(inbox, outbox, version, again).run()


@dataclass(frozen=True)
class _Files:
    """The files of an inbox by kind."""

    passages: list[Path]
    workbooks: list[Path]
    talks: list[LessonFiles]
    ignored: list[Path]


@dataclass
class _NewFiles:
    """The files to title, each with the row that will describe it."""

    texts: dict[TitledFile, str] = field(default_factory=dict)
    workbooks: dict[TitledFile, Path] = field(default_factory=dict)
    talks: dict[TitledFile, LessonFiles] = field(default_factory=dict)


class _InboxRun:
    """One run over the inbox. It writes titles.csv after each step, so that an interrupted run keeps its titles."""

    def __init__(self, inbox: Path, outbox: Path, version: ServedVersion, again: bool) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._version = version
        self._again = again
        self._rows = read_titled(outbox)
        self._rejected_before = {each.sha256 for each in read_rejected(outbox)}
        self._rejected: list[RejectedFile] = []
        self._titled: list[TitledFile] = []
        self._titled_before = 0
        self._failed: dict[str, str] = {}
        self._failed_before: list[str] = []

    def run(self) -> FolderResult:
        files = _sort_files(self._inbox, self._outbox)
        new = self._find_new_files(files)
        if new.texts:
            self._title_texts(new.texts)
        for row, path in new.workbooks.items():
            # The full name of the source, so that `week`, `week.xlsm` and `week.xlsx` get different copies.
            source = f"{_name(path)}.tables" if path.is_dir() else _name(path).removesuffix(".xlsx")
            self._write_workbook(row, source, partial(self._fill_titles, path))
        for row, talk in new.talks.items():
            self._write_workbook(row, _name(talk.transcript), partial(self._write_chapters, talk))
        write_rejected(self._outbox, self._rejected)
        return FolderResult(
            titled=self._titled,
            titled_before=self._titled_before,
            failed=self._failed,
            failed_before=self._failed_before,
            ignored=[_name(path) for path in files.ignored],
        )

    def _find_new_files(self, files: _Files) -> _NewFiles:
        new = _NewFiles()
        for path in files.passages:
            if row := self._row_to_fill(path):
                try:
                    new.texts[row] = _read(path)
                except (OSError, Rejected) as error:
                    self._fail(row.file, error, row.sha256)
        for path in files.workbooks:
            if row := self._row_to_fill(path):
                new.workbooks[row] = path
        for talk in files.talks:
            if row := self._row_to_fill(talk.transcript, talk.topics):
                new.talks[row] = talk
        return new

    def _row_to_fill(self, path: Path, topics: Path | None = None) -> TitledFile | None:
        """Return an unfilled row for a new file; None if its content has a title, or it cannot be read.

        A copy of a titled file gets the title of its original.
        """
        try:
            sha256 = _sha256(path)
            if topics:
                sha256 = hashlib.sha256(f"{sha256} {_sha256(topics)}".encode()).hexdigest()
        except (OSError, Rejected) as error:
            self._fail(_name(path), error)
            return None
        row = TitledFile(_name(path), sha256, "", "", str(self._version), _now())
        # Only the last row of each file counts: after a rollback, later titles have replaced this version's.
        latest = {old.file: old for old in self._rows if old.sha256 == row.sha256}
        current = [old for old in latest.values() if self._is_current(old)]
        if not current:
            return row
        if all(old.file != row.file for old in current):
            self._add_rows([replace(current[-1], file=row.file)])
        else:
            self._titled_before += 1
        return None

    def _is_current(self, row: TitledFile) -> bool:
        """Return whether the titles of a row are still there, and by a version that need not be replaced."""
        if self._again and row.version != str(self._version):
            return False
        return not row.workbook or ((self._outbox / row.workbook).is_file() and self._wrote_last(row))

    def _wrote_last(self, row: TitledFile) -> bool:
        """Return whether the titled copy of a row was not replaced since, for other content or by another version."""
        last = next(each for each in reversed(self._rows) if each.workbook == row.workbook)
        return (last.sha256, last.version) == (row.sha256, row.version)

    def _title_texts(self, texts: dict[TitledFile, str]) -> None:
        batch = title_texts(texts.values(), self._version)
        titled = []
        for row, text in texts.items():
            shown = batch.shown[text]
            if shown.title:
                fallback = KEYPHRASE if shown.fallback else ""
                titled.append(replace(row, title=shown.title, when=_now(), fallback=fallback))
            else:
                why = f"Version {row.version} wrote no usable title, and the text has no keyphrase. Add more text."
                self._fail(row.file, Rejected(why), row.sha256)
        self._add_rows(titled)
        batch.log([*texts.values()])
        batch.discard_resume_files()

    def _write_workbook(self, row: TitledFile, source: str, write: Callable[[Path], str]) -> None:
        """Write the titled workbook of a file. `write` gets its path, and returns a summary."""
        out = self._outbox / f"{source}.titled.xlsx"
        corrected = self._rename_corrected(out)
        try:
            summary = write(out)
        except (OSError, Rejected, UsageError) as error:  # the file may have been removed meanwhile
            self._fail(row.file, error, row.sha256)
            if corrected:
                corrected.rename(out)
        else:
            if corrected:
                _log.warning("%s was changed by hand, so it was renamed to %s", out.name, corrected.name)
            _log.info("%s", summary)
            self._add_rows([replace(row, workbook=out.name, when=_now())])

    def _fill_titles(self, path: Path, out: Path) -> str:
        return fill_titles(path, read_untitled(path), out, self._version).summary()

    def _write_chapters(self, talk: LessonFiles, out: Path) -> str:
        (lesson,), batch = chapters_with_titles([talk.read()], ChaptersSettings.read(), None, self._version)
        write_chapters([lesson], out, "xlsx")
        if batch:
            batch.discard_resume_files()
        return "\n".join([f"{out}: {len(lesson.chapters):,} chapters", *lesson.remarks()])

    def _rename_corrected(self, out: Path) -> Path | None:
        """Rename the file at `out` if a person has changed or added it. Return its new path, else None."""
        if not out.is_file():
            return None
        times = [_parse_time(row.when) for row in self._rows if row.workbook == out.name]
        written = max(filter(None, times), default=datetime.min.replace(tzinfo=UTC))
        changed = datetime.fromtimestamp(out.stat().st_mtime, UTC)
        if changed <= written + _WRITE_DELAY:
            return None
        return out.rename(out.with_name(f"{out.stem}.{changed:%Y%m%dT%H%M%SZ}.xlsx"))

    def _add_rows(self, rows: list[TitledFile]) -> None:
        self._rows += rows
        self._titled += rows
        write_titled(self._outbox, self._rows)

    def _fail(self, file: str, error: Exception, sha256: str = "") -> None:
        self._failed[file] = str(error)
        # An OSError, such as a full disk, is not the file's fault. It is reported each time.
        if isinstance(error, Rejected):
            self._rejected.append(RejectedFile(file, sha256, str(error)))
            if sha256 in self._rejected_before:
                self._failed_before.append(file)


def ignored_files(inbox: Path, outbox: Path) -> list[str]:
    """List the names of the files in `inbox` that get no title."""
    return [_name(path) for path in _sort_files(inbox, outbox).ignored]


def _sort_files(inbox: Path, outbox: Path) -> _Files:
    files = sorted(
        path for path in inbox.iterdir() if not path.name.startswith((".", "~$")) and path.resolve() != outbox
    )
    workbooks = [path for path in files if _is_workbook(path)]
    passages = [path for path in files if _is_passage(path)]
    others = [path for path in files if path not in {*workbooks, *passages}]
    talks, unused = find_lessons(path for path in others if not path.is_dir())
    return _Files(passages, workbooks, talks, [path for path in others if path.is_dir() or path in unused])


def _is_workbook(path: Path) -> bool:
    try:
        return is_workbook(path)
    except OSError:  # a folder that was removed meanwhile
        return False


def _is_passage(path: Path) -> bool:
    if path.suffix.lower() != ".txt" or path.is_dir() or is_called_chapters(path):
        return False
    try:
        return not path.is_file() or is_passage(path)
    except OSError:
        return True  # reported when the file is read


def _name(path: Path) -> str:
    """Return the name of a file as text. A name that is not UTF-8, as in old archives, is escaped."""
    return path.name.encode("utf-8", "backslashreplace").decode("utf-8")


def _read(path: Path) -> str:
    check_size(path)
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise Rejected(f"It is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    if not text:
        raise Rejected("It is empty. Add the transcript, or remove the file.")
    return text


def _sha256(path: Path) -> str:
    """Hash the content of a file, or the tables of a folder with their names."""
    if path.is_dir():
        parts = "".join(f"{file.name} {_sha256(file)}\n" for file in table_files(path))
        return hashlib.sha256(parts.encode()).hexdigest()
    if path.exists() and not path.is_file():
        raise Rejected("It is a pipe or a device. Remove it.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _now() -> str:
    return datetime.now(UTC).strftime(_TIME_FORMAT)


def _parse_time(when: str) -> datetime | None:
    """Parse a time of titles.csv; None if a spreadsheet program has changed its format."""
    try:
        return datetime.strptime(when, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
