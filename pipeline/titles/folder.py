"""A folder that transcripts are put into: each is titled once, and what was written stands in one table."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock

from pipeline.data.cell_values import escape_formula
from pipeline.data.fallback_titles import KEYPHRASE
from pipeline.data.folder_reader import table_files
from pipeline.data.tables import is_workbook
from pipeline.errors import Rejected, UsageError
from pipeline.files import file_aside, make_folder, write_json
from pipeline.monitoring.batch_log import log_batch
from pipeline.paths import STATE
from pipeline.titles.titling import Version, title_texts
from pipeline.titles.workbook import fill_titles
from pipeline.transcripts.reading import refuse_too_large

TABLE = "titles.csv"
REFUSED = "not_titled.json"
"""In the outbox: what could not be titled at the last walk, and why. A file that is mended is no longer in it."""

IGNORED = "ignored, since neither .txt nor a workbook"
_WHEN = "%Y-%m-%dT%H:%M:%SZ"
_SOON = timedelta(seconds=2)  # a row is written after its workbook, in whole seconds
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One row of titles.csv: a file of the inbox that was titled.

    title: a text's; empty for a workbook.
    workbook: the filled workbook's name in the outbox; empty for a text.
    fallback: `keyphrase` where the model wrote no title of use, and the title is one; a workbook marks its own.
    """

    file: str
    sha256: str
    title: str
    workbook: str
    version: str
    when: str  # UTC
    fallback: str = ""


@dataclass(frozen=True)
class RejectedFile:
    """A file of the inbox that could not be titled as it is, and why."""

    file: str
    sha256: str
    why: str


@dataclass(frozen=True)
class Done:
    """What a walk through the inbox did.

    failed: why, by file.
    waiting: those of the failed that were refused as they are at an earlier walk.
    ignored: files of a kind that is not titled.
    """

    titled: list[Row]
    before: int
    failed: dict[str, str]
    waiting: list[str]
    ignored: list[str]

    @property
    def news(self) -> bool:
        """Whether a file failed that did not before, or was another then."""
        return len(self.waiting) < len(self.failed)

    def summary(self) -> str:
        """A line, and one for each file that needs a person."""
        said = [f"{len(self.titled):,} files titled, {self.before:,} titled before, {len(self.failed):,} not titled"]
        if fallbacks := [row.file for row in self.titled if row.fallback]:
            said.append(f"  a keyphrase, since the model wrote nothing of use: {', '.join(fallbacks)}")
        said += [f"  {file}: {why}" for file, why in self.failed.items() if file not in self.waiting]
        said += [f"  as before, {file}: {self.failed[file]}" for file in self.waiting]
        if self.ignored:
            said.append(f"  {IGNORED}: {', '.join(self.ignored)}")
        return "\n".join(said)


def title_inbox(inbox: Path, outbox: Path, version: Version, *, again: bool = False) -> Done:
    """Titles what is new in `inbox`: each .txt as one passage, each workbook topic by topic.

    A file is known by its content. A broken one holds up no other, and is tried again each time.

    Args:
        again: whether to title anew what another version has titled.

    Raises:
        UsageError: `outbox` is a file, or is `inbox`.
        Rejected: the version does not load, or titles.csv is not ours.
    """
    if outbox.exists() and (not outbox.is_dir() or outbox.samefile(inbox)):
        raise UsageError(f"--out {outbox} must be a folder of its own: titles.csv and the filled workbooks go there.")
    make_folder(STATE)
    with FileLock(STATE / "titles.lock"):
        return _Walk(inbox, outbox, version, again).go()


class _Walk:
    def __init__(self, inbox: Path, outbox: Path, version: Version, again: bool) -> None:
        self._outbox = outbox
        self._version = version
        self._again = again
        self._rows = read_rows(outbox / TABLE)
        self._refused_before = {each.sha256 for each in read_refused(outbox)}
        self._refused: list[RejectedFile] = []
        self._done = Done([], 0, {}, [], ignored_files(inbox, outbox))
        self._before = 0
        self._paths = [path for path in _paths(inbox, outbox) if _is_titled(path)]

    def go(self) -> Done:
        texts: dict[Row, str] = {}
        workbooks: dict[Row, Path] = {}
        for path in self._paths:
            try:
                row = self._new_row(path)
                if row is None:
                    continue
                if is_workbook(path):
                    workbooks[row] = path
                else:
                    texts[row] = _read(path)
            except OSError as error:
                self._fail(path.name, error)
            except Rejected as error:
                self._fail(path.name, error, _digest(path))
        if texts:
            self._title(texts)
        for row, path in workbooks.items():
            self._fill(row, path)
        write_refused(self._outbox, self._refused)
        return replace(self._done, before=self._before)

    def _new_row(self, path: Path) -> Row | None:
        """A row to be filled for `path`; None where its content has its title already."""
        row = Row(path.name, _digest(path), "", "", str(self._version), _now())
        # Of each file its last row: after a rollback, what the present version once wrote has been replaced since.
        latest = {old.file: old for old in self._rows if old.sha256 == row.sha256}
        known = [old for old in latest.values() if self._counts(old)]
        if not known:
            return row
        if all(old.file != row.file for old in known):
            self._keep([replace(known[-1], file=row.file)])  # a copy of a file that has its title
        else:
            self._before += 1
        return None

    def _counts(self, row: Row) -> bool:
        if self._again and row.version != str(self._version):
            return False
        return not row.workbook or ((self._outbox / row.workbook).is_file() and self._is_last(row))

    def _is_last(self, row: Row) -> bool:
        """Whether its workbook was not written anew since, from another content or by another version."""
        last = next(each for each in reversed(self._rows) if each.workbook == row.workbook)
        return (last.sha256, last.version) == (row.sha256, row.version)

    def _title(self, texts: dict[Row, str]) -> None:
        titled = title_texts(texts.values(), self._version)
        rows = [
            replace(row, title=titled.titles[text], when=_now(), fallback=KEYPHRASE if text in titled.fallbacks else "")
            for row, text in texts.items()
        ]
        for row in rows:
            if not row.title:
                why = Rejected(f"version {row.version} wrote no title of use, and it has no keyphrase.")
                self._fail(row.file, why, row.sha256)
        self._keep([row for row in rows if row.title])
        log_batch([*texts.values()], [titled.written(text) for text in texts.values()], str(self._version))
        titled.forget()

    def _fill(self, row: Row, path: Path) -> None:
        # With what it was made from, so that `week`, `week.xlsm` and `week.xlsx` do not end in one file.
        made_from = f"{path.name}.tables" if path.is_dir() else path.name.removesuffix(".xlsx")
        out = self._outbox / f"{made_from}.titled.xlsx"
        corrected = self._set_aside_corrected(out)
        try:
            filled = fill_titles(path, out, self._version)
        except (OSError, Rejected) as error:
            self._fail(path.name, error, row.sha256)
            if corrected:
                corrected.rename(out)
        else:
            if corrected:
                _log.warning("%s was changed by hand since it was written: it is %s now", out.name, corrected.name)
            _log.info("%s", filled.summary())
            self._keep([replace(row, workbook=out.name, when=_now())])

    def _set_aside_corrected(self, out: Path) -> Path | None:
        """Gives what stands at `out` a name of its own, if a person has changed it since it was written, or put it."""
        if not out.is_file():
            return None
        written = [_moment(row.when) for row in self._rows if row.workbook == out.name]
        changed = datetime.fromtimestamp(out.stat().st_mtime, UTC)
        if changed <= max(filter(None, written), default=datetime.min.replace(tzinfo=UTC)) + _SOON:
            return None
        return out.rename(out.with_name(f"{out.stem}.{changed:%Y%m%dT%H%M%SZ}.xlsx"))

    def _keep(self, rows: list[Row]) -> None:
        self._rows += rows
        self._done.titled.extend(rows)
        write_rows(self._outbox / TABLE, self._rows)

    def _fail(self, file: str, error: Exception, sha256: str = "") -> None:
        self._done.failed[file] = str(error)
        # A disk that is full, or a folder that is closed, is no fault of the file's, and always news.
        if isinstance(error, Rejected):
            self._refused.append(RejectedFile(file, sha256, str(error)))
            if sha256 in self._refused_before:
                self._done.waiting.append(file)


def ignored_files(inbox: Path, outbox: Path) -> list[str]:
    """The names in `inbox` of what is of a kind that is not titled."""
    return [path.name for path in _paths(inbox, outbox) if not _is_titled(path)]


def _paths(inbox: Path, outbox: Path) -> list[Path]:
    return sorted(
        path for path in inbox.iterdir() if not path.name.startswith((".", "~$")) and path.resolve() != outbox
    )


def _is_titled(path: Path) -> bool:
    return is_workbook(path) or (not path.is_dir() and path.suffix.lower() == ".txt")


def _read(path: Path) -> str:
    refuse_too_large(path)
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise Rejected(f"it is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    if not text:
        raise Rejected("it holds no text. Put the transcript in, or take the file away.")
    return text


def _digest(path: Path) -> str:
    """SHA-256 of the content: of a folder, of its tables with their names."""
    if path.is_dir():
        parts = "".join(f"{file.name} {_digest(file)}\n" for file in table_files(path))
        return hashlib.sha256(parts.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _now() -> str:
    return datetime.now(UTC).strftime(_WHEN)


def _moment(when: str) -> datetime | None:
    """None for what a spreadsheet program has made of a time."""
    try:
        return datetime.strptime(when, _WHEN).replace(tzinfo=UTC)
    except ValueError:
        return None


def read_refused(outbox: Path) -> list[RejectedFile]:
    """What the last walk could not title; nothing where that cannot be read, so that it is told of once more."""
    try:
        return [RejectedFile(**each) for each in json.loads((outbox / REFUSED).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def write_refused(outbox: Path, refused: list[RejectedFile]) -> None:
    if refused:
        write_json(outbox / REFUSED, [asdict(each) for each in refused])
    else:
        (outbox / REFUSED).unlink(missing_ok=True)


_ADDED = {"fallback"}  # after others had been written: a titles.csv without it is ours


def read_rows(table: Path) -> list[Row]:
    """The rows of a titles.csv, the oldest first; none where there is no such file.

    Raises:
        Rejected: it has other columns.
    """
    if not table.is_file():
        return []
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        wanted = [field.name for field in fields(Row)]
        if reader.fieldnames is None or not {*wanted} - _ADDED <= {*reader.fieldnames}:
            raise Rejected(
                f"{table} lacks some of the columns {', '.join(wanted)}. Put it elsewhere; a new one is made."
            )
        return [Row(**{name: (row.get(name) or "").removeprefix("'") for name in wanted}) for row in reader]


def write_rows(table: Path, rows: list[Row]) -> None:
    """`rows` as a CSV whose cells a spreadsheet takes for text."""
    with file_aside(table) as aside, aside.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows({name: escape_formula(cell) for name, cell in asdict(row).items()} for row in rows)
