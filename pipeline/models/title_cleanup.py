"""Clean up a model's output to a title: one line, no markup, no marks of sounds, paired quotes, the course's capitals.

The clean-up changes capitals and removes characters. It adds no word: all words of a title come from the model.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from pipeline.settings import Settings

LONGEST = 120
"""Most characters of a title in any course."""

_READ_CHARACTERS = 2000  # of a model's output; a title starts before
_MIN_WORD_LIMIT = 8  # the word limit of courses with shorter titles
_MIN_EVIDENCE = 10  # words that must show how a course writes capitals
_TITLE_CASE = 0.9  # share of these words with a capital in title case; nouns alone give a German title two thirds
_SENTENCE_CASE = 0.8  # share of the distinct words in lower case in sentence case; the others are names
_CAPITALS_ANYWHERE = 0.75  # with a larger share of capitalised words in a title, a capital marks no name
_MAX_SPELLINGS = 500  # a style keeps this many spellings, the most frequent ones
_MAX_EXCEPTIONS = 2000
_MIN_TITLED = 0.1  # of the passages with a keyword such as FROM, the share whose title has it too

_SMALL_WORD = re.compile(
    "a|an|and|as|at|but|by|for|from|in|into|is|nor|of|on|or|over|per|so|than|that|the|to|via|with", re.IGNORECASE
)

_ELEMENTS = (
    "a|abbr|b|big|blockquote|br|center|cite|code|dd|del|div|dl|dt|em|font|h1|h2|h3|h4|h5|h6|hr|i|img|ins|kbd|li|mark|ol|p"
    "|pre|q|s|small|span|strike|strong|sub|sup|table|td|th|title|tr|tt|u|ul|v"
)
_TAG = re.compile(
    rf"</?(?:{_ELEMENTS})(?:[\s.][^<>]*)?/?>"
    r"|</?(?:pad|unk|mask|bos|eos|sep|cls|extra_id_\d+)>"  # special tokens
    r"|<\|[^<>|]*\|>",
    re.IGNORECASE,
)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\((?:https?:|www\.|[/#])[^()]*\)")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3})(?=\S)(.+?)(?<=\S)\1(?![\w*])")
_BLOCK = re.compile(r"^\s*(?:#{1,6}\s|>\s|[-*+•]\s)")  # start of a heading, a quotation or a list item
_LABEL = re.compile(r"^\W*(?:(?:topic|chapter|lecture|video)\s+)?title\s*:", re.IGNORECASE)

_SOUNDS = "applause|blank_audio|cheering|coughs|crosstalk|inaudible|laughing|laughs|laughter|sighs|unintelligible"
_SOUND_MARK = re.compile(
    rf"\[\s*(?:{_SOUNDS}|foreign|music|music playing|noise|silence)\s*(?:\]|$)|\(\s*(?:{_SOUNDS})\s*\)|[♩♪♫♬]",
    re.IGNORECASE,
)

_IN_BRACKETS = re.compile(r"\[[^\[\]]*\]")

_CLOSES = {")": "(", "]": "[", "}": "{", "»": "«", "›": "‹", "”": "“„", "“": "„"}
_OPENS = frozenset("([{«‹“„")
_WRAPPED = re.compile(r'"([^"]*)"|“([^“”]*)”|„([^„“”]*)[“”]|«([^«»]*)»')
_WRAPPED_SINGLY = re.compile(r"['‘](.*)['’]")
_OPENING = re.compile(r"(?<!\w)(?:'(?=[^\W\d])|‘)")
_CLOSING = re.compile(r"(?<=[^\s'‘])['’](?!\w)")
_EMPTY_PAIR = re.compile(r"(?<!\S)(?:['’‘]+|\"\s*\"|“\s*”|„\s*[“”]|«\s*»|\(\s*\)|\[\s*\]|\{\s*\})(?!\S)")
_LEADING = re.compile(r"^(?:[\s,;:|•·–—*~…]+|\.{2,}|[.\-_](?!\w))+")
_TRAILING = re.compile(r"(?:[\s,;:|•·–—*~…\-]|\.{2,}+)++$")
_ABBREVIATIONS = frozenset(("al", "co", "etc", "inc", "jr", "no", "vs"))

# A letter with its signs: in many scripts, vowels are signs around a consonant, which \w does not match.
_SIGNS = (
    "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0e3a\u0e40-\u0e4e\u0e50-\u0fff\u102b-\u103e\u1056-\u109d\u17b4-\u17d3"
    "\u200c\u200d\u3099\u309a"
)
_WORD = re.compile(rf"[\w{_SIGNS}]+")
_CODE = re.compile(r"[=_<>{}*\\/]|\w\(")  # code such as f(x) or item_tfms=Resize(480
_PRONOUNCED = re.compile(r"[aeiouy]|[^\x00-\x7f]")
_STARTS_PART = re.compile(r"[:.?!–—|]$")
_SIGNS_AT_END = re.compile(r"(?:^|\s)[^\w\s()\[\]\"'“”‘’.,;:?!–—-]{2,}$")  # code or noise such as ||=
_LABEL_ONLY = re.compile(
    r"(?:captions?|chapter|description|heading|subtitles?|title|topic|transcript|untitled)(?:\s*\d+)?", re.IGNORECASE
)
_STUCK = re.compile(r"([^\W\d_]{1,12})\1{4,}", re.IGNORECASE)  # the same letters five times in a row


class TitleStyle(Settings):
    """The style of a course's titles."""

    capitals: Literal["title", "sentence", "keep"] = "keep"  # In All Words; In the first word; as the model writes
    spellings: dict[str, str] = {}  # words with special capitals, by their lower case: {"lstm": "LSTM"}
    exceptions: tuple[str, ...] = ()  # words as the course's titles write them, against the rule
    words: int = Field(default=16, ge=1)  # most words of a title
    opening: str = ""  # title that most lessons give their opening


PLAIN = TitleStyle()


def clean_up_title(written: str, style: TitleStyle = PLAIN, text: str = "") -> str:
    """Turn a model's output into a title: one line within the style's length, or "" if no word is left.

    Args:
        written: The model's output.
        style: The course's style.
        text: The text that the title is for. It shows the spelling of names and abbreviations.
    """
    title, before = written[:_READ_CHARACTERS], None
    while title != before:  # each removal can expose more markup
        before = title
        title = _cut(_trimmed(_balanced(_SOUND_MARK.sub(" ", _plain(title)))), style.words)
    return _apply_capitals(title, style, text) if _has_word(title) else ""


def is_usable_title(title: str) -> bool:
    """Return whether a cleaned-up title has a word, says more than "Title", and is not endless repetition or noise."""
    words = _WORD.findall(title.casefold())
    three_alike = any(one == two == three for one, two, three in zip(words, words[1:], words[2:], strict=False))
    mostly_repeated = len(words) >= 6 and 2 * len(set(words)) <= len(words)
    noise = _LABEL_ONLY.fullmatch(title) or _SIGNS_AT_END.search(title) or _STUCK.search(title)
    return _has_word(title) and not (three_alike or mostly_repeated or noise)


def shorten_title(title: str, longest: int) -> str:
    """Cut a title to at most `longest` characters, at the end of a word if it has several."""
    if len(title) <= longest:
        return title
    return _trimmed(_balanced(_cut(title, len(title), longest))) or title[:longest]


def remove_sound_marks(text: str) -> str:
    """Remove a transcript's marks of sounds, such as [Music]."""
    return _SOUND_MARK.sub(" ", text)


def has_spoken_words(text: str) -> bool:
    """Return whether a text has words outside square brackets and marks of sounds."""
    return _has_word(_IN_BRACKETS.sub(" ", remove_sound_marks(text)))


def learn_style(titles: Iterable[str], opening: str = "", texts: Iterable[str] = ()) -> TitleStyle:
    """Infer a course's style from its titles. If they do not agree on capitals, the style keeps the model's.

    The clean-up leaves a title of the course itself as it is.

    Args:
        titles: The titles of the training split.
        opening: The title that most lessons give their opening.
        texts: The text of each title. They tell an abbreviation from a keyword that is a common word too, such as FROM.
    """
    titles = list(titles)
    words = [title.split() for title in titles]
    mixed_case = [title for title in words if not _mostly_capitals(title)]
    capitals = _infer_capitals([word for title in mixed_case for word in _inner_words(title)])
    spellings = _special_spellings(mixed_case, include_names=capitals == "sentence")
    common = _common_words(spellings, titles, list(texts))
    spellings = {word: form for word, form in spellings.items() if word not in common}
    return TitleStyle(
        capitals=capitals,
        spellings=spellings,
        exceptions=_exceptions(words, capitals, spellings),
        words=max([_MIN_WORD_LIMIT, *map(len, words)]),
        opening=opening,
    )


def _common_words(spellings: Mapping[str, str], titles: Sequence[str], texts: Sequence[str]) -> set[str]:
    """Return the words that titles write in capitals, but that are common words in texts.

    In a course about SQL, nearly all texts have "from", but few titles FROM. Without texts, a word in capitals that can
    be pronounced may be such a word.
    """
    unsure = {word for word, form in spellings.items() if form.isupper() and _PRONOUNCED.search(word)}
    in_texts: Counter[str] = Counter()
    in_both: Counter[str] = Counter()
    for title, text in zip(titles, texts, strict=False):
        said = unsure.intersection(_WORD.findall(text.casefold()))
        in_texts.update(said)
        in_both.update(said.intersection(_WORD.findall(title.casefold())))
    return {word for word in unsure if in_both[word] <= _MIN_TITLED * in_texts[word]}


def _exceptions(titles: Iterable[Sequence[str]], capitals: str, spellings: Mapping[str, str]) -> tuple[str, ...]:
    """Return the most frequent words that the titles write against the rule for capitals."""
    found: Counter[str] = Counter()
    for title in titles if capitals != "keep" else ():
        inner = set(_inner_positions(title))
        for position, word in enumerate(map(_strip_punctuation, title)):
            lower = _lower_word(word)
            regular = {_change_first_letter(lower, _upper)} if position not in inner or capitals == "title" else {lower}
            regular |= {lower} if capitals == "title" and position and _SMALL_WORD.fullmatch(word) else set()
            regular = {spellings[lower]} if lower in spellings else regular
            found.update({word} - regular)
    return tuple(sorted(sorted(found, key=lambda word: (-found[word], word))[:_MAX_EXCEPTIONS]))


def _plain(title: str) -> str:
    """Return the first line that contains a word, without markup and control characters."""
    title = next(filter(_has_word, html.unescape(title).splitlines()), "")
    for pattern, replacement in ((_TAG, " "), (_LINK, r"\1"), (_BLOCK, ""), (_EMPHASIS, r"\2"), (_LABEL, "")):
        title = pattern.sub(replacement, title)
    return "".join(map(_printable, title))


def _printable(char: str) -> str:
    """Return the character, or a space or nothing in place of one that cannot be printed."""
    match unicodedata.category(char):
        case "Cf":
            return char if char in "\u200c\u200d" else ""  # some scripts need joiners to spell a word
        case "Cc" | "Cs" | "Co" | "Cn" | "Zl" | "Zp" | "Zs":
            return " "
        case _:
            return " " if char in "`\ufffd" else char


def _balanced(title: str) -> str:
    """Remove quotes around the whole title, unpaired quotes and brackets, and empty pairs."""
    whole = _WRAPPED.fullmatch(title.strip())
    if whole:
        return next(part for part in whole.groups() if part is not None)
    whole = _WRAPPED_SINGLY.fullmatch(title.strip())
    if whole and not _OPENING.search(whole[1]) and not _CLOSING.search(whole[1]):
        return whole[1]
    unpaired = _unpaired(title)
    return _EMPTY_PAIR.sub(" ", "".join(" " if position in unpaired else char for position, char in enumerate(title)))


def _unpaired(title: str) -> set[int]:
    """Return the positions of unpaired quotes and brackets. Apostrophes do not count."""
    unpaired: set[int] = set()
    opened: list[int] = []
    for position, char in enumerate(title):
        if opened and title[opened[-1]] in _CLOSES.get(char, ""):
            opened.pop()
        elif char in _OPENS:
            opened.append(position)
        elif char in _CLOSES:
            unpaired.add(position)
    straight = [position for position, char in enumerate(title) if char == '"']
    closing = [found.start() for found in _CLOSING.finditer(title)]
    for found in _OPENING.finditer(title):
        if any(position > found.start() for position in closing):
            closing.pop(next(i for i, position in enumerate(closing) if position > found.start()))
        else:
            unpaired.add(found.start())
    return unpaired.union(opened, straight[-1:] if len(straight) % 2 else [])


def _trimmed(title: str) -> str:
    """Collapse spaces, and strip stray punctuation and the final full stop."""
    title = _TRAILING.sub("", _LEADING.sub("", " ".join(title.split())))
    last = title.split()[-1:] or [""]
    stem = last[0].removesuffix(".")
    if title.endswith(".") and "." not in stem and stem.casefold() not in _ABBREVIATIONS:
        return title[:-1].rstrip()
    return title


def _cut(title: str, max_words: int, longest: int = LONGEST) -> str:
    """Cut a title to its length limits, but not after an article, a preposition or a conjunction."""
    words = title.split()
    if len(words) <= max_words and len(title) <= longest:
        return title
    words = words[:max_words]
    while words and (len(" ".join(words)) > longest or _SMALL_WORD.fullmatch(_strip_punctuation(words[-1]))):
        words.pop()
    return " ".join(words)


def _apply_capitals(title: str, style: TitleStyle, text: str) -> str:
    """Change the title's capitals to those of the style."""
    if style.capitals == "keep":
        return title
    words, spelling = title.split(), _Spelling(text, style)
    all_capitals = _mostly_capitals(words) and not all(map(spelling.is_own, filter(str.isupper, words)))
    corrected = [spelling.correct(word, all_capitals) for word in words]
    if style.capitals == "title":
        rest = [_to_title_case(word, all_capitals, spelling) for word in corrected[1:]]
    else:
        # Where all words have capitals, a capital does not mark a name.
        capitals_tell_nothing = all_capitals or _share_capitalised(_inner_words(words), 2) >= _CAPITALS_ANYWHERE
        inner = set(_inner_positions(words))
        rest = [
            _to_sentence_case(word, capitals_tell_nothing, spelling) if position in inner else word
            for position, word in enumerate(corrected[1:], start=1)
        ]
    return " ".join([_capitalise(corrected[0], spelling), *rest])


class _Spelling:
    """Capitals of words in a text and in a course's titles. The text's own spelling of a word comes first."""

    def __init__(self, text: str, style: TitleStyle) -> None:
        words = _WORD.findall(text)
        informative = [] if _mostly_capitals(words) else words
        self._lower_case = {word for word in informative if word.islower()}
        self._capitalised = {word.casefold() for word in informative if word[:1].isupper()}
        by_text = {
            word: form for word, form in _special_spellings([informative]).items() if word not in self._lower_case
        }
        # A transcript without capitals says nothing about the spelling of an abbreviation.
        common = self._lower_case if self._capitalised - {"i"} else set()
        self._spellings = {word: form for word, form in style.spellings.items() if word not in common} | by_text
        self._own = {*style.exceptions, *style.spellings.values()}

    def correct(self, word: str, all_capitals: bool) -> str:
        """Give a word its special capitals. In a title of capitals only, lower all others."""
        if not all_capitals and self.is_own(word):
            return word
        if all_capitals and not self.is_special(word):
            word = _lower_word(word)
        return _WORD.sub(lambda found: self._look_up(found[0]), word)

    def _look_up(self, word: str) -> str:
        spelling = self._spellings.get(word.casefold(), word)
        return spelling if len(spelling) == len(word) else word

    def is_own(self, word: str) -> bool:
        """Return whether the course's titles write the word like this."""
        return word in self._own or _strip_punctuation(word) in self._own

    def is_special(self, word: str) -> bool:
        """Return whether a part of the word is written in its special spelling."""
        return any(self._spellings.get(part.casefold()) == part for part in _WORD.findall(word))

    def is_name(self, word: str) -> bool:
        """Return whether the text always capitalises the word."""
        return word.casefold() in self._capitalised and word.casefold() not in self._lower_case

    def is_common_word(self, word: str) -> bool:
        """Return whether the text has the word in lower case."""
        return word.casefold() in self._lower_case


def _is_fixed(word: str, spelling: _Spelling) -> bool:
    """Return whether no rule may change the word's capitals."""
    if spelling.is_own(word) or spelling.is_special(word) or _CODE.search(word):
        return True
    return any(map(_has_inner_capital, _WORD.findall(word)))


def _capitalise(word: str, spelling: _Spelling) -> str:
    return word if _is_fixed(word, spelling) else _change_first_letter(word, _upper)


def _to_title_case(word: str, all_capitals: bool, spelling: _Spelling) -> str:
    stays_small = _SMALL_WORD.fullmatch(_strip_punctuation(word)) and (all_capitals or word.islower())
    return word if stays_small else _capitalise(word, spelling)


def _to_sentence_case(word: str, capitals_tell_nothing: bool, spelling: _Spelling) -> str:
    bare = _strip_punctuation(word)
    is_common = not spelling.is_name(bare) if capitals_tell_nothing else spelling.is_common_word(bare)
    return _change_first_letter(word, _lower) if is_common and not _is_fixed(word, spelling) else word


def _inner_positions(title: Sequence[str]) -> list[int]:
    """Return the positions of the words that begin neither the title nor a part of it, as after a colon."""
    return [i for i in range(1, len(title)) if not _STARTS_PART.search(title[i - 1])]


def _inner_words(title: Sequence[str]) -> list[str]:
    return [title[position] for position in _inner_positions(title)]


def _strip_punctuation(word: str) -> str:
    return word.strip("()[]\"'“”‘’«»,;:.?!")


def _infer_capitals(words: Sequence[str]) -> Literal["title", "sentence", "keep"]:
    """Infer the use of capitals from the inner words of titles."""
    distinct = list(dict.fromkeys(words))
    if _share_capitalised(words, at_least=_MIN_EVIDENCE) >= _TITLE_CASE:
        return "title"
    if len(_telling(words)) >= _MIN_EVIDENCE and _share_capitalised(distinct) <= 1 - _SENTENCE_CASE:
        return "sentence"
    return "keep"


def _share_capitalised(words: Sequence[str], at_least: int = 1) -> float:
    """Return the share of words with a capital, among the words that can tell; 0 if these are too few."""
    telling = _telling(words)
    return sum(word[0].isupper() for word in telling) / len(telling) if len(telling) >= at_least else 0.0


def _telling(words: Iterable[str]) -> list[str]:
    """Return the words that are written with a capital in title case and without one in sentence case."""
    plain = [word for word in words if len(word) > 1 and word.isalpha() and not _has_inner_capital(word)]
    return [word for word in plain if word.lower() != word.title() and not _SMALL_WORD.fullmatch(word)]


def _special_spellings(texts: Iterable[Sequence[str]], *, include_names: bool = False) -> dict[str, str]:
    """Find the most frequent words that are mostly written with special capitals, such as LSTM.

    Args:
        texts: The words of each text.
        include_names: Also find words with a capital first letter, unless they are a text's first word.
    """
    counts: Counter[str] = Counter()
    for words in texts:
        for position, word in enumerate(words):
            counts.update(part for part in _WORD.findall(word) if position or _has_inner_capital(part))
    by_word: dict[str, Counter[str]] = {}
    for word, count in counts.items():
        by_word.setdefault(word.casefold(), Counter())[word] += count
    found: Counter[str] = Counter()
    for forms in by_word.values():
        form, count = max(forms.items(), key=lambda item: (item[1], item[0]))
        is_special = _has_inner_capital(form) or (include_names and form[:1].isupper())
        if is_special and 2 * count > forms.total():
            found[form] = count
    kept = sorted(found, key=lambda form: (-found[form], form))[:_MAX_SPELLINGS]
    return {form.casefold(): form for form in sorted(kept) if len(form.casefold()) == len(form)}


def _has_inner_capital(word: str) -> bool:
    return any(char.isupper() for char in word[1:])


def _mostly_capitals(words: Sequence[str]) -> bool:
    """Return whether most words are written in capitals only."""
    informative = [word for word in words if any(map(_has_several_letters, _WORD.findall(word)))]
    return len(words) > 1 and 2 * sum(map(str.isupper, informative)) > len(informative)


def _has_several_letters(part: str) -> bool:
    """Return whether a word has two or more cased letters. The first letter may be a capital in any title."""
    return sum(char.isupper() or char.islower() for char in part) > 1


def _has_word(text: str) -> bool:
    return any(map(str.isalnum, text))


def _change_first_letter(word: str, change: Callable[[str], str]) -> str:
    """Apply `change` to the first letter or digit of a word."""
    for position, char in enumerate(word):
        if char.isalnum():
            return word[:position] + change(char) + word[position + 1 :]
    return word


def _upper(char: str) -> str:
    """Return the letter as a title begins with it. Georgian capitals, for example, begin no word."""
    return char.title() if char.title().lower() == char else char


def _lower_word(word: str) -> str:
    """Lower each letter that has one capital. Python lowers a Greek sigma by its place in the word."""
    lower = word.lower()
    if len(lower) != len(word):
        return "".join(map(_lower, word))
    return "".join(new if new == "ς" else _lower(char) for char, new in zip(word, lower, strict=True))


def _lower(char: str) -> str:
    return char.lower() if char.lower().upper() == char else char
