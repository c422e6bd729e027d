"""Title the files of a folder, the inbox. Each is titled once; a second folder, the outbox, gets the titles."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock

from pipeline.data.fallback_titles import KEYPHRASE
from pipeline.data.folder_reader import table_files
from pipeline.data.tables import is_workbook
from pipeline.data.workbook import read_untitled
from pipeline.errors import Rejected, UsageError
from pipeline.files import make_folder
from pipeline.paths import STATE
from pipeline.titles.batch_titling import title_texts
from pipeline.titles.outbox import (
    RejectedFile,
    TitledFile,
    read_rejected,
    read_titled,
    write_rejected,
    write_titled,
)
from pipeline.titles.served_version import ServedVersion
from pipeline.titles.workbook import fill_titles
from pipeline.transcripts.reading import check_size

IGNORED = "ignored, because neither .txt nor a workbook"
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
    """Title the new files of an inbox: each .txt as one passage, each workbook topic by topic.

    A file is recognised by its content. A broken file does not stop the others; the next run tries it again.

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


@dataclass
class _NewFiles:
    """The files to title, each with the row that will describe it."""

    texts: dict[TitledFile, str] = field(default_factory=dict)
    workbooks: dict[TitledFile, Path] = field(default_factory=dict)


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
        new = self._find_new_files()
        if new.texts:
            self._title_texts(new.texts)
        for row, path in new.workbooks.items():
            self._title_workbook(row, path)
        write_rejected(self._outbox, self._rejected)
        return FolderResult(
            titled=self._titled,
            titled_before=self._titled_before,
            failed=self._failed,
            failed_before=self._failed_before,
            ignored=ignored_files(self._inbox, self._outbox),
        )

    def _find_new_files(self) -> _NewFiles:
        new = _NewFiles()
        for path in _list_files(self._inbox, self._outbox):
            if not _can_be_titled(path):
                continue
            row = None
            try:
                row = self._row_to_fill(path)
                if row is None:
                    continue
                if is_workbook(path):
                    new.workbooks[row] = path
                else:
                    new.texts[row] = _read(path)
            except OSError as error:
                self._fail(_name(path), error)
            except Rejected as error:
                self._fail(_name(path), error, row.sha256 if row else "")
        return new

    def _row_to_fill(self, path: Path) -> TitledFile | None:
        """Return an unfilled row for a new file; None if its content has a title.

        A copy of a titled file gets the title of its original.
        """
        row = TitledFile(_name(path), _sha256(path), "", "", str(self._version), _now())
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

    def _title_workbook(self, row: TitledFile, path: Path) -> None:
        # The full name of the source, so that `week`, `week.xlsm` and `week.xlsx` get different copies.
        source = f"{_name(path)}.tables" if path.is_dir() else _name(path).removesuffix(".xlsx")
        out = self._outbox / f"{source}.titled.xlsx"
        corrected = self._rename_corrected(out)
        try:
            result = fill_titles(path, read_untitled(path), out, self._version)
        except (OSError, Rejected, UsageError) as error:  # the workbook may have been removed meanwhile
            self._fail(row.file, error, row.sha256)
            if corrected:
                corrected.rename(out)
        else:
            if corrected:
                _log.warning("%s was changed by hand, so it was renamed to %s", out.name, corrected.name)
            _log.info("%s", result.summary())
            self._add_rows([replace(row, workbook=out.name, when=_now())])

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
    """List the names of the files in `inbox` that cannot be titled."""
    return [_name(path) for path in _list_files(inbox, outbox) if not _can_be_titled(path)]


def _list_files(inbox: Path, outbox: Path) -> list[Path]:
    return sorted(
        path for path in inbox.iterdir() if not path.name.startswith((".", "~$")) and path.resolve() != outbox
    )


def _can_be_titled(path: Path) -> bool:
    try:
        return is_workbook(path) or (not path.is_dir() and path.suffix.lower() == ".txt")
    except OSError:  # a folder that was removed meanwhile
        return False


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
