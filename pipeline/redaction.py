"""Addresses of servers and databases, as they may be shown: whoever reads a log shall not be able to log in."""

from __future__ import annotations

import os
import re

# Up to the last @, since a password may hold one, as it may hold a slash; a port and a path are none, though.
_PASSWORD_OF = r"(?!\d+(?:/|$))\S+"
_LOGIN = re.compile(rf"(?<=://)[^:/@\s]*:(?={_PASSWORD_OF}@)")
# A user's name as long as a token needs no password.
_TOKEN = re.compile(r"(?<=://)[^:/@\s]{20,}(?=@)")
# A parameter of the address may hold a key: everybody who has a signed link to a bucket gets the file, for instance.
_KEY_OF_QUERY = r"[\w-]*(?:password|token|secret|signature)|pwd|sig|code|auth|authkey|(?:(?:api|access)[_-]?)?key"
_PARAMETER = re.compile(rf"([?&;#](?:{_KEY_OF_QUERY})=)[^&\s'\"]+", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_USER = re.compile(rf"(?<=://)(?:[^:/@\s]*:{_PASSWORD_OF}|[^/@\s]*)@")
_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|_TOKEN$")
_SHORTEST_SECRET = 8  # below it, a word of the text is too easily taken for one


def hide_passwords(text: str) -> str:
    """`text` with `***` for the password in each address, such as `postgresql://lectern:***@db.example/mlflow`, and for
    what a variable of the environment holds whose name says that it is secret, such as `HF_TOKEN`."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    return _WORD.sub(_without_password, text)


def without_user(address: str) -> str:
    """`address` for a link that others click: they log in as themselves."""
    return _USER.sub("", address)


def has_password(address: str) -> bool:
    """Whether whoever has `address` could log in by it."""
    return _WORD.sub(_without_password, address) != address


def _without_password(word: re.Match[str]) -> str:
    """One word of a text, with `***` for each password.

    A password reaches up to the last @ of the word. The search ends there too, so that a word of any length is looked
    through once.
    """
    text = word[0]
    last = text.rfind("@")
    login = _LOGIN.search(text, 0, last + 1)
    parts = [text[: login.end()], text[last:]] if login else [text]
    return "***".join(_PARAMETER.sub(r"\1***", _TOKEN.sub("***", part)) for part in parts)


def _secrets() -> list[str]:
    found = (value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET)
    return sorted(found, key=len, reverse=True)
