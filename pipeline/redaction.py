"""Hide passwords and keys in text and in addresses of servers, so that logs reveal none."""

from __future__ import annotations

import os
import re

# Up to the last @, because a password may contain @ and slashes. A port with a path is not a password.
_PASSWORD_OF = r"(?!\d+(?:/|$))\S+"
_LOGIN = re.compile(rf"(?<=://)[^:/@\s]*:(?={_PASSWORD_OF}@)")
# A user name of 20 or more characters is taken for a token, which needs no password.
_TOKEN = re.compile(r"(?<=://)[^:/@\s]{20,}(?=@)")
# Parameters of an address may hold a key: anyone who has a signed link to a bucket can fetch the file.
_KEY_OF_QUERY = r"[\w-]*(?:password|token|secret|signature)|pwd|sig|code|auth|authkey|(?:(?:api|access)[_-]?)?key"
_PARAMETER = re.compile(rf"([?&;#](?:{_KEY_OF_QUERY})=)[^&\s'\"]+", re.IGNORECASE)
_WORD = re.compile(r"\S+")
_USER = re.compile(rf"(?<=://)(?:[^:/@\s]*:{_PASSWORD_OF}|[^/@\s]*)@")
_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|_TOKEN$")
_SHORTEST_SECRET = 8  # a shorter one could be an ordinary word of the text


def hide_passwords(text: str) -> str:
    """Replace passwords by `***`.

    It hides the passwords in addresses, as in `postgresql://lectern:***@db.example/mlflow`, and the values of
    environment variables with a name such as `HF_TOKEN`.
    """
    for secret in _secrets():
        text = text.replace(secret, "***")
    return _WORD.sub(_without_password, text)


def without_user(address: str) -> str:
    """Remove user and password from an address, for a link that others open with their own login."""
    return _USER.sub("", address)


def has_password(address: str) -> bool:
    """Return whether `address` contains a password, a token or a key."""
    return _WORD.sub(_without_password, address) != address


def _without_password(word: re.Match[str]) -> str:
    """Replace each password in one word of a text by `***`.

    A password reaches up to the last @ of the word. The search also ends there, so the time is linear in the length.
    """
    text = word[0]
    last = text.rfind("@")
    login = _LOGIN.search(text, 0, last + 1)
    parts = [text[: login.end()], text[last:]] if login else [text]
    return "***".join(_PARAMETER.sub(r"\1***", _TOKEN.sub("***", part)) for part in parts)


def _secrets() -> list[str]:
    found = (value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET)
    return sorted(found, key=len, reverse=True)
