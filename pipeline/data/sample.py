"""The embedded workbook: real explanations and titles that people wrote, from the documentation of installed packages.

A topic is one entry of a package's documentation: its title is the entry's one-line summary, its lines are the rest of
the entry as a lecturer might say it aloud. A package is a course, and a module a lesson.
"""

from __future__ import annotations

import inspect
import pkgutil
import random
import re
import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import chain, zip_longest
from pathlib import Path
from pydoc_data.topics import topics as language_reference
from typing import Any, ClassVar, NamedTuple, TypeVar
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pandas as pd
from openpyxl import Workbook
from pydantic import Field

from pipeline.data.cells import as_clock
from pipeline.data.prose import prose, said, sections
from pipeline.errors import Rejected
from pipeline.files import file_aside
from pipeline.settings import Section

# Which chapters of the language reference, which modules and which classes make which lesson.
# What belongs to another lesson bears that one's number and a letter, as in real workbooks.
COURSES: dict[str, dict[int | str, tuple[str, ...] | str]] = {
    "Python language reference": {
        1: ("objects", "types", "specialattrs"),
        "1A": ("specialnames",),
        2: ("identifiers", "id-classes", "strings", "execmodel", "naming", "exceptions", "dynamic-features"),
        3: ("binary", "unary", "comparisons", "in", "booleans", "exprlists", "operator-summary", "dict"),
        4: ("assert", "assignment", "augassign", "del", "return", "yield", "raise", "break", "continue", "import"),
        5: ("compound",),
        6: ("truth", "typesseq", "typesmapping", "typesmethods", "string-methods", "formatstrings", "debugger"),
    },
    "scikit-learn documentation": {
        1: "sklearn.linear_model",
        2: "sklearn.ensemble",
        3: "sklearn.cluster",
        4: "sklearn.preprocessing",
        "4A": "sklearn.feature_selection",
        5: "sklearn.metrics",
        6: "sklearn.model_selection",
        7: "sklearn.decomposition",
        8: "sklearn.datasets",
    },
    "pandas documentation": {
        1: "pandas",
        2: "pandas.DataFrame",
        3: "pandas.Series",
        "3A": "pandas.Series.str",
        4: "pandas.Index",
        5: "pandas.api.typing.DataFrameGroupBy",
        6: "pandas.io.formats.style.Styler",
    },
    "SciPy documentation": {
        1: "scipy.stats",
        2: "scipy.optimize",
        3: "scipy.signal",
        4: "scipy.linalg",
        5: "scipy.interpolate",
        6: "scipy.sparse",
        "6A": "scipy.sparse.linalg",
        7: "scipy.ndimage",
        8: "scipy.integrate",
    },
    "PyTorch documentation": {
        1: "torch",
        2: "torch.nn",
        "2A": "torch.nn.functional",
        3: "torch.linalg",
        4: "torch.optim",
        5: "torch.distributed",
        6: "torch.fft",
        7: "torch.library",
    },
}
FEWEST_LESSONS = 6
TOPICS_TO_A_LESSON = 10
MOST_TOPICS_TO_A_LESSON = 20
WORDS_OF_A_TITLE = range(2, 15)
FEWEST_WORDS_OF_A_TOPIC = 100
WORDS_OF_A_LINE = (6, 14)

SIGNATURE = re.compile(r"[\w.]+ ?\(.*\)( -> .*)?", re.DOTALL)
WRITTEN_AT = (1980, 1, 1, 0, 0, 0)  # the earliest moment that a zip archive can name

T = TypeVar("T")
Lesson = tuple[str, int | str]


class SampleSettings(Section):
    """How much of the embedded workbook is built, and how it is spoken."""

    section: ClassVar[str] = "sample"

    topics: int = Field(ge=FEWEST_LESSONS)  # topics in the embedded workbook
    words_per_minute: int = Field(ge=30, le=600)  # how fast its lines are spoken
    seed: int = Field(ge=0)  # which topics are taken, how they fall into lines, and where the oddities stand


class Topic(NamedTuple):
    title: str
    words: tuple[str, ...]


def build_sample(settings: SampleSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sheets `lesson_topics` and `lesson_transcripts`, cell by cell as they stand in the workbook.

    Real workbooks are not tidy, and neither is this one: a few timestamps are text, titles carry stray spaces,
    a transcript cell is a number, and lines share their timestamp. All of it is valid input.

    Raises:
        Rejected: the documentation that is installed gives fewer topics than `settings` asks for.
    """
    chance = random.Random(settings.seed)
    numbers = _some(settings.topics, 0.005, chance)
    topics, lines = [], []
    follows = []  # whether a line follows another one of its topic
    for lesson, lesson_topics in _choose(settings).items():
        spoken = 0
        for topic in lesson_topics:
            texts: list[str | int] = list(_lines_of(topic.words, chance))
            if len(topics) in numbers:
                texts.insert(1, 1)
            topics.append((*lesson, _time(spoken, settings), topic.title))
            for text in texts:
                lines.append((*lesson, _time(spoken, settings), text))
                follows.append(text is not texts[0])
                spoken += len(str(text).split())
    return _untidy(
        pd.DataFrame(topics, columns=["course_title", "lesson_num", "timestamp", "topic"], dtype=object),
        pd.DataFrame(lines, columns=["course_title", "lesson_num", "timestamp", "transcript"], dtype=object),
        [row for row, another in enumerate(follows) if another],
        chance,
    )


def _untidy(
    topics: pd.DataFrame, lines: pd.DataFrame, following: list[int], chance: random.Random
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both sheets as people leave them; `following` are the lines that follow another one of their topic."""
    for row in _some(len(topics), 0.04, chance):
        topics.at[row, "timestamp"] = as_clock(topics.at[row, "timestamp"].total_seconds())
    for count, row in enumerate(sorted(_some(len(topics), 0.2, chance))):
        title = topics.at[row, "topic"]
        topics.at[row, "topic"] = [f"{title} ", f" {title}", title.replace(" ", "  ", 1)][count % 3]
    for place in sorted(_some(len(following), 0.001, chance)):
        row = following[place]
        lines.at[row, "timestamp"] = lines.at[row - 1, "timestamp"]
    return topics, lines


def write_workbook(topics: pd.DataFrame, lines: pd.DataFrame, path: Path) -> None:
    """Both sheets as an `.xlsx`; the same tables give the same bytes."""
    workbook = Workbook()
    workbook.remove(workbook.active)
    for name, table in (("lesson_topics", topics), ("lesson_transcripts", lines)):
        sheet = workbook.create_sheet(name)
        sheet.append(list(table.columns))
        for row in table.itertuples(index=False):
            sheet.append(row)
        for cell in chain.from_iterable(sheet.iter_rows()):
            cell.data_type = "s" if cell.data_type == "f" else cell.data_type  # a text may begin with "="
        sheet.freeze_panes = "A2"
        for column, width in zip("ABCD", (28, 12, 12, 90), strict=True):
            sheet.column_dimensions[column].width = width
    with file_aside(path, durable=False) as aside:
        workbook.save(aside)
        _forget_when(aside)


def _choose(settings: SampleSettings) -> dict[Lesson, list[Topic]]:
    """Topics by lesson, both in the documentation's order, spread evenly over courses and lessons."""
    courses = [[(course, number) for number in lessons] for course, lessons in COURSES.items()]
    chosen = _in_turn(courses)[: max(FEWEST_LESSONS, settings.topics // TOPICS_TO_A_LESSON)]
    found = _find_topics([lesson for course in courses for lesson in course if lesson in chosen])
    shuffled = []
    for lesson, topics in found.items():
        chance = random.Random(f"{settings.seed}/{lesson}")
        shuffled.append(chance.sample(topics, min(len(topics), MOST_TOPICS_TO_A_LESSON)))
    taken = _in_turn(shuffled)[: settings.topics]
    if len(taken) < settings.topics:
        raise Rejected(
            f"sample.topics in params.yaml asks for {settings.topics} topics, and the documentation of the installed "
            f"packages gives {len(taken)}. Set sample.topics to {len(taken)} or less."
        )
    taken = set(taken)
    return {lesson: [topic for topic in topics if topic in taken] for lesson, topics in found.items()}


def _find_topics(lessons: Iterable[Lesson]) -> dict[Lesson, list[Topic]]:
    """All topics of `lessons`. No title comes twice, and no paragraph: documentation repeats itself, and a text
    that stands in two lessons would tell a model about the test split."""
    titles, told = set(), set()
    found = {}
    for course, number in lessons:
        found[course, number] = []
        for entry in _entries(COURSES[course][number]):
            title, paragraphs = _title_and_prose(entry)
            paragraphs = {_end_of(paragraph): paragraph for paragraph in paragraphs if _end_of(paragraph) not in told}
            topic = Topic(title, tuple(" ".join(paragraphs.values()).split()))
            if _is_worth_telling(topic) and title.lower() not in titles:
                titles.add(title.lower())
                told.update(paragraphs)
                found[course, number].append(topic)
    return found


def _entries(place: tuple[str, ...] | str) -> Iterator[str]:
    """Documentation entries: a summary, an empty line, and the rest."""
    if isinstance(place, tuple):
        for chapter in place:
            for heading, lines in sections(language_reference[chapter]):
                yield "\n".join([heading, "", *lines])
        return
    home = pkgutil.resolve_name(place)
    for name in sorted(getattr(home, "__all__", dir(home))):
        if not name.startswith("_"):
            yield _docstring(home, name)


def _docstring(home: Any, name: str) -> str:
    """The docstring of `home`'s class, function, method or property `name`; nothing for what is none of these."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to look at a deprecated name is to be told so
        try:
            member = getattr(home, name)
        except (AttributeError, ImportError):  # announced, but to be switched on first
            return ""
        documented = inspect.isroutine(member) or inspect.isclass(member) or inspect.isdatadescriptor(member)
        return (inspect.getdoc(member) or "") if documented else ""


def _title_and_prose(entry: str) -> tuple[str, list[str]]:
    summary, _, body = entry.partition("\n\n")
    if SIGNATURE.fullmatch(summary.strip()):
        summary, _, body = body.lstrip().partition("\n\n")
    return said(summary).removesuffix("."), prose(body)


def _is_worth_telling(topic: Topic) -> bool:
    """Whether there is a title and enough to say, and the title is more than the words that the text begins with."""
    title = topic.title.split()
    return (
        len(title) in WORDS_OF_A_TITLE
        and not topic.title.endswith(":")
        and len(topic.words) >= FEWEST_WORDS_OF_A_TOPIC
        and _bare(title) != _bare(topic.words[: len(title)])
    )


def _end_of(paragraph: str) -> str:
    """What is compared of a paragraph: one that is repeated begins with another name, and ends the same."""
    return " ".join(paragraph.split()[-12:])


def _bare(words: Iterable[str]) -> list[str]:
    return [re.sub(r"\W", "", word).lower() for word in words]


def _lines_of(words: tuple[str, ...], chance: random.Random) -> Iterator[str]:
    fewest, most = WORDS_OF_A_LINE
    start = 0
    while len(words) - start > most:
        end = start + chance.randint(fewest, min(most, len(words) - start - fewest))
        yield " ".join(words[start:end])
        start = end
    yield " ".join(words[start:])


def _time(spoken: int, settings: SampleSettings) -> timedelta:
    """When a line begins before which `spoken` words were said, in whole seconds."""
    return timedelta(seconds=spoken * 60 // settings.words_per_minute)


def _some(count: int, share: float, chance: random.Random) -> set[int]:
    """About `share` of the numbers below `count`, and at least two."""
    return set(chance.sample(range(count), max(2, round(share * count))))


def _in_turn(lists: Iterable[list[T]]) -> list[T]:
    """The first of each list, then the second of each, and so on."""
    return [item for turn in zip_longest(*lists) for item in turn if item is not None]


def _forget_when(workbook: Path) -> None:
    """Rewrites the archive without the time at which it was written, which openpyxl notes in two places."""
    with ZipFile(workbook) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    with ZipFile(workbook, "w") as archive:
        for name, content in parts:
            timeless = re.sub(rb"(?<=W3CDTF\">)[^<]*", b"1980-01-01T00:00:00Z", content)
            archive.writestr(ZipInfo(name, WRITTEN_AT), timeless, ZIP_DEFLATED)
