"""From what a model wrote to a title as it is shown: whole quotes, no markup, no marks of a transcript, the course's
own capital letters. Nothing is added but capitals: every word of such a title was written by the model."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pydantic import Field

from pipeline.settings import Settings

LONGEST = 120
"""Characters that a title may have, whatever its course's titles have."""

_LOOKED_AT = 2000  # characters of what a model wrote; no title begins behind them
_FEWEST_WORDS = 8  # that any course may use, however short its titles are
_EVIDENCE = 10  # words that show how a course writes capitals
_AGREED = 0.75  # share of them that must agree
_SPELLINGS = 500  # the most frequent ones are kept with a model

_SMALL = re.compile(
    "a|an|and|as|at|but|by|for|from|in|into|is|nor|of|on|or|over|per|so|than|that|the|to|via|with", re.IGNORECASE
)

_ELEMENTS = (
    "a|abbr|b|big|blockquote|br|center|cite|code|dd|del|div|dl|dt|em|font|h1|h2|h3|h4|h5|h6|hr|i|img|ins|kbd|li|mark|ol|p"
    "|pre|q|s|small|span|strike|strong|sub|sup|table|td|th|title|tr|tt|u|ul|v"
)
_TAG = re.compile(
    rf"</?(?:{_ELEMENTS})(?:[\s.][^<>]*)?/?>"
    r"|</?(?:pad|unk|mask|bos|eos|sep|cls|extra_id_\d+)>"  # of tokenizers
    r"|<\|[^<>|]*\|>",
    re.IGNORECASE,
)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\((?:https?:|www\.|[/#])[^()]*\)")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3})(?=\S)(.+?)(?<=\S)\1(?![\w*])")
_BLOCK = re.compile(r"^\s*(?:#{1,6}\s|>\s|[-*+•]\s)")  # a heading, a quotation or a point of a list
_LABEL = re.compile(r"^\W*(?:(?:topic|chapter|lecture|video)\s+)?title\s*:", re.IGNORECASE)

_SOUNDS = "applause|blank_audio|cheering|coughs|crosstalk|inaudible|laughing|laughs|laughter|sighs|unintelligible"
_MARK = re.compile(
    rf"\[\s*(?:{_SOUNDS}|foreign|music|music playing|noise|silence)\s*(?:\]|$)|\(\s*(?:{_SOUNDS})\s*\)|[♩♪♫♬]",
    re.IGNORECASE,
)

_CLOSES = {")": "(", "]": "[", "}": "{", "»": "«", "›": "‹", "”": "“„", "“": "„"}
_OPENS = frozenset("([{«‹“„")
_WRAPPED = re.compile(r'"([^"]*)"|“([^“”]*)”|„([^„“”]*)[“”]|«([^«»]*)»')
_WRAPPED_SINGLY = re.compile(r"['‘](.*)['’]")
_OPENING = re.compile(r"(?<!\w)(?:'(?=[^\W\d])|‘)")
_CLOSING = re.compile(r"(?<=[^\s'‘])['’](?!\w)")
_ALONE = re.compile(r"(?<!\S)(?:['’‘]+|\"\s*\"|“\s*”|„\s*[“”]|«\s*»|\(\s*\)|\[\s*\]|\{\s*\})(?!\S)")
_BEFORE = re.compile(r"^(?:[\s,;:|•·–—*~…]+|\.{2,}|[.\-_](?!\w))+")
_AFTER = re.compile(r"(?:[\s,;:|•·–—*~…\-]|\.{2,}+)++$")
_ABBREVIATIONS = frozenset(("al", "co", "etc", "inc", "jr", "no", "vs"))

_WORD = re.compile(r"\w+")
_CODE = re.compile(r"[=_<>{}*\\/]|\w\(")  # in a word that is none: f(x), item_tfms=Resize(480
_STUCK = re.compile(r"([^\W\d_]{1,12})\1{4,}", re.IGNORECASE)  # the same letters five times on end


class TitleStyle(Settings):
    """How a course writes its titles."""

    capitals: Literal["title", "sentence", "keep"] = "keep"  # Every Word, Only the first, or as the model wrote them
    spellings: dict[str, str] = {}  # of words with capitals of their own, by their small letters: {"lstm": "LSTM"}
    words: int = Field(default=16, ge=1)  # that a title may have
    opening: str = ""  # what most lessons call their opening


PLAIN = TitleStyle()


def tidy(written: str, style: TitleStyle = PLAIN, text: str = "") -> str:
    """`written` as a title: one line within the style's length, or "" where no word is left of it.

    Args:
        text: that it is the title of. It shows which words have capitals of their own.
    """
    title, before = written[:_LOOKED_AT], None
    while title != before:  # what is taken away may uncover more
        before = title
        title = _cut(_trimmed(_balanced(_MARK.sub(" ", _plain(title)))), style.words)
    return _in_capitals(title, style, text) if _has_word(title) else ""


def usable(title: str) -> bool:
    """Whether a reader can be shown `title`, which is tidy: it is not empty, and does not go round in circles."""
    words = _WORD.findall(title.casefold())
    thrice = any(one == two == three for one, two, three in zip(words, words[1:], words[2:], strict=False))
    circling = len(words) >= 6 and 2 * len(set(words)) <= len(words)
    return _has_word(title) and not thrice and not circling and not _STUCK.search(title)


def without_marks(text: str) -> str:
    """`text` without what a transcript says of sounds: [Music]."""
    return _MARK.sub(" ", text)


def learn_style(titles: Iterable[str], opening: str = "") -> TitleStyle:
    """How `titles` are written; capitals are kept as they come where most of the titles do not agree on them.

    Args:
        opening: what most lessons call their opening.
    """
    words = [title.split() for title in titles]
    quiet = [title for title in words if not _shouted(title)]
    capitals = _capitals([word for title in quiet for word in title[1:]])
    return TitleStyle(
        capitals=capitals,
        spellings=_spellings(quiet, names=capitals == "sentence"),
        words=max([_FEWEST_WORDS, *map(len, words)]),
        opening=opening,
    )


def _plain(title: str) -> str:
    """The first line that has a word in it, as text without markup and without what cannot be printed."""
    title = next(filter(_has_word, html.unescape(title).splitlines()), "")
    for pattern, left in ((_TAG, " "), (_LINK, r"\1"), (_BLOCK, ""), (_EMPHASIS, r"\2"), (_LABEL, "")):
        title = pattern.sub(left, title)
    return "".join(map(_printed, title))


def _printed(char: str) -> str:
    match unicodedata.category(char):
        case "Cf":
            return char if char in "\u200c\u200d" else ""  # the joiners are part of how some scripts write a word
        case "Cc" | "Cs" | "Co" | "Cn" | "Zl" | "Zp" | "Zs":
            return " "
        case _:
            return " " if char in "`\ufffd" else char


def _balanced(title: str) -> str:
    """`title` without the quotes and brackets that have no other half, or nothing between them."""
    whole = _WRAPPED.fullmatch(title.strip())
    if whole:
        return next(part for part in whole.groups() if part is not None)
    whole = _WRAPPED_SINGLY.fullmatch(title.strip())
    if whole and not _OPENING.search(whole[1]) and not _CLOSING.search(whole[1]):
        return whole[1]
    lonely = _lonely(title)
    return _ALONE.sub(" ", "".join(" " if place in lonely else char for place, char in enumerate(title)))


def _lonely(title: str) -> set[int]:
    """Places of quotes and brackets without their other half. An apostrophe needs none."""
    lonely: set[int] = set()
    opened: list[int] = []
    for place, char in enumerate(title):
        if opened and title[opened[-1]] in _CLOSES.get(char, ""):
            opened.pop()
        elif char in _OPENS:
            opened.append(place)
        elif char in _CLOSES:
            lonely.add(place)
    straight = [place for place, char in enumerate(title) if char == '"']
    closing = [found.start() for found in _CLOSING.finditer(title)]
    for found in _OPENING.finditer(title):
        if any(place > found.start() for place in closing):
            closing.pop(next(i for i, place in enumerate(closing) if place > found.start()))
        else:
            lonely.add(found.start())
    return lonely.union(opened, straight[-1:] if len(straight) % 2 else [])


def _trimmed(title: str) -> str:
    """`title` with single spaces, and without the punctuation around it that belongs to no sentence."""
    title = _AFTER.sub("", _BEFORE.sub("", " ".join(title.split())))
    last = title.split()[-1:] or [""]
    stem = last[0].removesuffix(".")
    if title.endswith(".") and "." not in stem and stem.casefold() not in _ABBREVIATIONS:
        return title[:-1].rstrip()
    return title


def _cut(title: str, most: int) -> str:
    """`title` within its length, at the end of a word with a meaning."""
    words = title.split()
    if len(words) <= most and len(title) <= LONGEST:
        return title
    words = words[:most]
    while words and (len(" ".join(words)) > LONGEST or _SMALL.fullmatch(_bare(words[-1]))):
        words.pop()
    return " ".join(words)


def _in_capitals(title: str, style: TitleStyle, text: str) -> str:
    if style.capitals == "keep":
        return title
    words, shown = title.split(), _Shown(text, style)
    shouted = _shouted(words)
    first = _capital_of(shown.spelt(words[0], shouted), shown)
    if style.capitals == "title":
        rest = [_of_title_case(shown.spelt(word, shouted), shouted, shown) for word in words[1:]]
    else:
        # One that has capitals everywhere says by none of them that a word is a name.
        all_large = shouted or _capitals(words[1:], evidence=2) == "title"
        rest = [_of_sentence_case(shown.spelt(word, shouted), all_large, shown) for word in words[1:]]
    return " ".join([first, *rest])


class _Shown:
    """How words are spelt, as a text and a course's titles show it."""

    def __init__(self, text: str, style: TitleStyle) -> None:
        words = _WORD.findall(text)
        telling = [] if _shouted(words) else words
        self._spellings = {**_spellings([telling]), **style.spellings}
        self._small = {word for word in telling if word.islower()}
        self._large = {word.casefold() for word in telling if word[:1].isupper()}

    def spelt(self, word: str, shouted: bool) -> str:
        """`word` with the capitals that are its own; if all of its title was in capitals, with no others."""
        if shouted and not self.spells_itself(word):
            word = "".join(map(_lower, word))
        return _WORD.sub(lambda found: self._spelling(found[0]), word)

    def _spelling(self, word: str) -> str:
        spelling = self._spellings.get(word.casefold(), word)
        return spelling if len(spelling) == len(word) else word

    def spells_itself(self, word: str) -> bool:
        """Whether no rule may change a capital in `word`."""
        return any(self._spellings.get(part.casefold()) == part for part in _WORD.findall(word))

    def is_name(self, word: str) -> bool:
        """Whether the text never has it small."""
        return word.casefold() in self._large and word.casefold() not in self._small

    def is_small(self, word: str) -> bool:
        return word.casefold() in self._small


def _is_fixed(word: str, shown: _Shown) -> bool:
    return shown.spells_itself(word) or bool(_CODE.search(word)) or any(map(_capital_within, _WORD.findall(word)))


def _capital_of(word: str, shown: _Shown) -> str:
    return word if _is_fixed(word, shown) else _with_first(word, _upper)


def _of_title_case(word: str, shouted: bool, shown: _Shown) -> str:
    small = _SMALL.fullmatch(_bare(word)) and (shouted or word.islower())
    return word if small or _is_fixed(word, shown) else _with_first(word, _upper)


def _of_sentence_case(word: str, all_large: bool, shown: _Shown) -> str:
    bare = _bare(word)
    no_name = not shown.is_name(bare) if all_large else shown.is_small(bare)
    return _with_first(word, _lower) if no_name and not _is_fixed(word, shown) else word


def _bare(word: str) -> str:
    return word.strip("()[]\"'“”‘’«»,;:.?!")


def _capitals(words: Sequence[str], evidence: int = _EVIDENCE) -> Literal["title", "sentence", "keep"]:
    """`words` are those of titles, without each title's first."""
    telling = [word for word in words if len(word) > 3 and word.isalpha() and not _capital_within(word)]
    telling = [word for word in telling if word.lower() != word.upper() and not _SMALL.fullmatch(word)]
    large = sum(word[0].isupper() for word in telling)
    if len(telling) >= evidence and large >= _AGREED * len(telling):
        return "title"
    if len(telling) >= evidence and large <= (1 - _AGREED) * len(telling):
        return "sentence"
    return "keep"


def _spellings(texts: Iterable[Sequence[str]], *, names: bool = False) -> dict[str, str]:
    """Words that are written with capitals of their own more often than not, the most frequent ones.

    Args:
        names: whether a capital letter ahead of a small word is one, too, where the word is not the first.
    """
    counts: Counter[str] = Counter()
    for words in texts:
        for place, word in enumerate(words):
            counts.update(part for part in _WORD.findall(word) if place or _capital_within(part))
    by_word: dict[str, Counter[str]] = {}
    for word, count in counts.items():
        by_word.setdefault(word.casefold(), Counter())[word] += count
    found: Counter[str] = Counter()
    for forms in by_word.values():
        form, count = max(forms.items(), key=lambda item: (item[1], item[0]))
        own = _capital_within(form) or (names and form[:1].isupper())
        if own and 2 * count > forms.total():
            found[form] = count
    kept = sorted(found, key=lambda form: (-found[form], form))[:_SPELLINGS]
    return {form.casefold(): form for form in sorted(kept) if len(form.casefold()) == len(form)}


def _capital_within(word: str) -> bool:
    return any(char.isupper() for char in word[1:])


def _shouted(words: Sequence[str]) -> bool:
    """Whether most of `words` are in capitals, which then say nothing of a single word."""
    telling = [word for word in words if any(map(_tells_case, _WORD.findall(word)))]
    return len(words) > 1 and 2 * sum(map(str.isupper, telling)) > len(telling)


def _tells_case(part: str) -> bool:
    """Whether `part` has letters beside the first, which may be large in any title."""
    return sum(char.isupper() or char.islower() for char in part) > 1


def _has_word(text: str) -> bool:
    return any(map(str.isalnum, text))


def _with_first(word: str, change: Callable[[str], str]) -> str:
    """`word` with its first letter changed; a number ahead of it stands in a capital's place."""
    for place, char in enumerate(word):
        if char.isalnum():
            return word[:place] + change(char) + word[place + 1 :]
    return word


def _upper(char: str) -> str:
    return char.upper() if char.upper().lower() == char else char


def _lower(char: str) -> str:
    return char.lower() if char.lower().upper() == char else char
