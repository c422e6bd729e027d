"""Single values: the faults of times, the format of times, and characters that terminals or spreadsheets would obey.

This module imports nothing slow: `lectern title TEXT` needs it before anything else.
"""

from __future__ import annotations

import re
import unicodedata
from enum import IntEnum

MAX_SECONDS = 1000 * 3600.0
"""A larger time is a date, a number of milliseconds or a typing error."""

CONTROL_CHARACTERS = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
"""A regular expression for them, without tab and line ends."""

_FORMULA_STARTS = "=+-@\t\r\n＝＋－＠"  # East Asian versions of Excel also accept the full-width characters
FORMULA_ESCAPE = rf"^'(?=['{_FORMULA_STARTS.replace('-', chr(92) + '-')}])"
"""Regular expression for the apostrophe that `escape_formula` adds."""

IGNORABLE = (
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""A regular expression for characters that show nothing, by Unicode's property Default_Ignorable_Code_Point."""


class Fault(IntEnum):
    """The reason why a cell is not a time."""

    NONE = 0
    EMPTY = 1
    BELOW_ZERO = 2
    DATE = 3
    TOO_LONG = 4
    UNREADABLE = 5
    FRAMES = 6


def as_clock(seconds: float) -> str:
    """Format seconds as `h:mm:ss`, with a fraction if it is not zero: 3675.5 becomes "1:01:15.5"."""
    minus = "-" if seconds < 0 else ""
    whole, micro = divmod(round(abs(seconds) * 1_000_000), 1_000_000)
    fraction = f".{micro:06}".rstrip("0") if micro else ""
    return f"{minus}{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}{fraction}"


def replace_control_characters(text: str) -> str:
    """Replace each control character by a space, except tabs and line ends."""
    return re.sub(CONTROL_CHARACTERS, " ", text)


def show_invisible(text: str) -> str:
    """Replace characters that show nothing by their names, such as <ZERO WIDTH SPACE>."""
    return re.sub(IGNORABLE, lambda found: f"<{unicodedata.name(found[0], f'U+{ord(found[0]):04X}')}>", text)


def escape_formula(cell: str) -> str:
    """Put an apostrophe before a text of a CSV that a spreadsheet would run as a formula.

    A text that starts with an apostrophe gets one too, so that removing `FORMULA_ESCAPE` restores every text.
    """
    return f"'{cell}" if cell.startswith(("'", *_FORMULA_STARTS)) else cell
