"""What a lecturer might say aloud of a piece of documentation: its prose, without code, formulas, tables and markup."""

from __future__ import annotations

import re
from collections.abc import Iterator

UNDERLINE = re.compile(r"([-=*~])\1{2,}\s*")
TABLE = re.compile(r"^ *[=+-]{2,}[ +][=+ -]*\n(?:.*\S.*\n)*", re.MULTILINE)
UNSPOKEN_SECTIONS = {"attributes", "example", "examples", "methods", "raises", "references", "see also", "warns"}
UNSPOKEN_BLOCK = re.compile(
    r"\.\. (?!(note|warning|important|tip|hint)::)|(examples?|shape|references|raises|inputs|outputs)\b.*:\s*$"
    r"|>>>|.*::=",
    re.IGNORECASE,
)
LABEL = re.compile(r"((keyword )?arg(ument)?s?|parameters|returns?|notes?|warnings?):+", re.IGNORECASE)
BULLET = re.compile(r"^(?:[-*•] |\d+\. )")
PARAMETER = re.compile(r"^(\*{0,2}\w+(?:, \w+)*) ?(?:\((?:[^()]|\([^()]*\))*\))?:(?: +|$)")
TYPED_NAME = re.compile(r"([\w*]+(?:, [\w*]+)*) ?:.*")
PLAIN_WORD = re.compile(r"[(\"'\u2018\u201c]*[A-Za-z][A-Za-z'\u2019/-]*[)\"'\u2019\u201d]*[.,;:?!]*")

# What stands on the left is said as what stands on the right.
SAID_AS = [
    (re.compile(r"\\(?:text|math\w+|operatorname|left|right|bar|hat|frac|quad)\b"), ""),
    (re.compile(r"\[[\w+ .-]+\]_"), " "),  # references
    (re.compile(r"``([^`]+)``|:math:`([^`]+)`"), r"\1\2"),
    (re.compile(r"(?::[\w:+-]+:)?`[~!][\w.]*?(\w+)`"), r"\1"),  # roles that show the last part of a name
    (re.compile(r"(?::[\w:+-]+:)?`([^`<]+?)(?:\s*<[^`]*>)?`_{0,2}"), r"\1"),
    (re.compile(r"\.\. \w+::"), " "),
    (re.compile(r"\(?https?://\S+|\bsphx_glr_\w+(\.py)?"), " "),
    (re.compile(r"(?<!\w)(\*{1,2})(?=\S)([^*]*[^*\s])\1(?!\w)"), r"\2"),
    (re.compile(r"\\ |[\\{}$]|:(?=:(\s|$))"), ""),
]
SYMBOLS = {
    "=": "equals", "==": "equals", "!=": "is not", "<": "is less than", ">": "is greater than",
    "<=": "is at most", ">=": "is at least", "+": "plus", "*": "times", "/": "over",
}  # fmt: skip


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each underlined heading and the lines below it; what stands before the first heading has the heading ''."""
    heading, lines = "", []
    for line in text.splitlines():
        if UNDERLINE.fullmatch(line) and lines and lines[-1].strip():
            following = lines.pop().strip()
            yield heading, lines
            heading, lines = following, []
        else:
            lines.append(line)
    yield heading, lines


def said(text: str) -> str:
    """`text` on one line, its markup turned into plain words."""
    for pattern, words in SAID_AS:
        text = pattern.sub(words, text)
    words = (SYMBOLS.get(word, word) for word in text.split())
    return " ".join(word for word in words if any(character.isalnum() for character in word))


def is_plain(text: str) -> bool:
    """Whether most of `text` is words, as prose is, and code and formulas are not."""
    words = text.split()
    return len(words) >= 4 and sum(bool(PLAIN_WORD.fullmatch(word)) for word in words) >= 0.75 * len(words)


def prose(doc: str) -> list[str]:
    """The paragraphs of `doc` that can be said aloud, its description and notes before its parameters and results."""
    parts = [(heading.lower(), lines) for heading, lines in sections(TABLE.sub("", doc))]
    parts.sort(key=lambda part: part[0] not in ("", "notes"))
    return [
        paragraph
        for heading, lines in parts
        if heading not in UNSPOKEN_SECTIONS
        for paragraph in _paragraphs(lines, names_first=heading not in ("", "notes"))
        if is_plain(paragraph)
    ]


def _paragraphs(lines: list[str], *, names_first: bool) -> Iterator[str]:
    """Paragraphs, list items and parameters, each on one line.

    With `names_first` a line without indentation is `name : type`, and of it the name is kept.
    """
    paragraph: list[str] = []
    for line in [*_without_blocks(lines), ""]:
        text = line.strip()
        header = names_first and line[:1].strip()
        if not text or header or BULLET.match(text) or PARAMETER.match(text) or LABEL.fullmatch(text):
            yield said(" ".join(paragraph))
            paragraph = []
        if header:
            name = TYPED_NAME.fullmatch(text)
            paragraph.append(f"{name[1]}:" if name else "")
        elif not LABEL.fullmatch(text):
            paragraph.append(PARAMETER.sub(r"\1: ", BULLET.sub("", text)))


def _without_blocks(lines: list[str]) -> Iterator[str]:
    """The lines that stand in no example, formula, literal or other block that only an eye can follow."""
    silent_below: int | None = None
    for line in lines:
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if silent_below is not None and (not text or indent > silent_below):
            continue
        unspoken = UNSPOKEN_BLOCK.match(text)
        silent_below = indent if unspoken or text.endswith("::") else None
        if not unspoken:
            yield line
