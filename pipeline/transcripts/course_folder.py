"""Find the lessons in a folder of transcripts: a transcript for each, and the list of its chapters if there is one.

A lesson is a file name without its suffix. Of several files with one name, the transcript is the first in the order of
`TRANSCRIPTS`. Its chapter list is `NAME.chapters.*`, yt-dlp's `NAME.info.json`, a file of a format that holds only
chapters, or another file of that name with few words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.raw_sheets import join_names
from pipeline.data.tables import is_workbook
from pipeline.data.word_count import count_words
from pipeline.data.workbook_files import LONGEST_CELL
from pipeline.errors import Rejected, UsageError
from pipeline.transcripts.known_topics import read_topics, replace_topics
from pipeline.transcripts.lesson_names import rename_lesson
from pipeline.transcripts.reading import read_transcripts
from pipeline.transcripts.transcript import Transcript

TRANSCRIPTS = (
    *(".vtt", ".srt", ".sbv", ".ass", ".ssa", ".smi", ".sami", ".sub", ".mpl", ".scc"),
    *(".ttml", ".dfxp", ".xml", ".srv1", ".srv2", ".srv3", ".json3", ".sjson"),
    *(".docx", ".tsv", ".lrc", ".json", ".csv", ".txt"),
)
"""Suffixes of transcripts. Those of captions come first, and those that often hold a chapter list come last."""

_CHAPTERS_ONLY = (".ffmetadata", ".psc", ".cue")
_CHAPTER_LISTS = (".json", ".csv", ".txt", ".md", ".xml", ".xlsx", ".xlsm")
_CALLED_CHAPTERS = re.compile(r"(.+)\.(?:chapters|info)", re.IGNORECASE)
_LANGUAGE = re.compile(r"\.[a-z]{2,3}(?:-\w{2,8})*", re.IGNORECASE)
_WORDS_PER_TITLE_WORD = 4  # a transcript has at least this many


@dataclass(frozen=True)
class LessonFiles:
    """The files of one lesson. `topics` is its chapter list; None if it has none."""

    name: str
    transcript: Path
    topics: Path | None

    def read(self) -> Transcript:
        """Read the transcript, with the topics of the chapter list.

        Raises:
            Rejected: one of the files cannot be read.
        """
        transcripts = read_transcripts(self.transcript)
        return replace_topics(transcripts, self.topics)[0] if self.topics else transcripts[0]


@dataclass
class Course:
    """The lessons of folders and files.

    failed: by file, the reason why it gives no lesson.
    unused: files that no lesson needs, such as a second copy of a transcript.
    """

    transcripts: list[Transcript] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def remarks(self) -> list[str]:
        """Name the files that give no lesson, each that failed on a line of its own."""
        unused = [f"Not used: {join_names(self.unused)}."] if self.unused else []
        return [*unused, *(f"Left out {file}: {why}" for file, why in self.failed.items())]


def read_course(sources: Sequence[Path], course_title: str = "", *, into_cells: bool = True) -> Course:
    """Read the lessons of folders, files and workbooks. A file that cannot be read does not stop the others.

    The course of a lesson is the name of the folder that it is in, and its number the name of its file. One file by
    itself is lesson 1 of the course of its name. A workbook names its own lessons. Workbooks inside a folder are not
    read: an earlier command may have written them.

    Args:
        course_title: the course of all lessons that are not from a workbook; empty uses the names of folders.
        into_cells: whether each line must fit into a cell of Excel.

    Raises:
        UsageError: a source does not exist, or there is no transcript.
        Rejected: no transcript can be read.
    """
    if len(sources) == 1 and not course_title and (is_workbook(sources[0]) or not sources[0].is_dir()):
        return Course(read_transcripts(sources[0]))
    if missing := [str(source) for source in sources if not source.exists()]:
        raise UsageError(f"{missing[0]} does not exist. Give a folder of transcripts, a transcript or a workbook.")
    workbooks = [source for source in sources if is_workbook(source)]
    lessons, unused = find_lessons(file for each in sources if each not in workbooks for file in _files(each))
    if not (lessons or workbooks):
        where = ", ".join(map(str, sources))
        raise UsageError(f"There is no transcript in {where}. Add files such as talk.vtt, talk.srt or talk.docx.")
    course = Course(unused=[file.name for file in unused])
    named: dict[tuple[str, str], Path] = {}
    given: list[Path | LessonFiles] = [*workbooks, *lessons]
    for each in given:
        path = each if isinstance(each, Path) else each.transcript
        try:
            found = _read_lessons(each, course_title)
            for lesson in found:
                _check(lesson, path, named, into_cells=into_cells)
        except (Rejected, UsageError, OSError) as error:
            course.failed[path.name] = str(error)
        else:
            course.transcripts += found
            named |= {(lesson.course_title, lesson.lesson_num): path for lesson in found}
    if not course.transcripts:
        raise Rejected("\n".join(["No transcript can be read.", *course.remarks()]))
    return course


def _files(source: Path) -> Iterator[Path]:
    """Yield a file or a workbook's folder of tables, or what is in a folder and in the folders inside it.

    Hidden files are left out.
    """
    if not source.is_dir() or is_workbook(source):
        yield source
    else:
        for each in source.iterdir():
            if not each.name.startswith((".", "~$")) and not (each.is_symlink() and each.is_dir()):  # no endless loops
                yield from _files(each)


def _read_lessons(source: Path | LessonFiles, course_title: str) -> list[Transcript]:
    if isinstance(source, Path):
        return read_transcripts(source)
    folder = source.transcript.resolve().parent.name
    return [rename_lesson(source.read(), course_title or folder, source.name)]


def _check(lesson: Transcript, path: Path, named: dict[tuple[str, str], Path], *, into_cells: bool) -> None:
    """Check that a workbook can hold a lesson besides the others.

    Raises:
        Rejected: another file has the lesson too, or one of its lines is too long.
    """
    if other := named.get((lesson.course_title, lesson.lesson_num)):
        raise Rejected(f"{path} and {other} are both {lesson.name}. Rename one of them.")
    if into_cells and any(len(line.text) > LONGEST_CELL for line in lesson.lines):
        raise Rejected(
            f"{path} has a line of more than {LONGEST_CELL:,} characters, too long for a cell of Excel. Split it."
        )


def find_lessons(files: Iterable[Path]) -> tuple[list[LessonFiles], list[Path]]:
    """Group files by lesson. Lessons come in the order in which a person would put their names: 2 before 10.

    Returns:
        The lessons, and the files that no lesson needs.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for file in sorted(files, key=_natural_order):
        groups.setdefault((file.parent, _lesson_name(file)), []).append(file)
    lessons, used = [], set()
    for (folder, name), group in groups.items():
        shared = groups.get((folder, _without_language(name)), []) if _without_language(name) != name else []
        transcript = _find_transcript(group)
        if transcript:
            topics = _find_topics(transcript, [*group, *filter(is_called_chapters, shared)])
            lessons.append(LessonFiles(name, transcript, topics))
            used |= {transcript, topics}
    return lessons, [file for group in groups.values() for file in group if file not in used]


def _natural_order(file: Path) -> tuple[list[tuple[int, str]], Path]:
    parts = re.split(r"(\d+)", str(file).casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], file


def _lesson_name(file: Path) -> str:
    called = _CALLED_CHAPTERS.fullmatch(file.stem)
    return called[1] if called else file.stem


def _without_language(name: str) -> str:
    """Remove a language such as the one of `talk.en`, under which the same talk may have a chapter list."""
    stem, dot, language = name.rpartition(".")
    return stem if stem and _LANGUAGE.fullmatch(dot + language) else name


def is_called_chapters(file: Path) -> bool:
    """Return whether the name of a file says that it is a chapter list."""
    return file.suffix.lower() in _CHAPTERS_ONLY or _CALLED_CHAPTERS.fullmatch(file.stem) is not None


def _find_transcript(group: Sequence[Path]) -> Path | None:
    """Return the transcript among files of the same name, or None."""
    others = [file for file in group if file.suffix.lower() in TRANSCRIPTS and not is_called_chapters(file)]
    others.sort(key=lambda file: TRANSCRIPTS.index(file.suffix.lower()))
    while len(others) > 1 and others[0].suffix.lower() == ".json" and _count_title_words(others[0]) is not None:
        del others[0]  # JSON in which only chapters have times
    return others[0] if others else None


def _find_topics(transcript: Path, group: Sequence[Path]) -> Path | None:
    """Return the chapter list of a transcript among files of the same name, or None."""
    by_name = [file for file in group if is_called_chapters(file) and file.stem[-5:].lower() != ".info"]
    if by_name:
        return by_name[0]
    others = [file for file in group if file != transcript and file.suffix.lower() in _CHAPTER_LISTS]
    counted = ((file, _count_title_words(file)) for file in others)
    readable = [(file, words) for file, words in counted if words is not None]
    if not readable:
        return None
    try:
        spoken = sum(count_words(line.text) for line in read_transcripts(transcript)[0].lines)
    except (Rejected, OSError):
        return None  # reported when the lesson is read
    return next((file for file, words in readable if words * _WORDS_PER_TITLE_WORD <= spoken), None)


def _count_title_words(file: Path) -> int | None:
    """Count the words of the titles in a chapter list of one lesson; None if the file is something else."""
    try:
        lessons = [*read_topics(file).values()]
    except (Rejected, UsageError, OSError):
        return None
    return sum(count_words(topic.title) for topic in lessons[0]) if len(lessons) == 1 else None
