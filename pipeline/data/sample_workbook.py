"""Build the embedded workbook from the documentation of installed packages, which people wrote.

A package is a course, a module is a lesson, and one entry of the documentation is a topic. The entry's one-line summary
is the title, and its other sentences are the lines.
"""

from __future__ import annotations

import inspect
import pkgutil
import random
import re
import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import zip_longest
from pydoc_data.topics import topics as language_reference
from typing import Any, ClassVar, NamedTuple, TypeVar

import pandas as pd
from pydantic import Field

from pipeline.data.docstring_prose import as_plain_words, extract_prose, split_sections
from pipeline.data.single_values import as_clock
from pipeline.errors import Rejected
from pipeline.settings import Section

# Lessons by course: the chapters of the language reference, the module or the class that each comes from.
# A number with a letter, such as 1A, continues the lesson before, as in real workbooks.
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
MIN_LESSONS = 6
TOPICS_PER_LESSON = 10
MAX_TOPICS_PER_LESSON = 20
TITLE_WORDS = range(2, 15)
MIN_TOPIC_WORDS = 100
LINE_WORDS = (6, 14)

SIGNATURE = re.compile(r"[\w.]+ ?\(.*\)( -> .*)?", re.DOTALL)

T = TypeVar("T")
Lesson = tuple[str, int | str]


class SampleSettings(Section):
    """Settings of the embedded workbook."""

    section: ClassVar[str] = "sample"

    topics: int = Field(ge=MIN_LESSONS)  # number of topics
    words_per_minute: int = Field(ge=30, le=600)  # speed of speech, which decides the times
    seed: int = Field(ge=0)  # decides the choice of topics, the ends of lines and the irregular cells


class Topic(NamedTuple):
    """A title and the words of its lines."""

    title: str
    words: tuple[str, ...]


def build_sample(settings: SampleSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the cells of the sheets `lesson_topics` and `lesson_transcripts`.

    Like real workbooks, this one is irregular but valid: some timestamps are text, titles have extra spaces, some
    transcript cells are numbers, and some lines have the same timestamp.

    Raises:
        Rejected: the installed documentation gives fewer topics than `settings` asks for.
    """
    chance = random.Random(settings.seed)
    with_number = _sample_numbers(settings.topics, 0.005, chance)  # topics with a cell that is a number
    topics: list[tuple[object, ...]] = []
    lines: list[tuple[object, ...]] = []
    follows: list[bool] = []  # for each line, whether it follows another line of its topic
    for lesson, lesson_topics in _choose_topics(settings).items():
        spoken = 0
        for topic in lesson_topics:
            texts: list[str | int] = list(_split_into_lines(topic.words, chance))
            if len(topics) in with_number:
                texts.insert(1, 1)
            topics.append((*lesson, _time(spoken, settings), topic.title))
            for text in texts:
                lines.append((*lesson, _time(spoken, settings), text))
                follows.append(text is not texts[0])
                spoken += len(str(text).split())
    return _make_irregular(
        pd.DataFrame(topics, columns=["course_title", "lesson_num", "timestamp", "topic"], dtype=object),
        pd.DataFrame(lines, columns=["course_title", "lesson_num", "timestamp", "transcript"], dtype=object),
        [row for row, another in enumerate(follows) if another],
        chance,
    )


def _make_irregular(
    topics: pd.DataFrame, lines: pd.DataFrame, following: list[int], chance: random.Random
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add the irregularities of real workbooks.

    Args:
        topics: the cells of the first sheet.
        lines: the cells of the second sheet.
        following: the positions of lines that follow another line of their topic.
        chance: the source of random numbers.
    """
    for row in _sample_numbers(len(topics), 0.04, chance):
        topics.at[row, "timestamp"] = as_clock(topics.at[row, "timestamp"].total_seconds())
    for count, row in enumerate(sorted(_sample_numbers(len(topics), 0.2, chance))):
        title = topics.at[row, "topic"]
        topics.at[row, "topic"] = [f"{title} ", f" {title}", title.replace(" ", "  ", 1)][count % 3]
    for place in sorted(_sample_numbers(len(following), 0.001, chance)):
        row = following[place]
        lines.at[row, "timestamp"] = lines.at[row - 1, "timestamp"]
    return topics, lines


def _choose_topics(settings: SampleSettings) -> dict[Lesson, list[Topic]]:
    """Choose topics by lesson, spread evenly over courses and lessons, in the order of the documentation."""
    courses = [[(course, number) for number in lessons] for course, lessons in COURSES.items()]
    chosen = _interleave(courses)[: max(MIN_LESSONS, settings.topics // TOPICS_PER_LESSON)]
    found = _find_topics([lesson for course in courses for lesson in course if lesson in chosen])
    shuffled = []
    for lesson, topics in found.items():
        chance = random.Random(f"{settings.seed}/{lesson}")
        shuffled.append(chance.sample(topics, min(len(topics), MAX_TOPICS_PER_LESSON)))
    taken = _interleave(shuffled)[: settings.topics]
    if len(taken) < settings.topics:
        raise Rejected(
            f"sample.topics in params.yaml is {settings.topics}, but the documentation of the installed packages gives "
            f"only {len(taken)} topics. Set sample.topics to {len(taken)} or less."
        )
    chosen_topics = set(taken)
    return {lesson: [topic for topic in topics if topic in chosen_topics] for lesson, topics in found.items()}


def _find_topics(lessons: Iterable[Lesson]) -> dict[Lesson, list[Topic]]:
    """Find all topics of `lessons`, without repeated titles and paragraphs.

    Documentation repeats itself, and a text in two lessons could be in both the train and the test split.
    """
    titles: set[str] = set()
    used: set[str] = set()
    found: dict[Lesson, list[Topic]] = {}
    for course, number in lessons:
        found[course, number] = []
        for entry in _documentation_entries(COURSES[course][number]):
            title, prose = _title_and_prose(entry)
            paragraphs = {_paragraph_end(each): each for each in prose if _paragraph_end(each) not in used}
            topic = Topic(title, tuple(" ".join(paragraphs.values()).split()))
            if _is_usable(topic) and title.lower() not in titles:
                titles.add(title.lower())
                used.update(paragraphs)
                found[course, number].append(topic)
    return found


def _documentation_entries(place: tuple[str, ...] | str) -> Iterator[str]:
    """Yield documentation entries: a summary, an empty line, and the rest."""
    if isinstance(place, tuple):
        for chapter in place:
            for heading, lines in split_sections(language_reference[chapter]):
                yield "\n".join([heading, "", *lines])
        return
    home = pkgutil.resolve_name(place)
    for name in sorted(getattr(home, "__all__", dir(home))):
        if not name.startswith("_"):
            yield _docstring(home, name)


def _docstring(home: Any, name: str) -> str:
    """Return the docstring of a class, function, method or property; "" for anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated names warn on access
        try:
            member = getattr(home, name)
        except (AttributeError, ImportError):  # listed, but disabled by default
            return ""
        documented = inspect.isroutine(member) or inspect.isclass(member) or inspect.isdatadescriptor(member)
        return (inspect.getdoc(member) or "") if documented else ""


def _title_and_prose(entry: str) -> tuple[str, list[str]]:
    summary, _, body = entry.partition("\n\n")
    if SIGNATURE.fullmatch(summary.strip()):
        summary, _, body = body.lstrip().partition("\n\n")
    return as_plain_words(summary).removesuffix("."), extract_prose(body)


def _is_usable(topic: Topic) -> bool:
    """Return whether a topic has a title and enough words, and the title does not just repeat the first words."""
    title = topic.title.split()
    return (
        len(title) in TITLE_WORDS
        and not topic.title.endswith(":")
        and len(topic.words) >= MIN_TOPIC_WORDS
        and _normalise_words(title) != _normalise_words(topic.words[: len(title)])
    )


def _paragraph_end(paragraph: str) -> str:
    """Return the last words of a paragraph. Repeated paragraphs start with different names but end alike."""
    return " ".join(paragraph.split()[-12:])


def _normalise_words(words: Iterable[str]) -> list[str]:
    return [re.sub(r"\W", "", word).lower() for word in words]


def _split_into_lines(words: tuple[str, ...], chance: random.Random) -> Iterator[str]:
    fewest, most = LINE_WORDS
    start = 0
    while len(words) - start > most:
        end = start + chance.randint(fewest, min(most, len(words) - start - fewest))
        yield " ".join(words[start:end])
        start = end
    yield " ".join(words[start:])


def _time(spoken: int, settings: SampleSettings) -> timedelta:
    """Return the time, in whole seconds, after `spoken` words."""
    return timedelta(seconds=spoken * 60 // settings.words_per_minute)


def _sample_numbers(count: int, share: float, chance: random.Random) -> set[int]:
    """Draw about `share` of the numbers below `count`, and at least two."""
    return set(chance.sample(range(count), max(2, round(share * count))))


def _interleave(lists: Iterable[list[T]]) -> list[T]:
    """Return the first item of each list, then the second of each, and so on."""
    return [item for turn in zip_longest(*lists) for item in turn if item is not None]
