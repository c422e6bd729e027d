"""Text in a CSV that a spreadsheet would take for a formula, and run."""

from __future__ import annotations

_BEGINNINGS = "=+-@\t\r\n＝＋－＠"  # the wide ones too: East Asian versions of Excel take them for the others

APOSTROPHE = rf"^'(?=['{_BEGINNINGS.replace('-', chr(92) + '-')}])"
"""The regular expression of what `as_text_cell` has added."""


def as_text_cell(cell: str) -> str:
    """`cell` behind an apostrophe, if a spreadsheet would take it for a formula; so that one of its own is not lost."""
    return f"'{cell}" if cell.startswith(("'", *_BEGINNINGS)) else cell
