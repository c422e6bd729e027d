"""Extract prose from docstrings: sentences that a lecturer could speak, without code, formulas, tables and markup."""

from __future__ import annotations

import re
from collections.abc import Iterator

UNDERLINE = re.compile(r"([-=*~])\1{2,}\s*")
TABLE = re.compile(r"^ *[=+-]{2,}[ +][=+ -]*\n(?:.*\S.*\n)*", re.MULTILINE)
SKIPPED_SECTIONS = {"attributes", "example", "examples", "methods", "raises", "references", "see also", "warns"}
SKIPPED_BLOCK = re.compile(
    r"\.\. (?!(note|warning|important|tip|hint)::)|(examples?|shape|references|raises|inputs|outputs)\b.*:\s*$"
    r"|>>>|.*::=",
    re.IGNORECASE,
)
LABEL = re.compile(r"((keyword )?arg(ument)?s?|parameters|returns?|notes?|warnings?):+", re.IGNORECASE)
BULLET = re.compile(r"^(?:[-*•] |\d+\. )")
PARAMETER = re.compile(r"^(\*{0,2}\w+(?:, \w+)*) ?(?:\((?:[^()]|\([^()]*\))*\))?:(?: +|$)")
TYPED_NAME = re.compile(r"([\w*]+(?:, [\w*]+)*) ?:.*")
PLAIN_WORD = re.compile(r"[(\"'\u2018\u201c]*[A-Za-z][A-Za-z'\u2019/-]*[)\"'\u2019\u201d]*[.,;:?!]*")

# Markup, and its replacement.
REPLACEMENTS = [
    (re.compile(r"\\(?:text|math\w+|operatorname|left|right|bar|hat|frac|quad)\b"), ""),
    (re.compile(r"\[[\w+ .-]+\]_"), " "),  # references
    (re.compile(r"``([^`]+)``|:math:`([^`]+)`"), r"\1\2"),
    (re.compile(r"(?::[\w:+-]+:)?`[~!][\w.]*?(\w+)`"), r"\1"),  # roles that show only the last part of a name
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


def split_sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each underlined heading with the lines below it. Lines before the first heading have the heading ''."""
    heading = ""
    lines: list[str] = []
    for line in text.splitlines():
        if UNDERLINE.fullmatch(line) and lines and lines[-1].strip():
            following = lines.pop().strip()
            yield heading, lines
            heading, lines = following, []
        else:
            lines.append(line)
    yield heading, lines


def as_plain_words(text: str) -> str:
    """Turn text with markup into plain words on one line."""
    for pattern, replacement in REPLACEMENTS:
        text = pattern.sub(replacement, text)
    words = (SYMBOLS.get(word, word) for word in text.split())
    return " ".join(word for word in words if any(character.isalnum() for character in word))


def is_prose(text: str) -> bool:
    """Return whether at least three quarters of a text are plain words, unlike code and formulas."""
    words = text.split()
    return len(words) >= 4 and sum(bool(PLAIN_WORD.fullmatch(word)) for word in words) >= 0.75 * len(words)


def extract_prose(doc: str) -> list[str]:
    """Return the paragraphs of prose: description and notes first, then parameters and results."""
    parts = [(heading.lower(), lines) for heading, lines in split_sections(TABLE.sub("", doc))]
    parts.sort(key=lambda part: part[0] not in ("", "notes"))
    return [
        paragraph
        for heading, lines in parts
        if heading not in SKIPPED_SECTIONS
        for paragraph in _paragraphs(lines, names_first=heading not in ("", "notes"))
        if is_prose(paragraph)
    ]


def _paragraphs(lines: list[str], *, names_first: bool) -> Iterator[str]:
    """Yield paragraphs, list items and parameters, each on one line.

    Args:
        lines: the lines of a section.
        names_first: whether a line without indentation is `name : type`; the type is dropped.
    """
    paragraph: list[str] = []
    for line in [*_skip_blocks(lines), ""]:
        text = line.strip()
        header = names_first and line[:1].strip()
        if not text or header or BULLET.match(text) or PARAMETER.match(text) or LABEL.fullmatch(text):
            yield as_plain_words(" ".join(paragraph))
            paragraph = []
        if header:
            name = TYPED_NAME.fullmatch(text)
            paragraph.append(f"{name[1]}:" if name else "")
        elif not LABEL.fullmatch(text):
            paragraph.append(PARAMETER.sub(r"\1: ", BULLET.sub("", text)))


def _skip_blocks(lines: list[str]) -> Iterator[str]:
    """Yield the lines outside examples, formulas, literal blocks and other blocks that cannot be read aloud."""
    skipped_indent: int | None = None
    for line in lines:
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if skipped_indent is not None and (not text or indent > skipped_indent):
            continue
        skipped = SKIPPED_BLOCK.match(text)
        skipped_indent = indent if skipped or text.endswith("::") else None
        if not skipped:
            yield line
