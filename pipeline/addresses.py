"""Addresses of servers and databases, as they may be shown: whoever reads a log shall not be able to log in."""

from __future__ import annotations

import os
import re

# Up to the last @, since a password may hold one, as it may hold a slash; a port and a path are none, though.
_PASSWORD_OF = r"(?!\d+(?:/|$))\S+"
# With these, of a signed link to a bucket for instance, whoever has the address gets the file.
_KEY_OF_QUERY = r"[\w-]*(?:password|token|secret|signature)|pwd|sig|(?:api|access)[_-]?key"
_PASSWORD = re.compile(
    # The second is a user's name as long as a token, which needs no password.
    rf"(?<=://)([^:/@\s]*:){_PASSWORD_OF}(?=@)|(?<=://)[^:/@\s]{{20,}}(?=@)|([?&](?:{_KEY_OF_QUERY})=)[^&\s'\"]+",
    re.IGNORECASE,
)
_USER = re.compile(rf"(?<=://)(?:[^:/@\s]*:{_PASSWORD_OF}|[^/@\s]*)@")
_SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|_TOKEN$")
_SHORTEST_SECRET = 8  # below it, a word of the text is too easily taken for one


def hide_passwords(text: str) -> str:
    """`text` with `***` for the password in each address, such as `postgresql://lectern:***@db.example/mlflow`, and for
    what a variable of the environment holds whose name says that it is secret, such as `HF_TOKEN`."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2] or ''}***", text)


def without_user(address: str) -> str:
    """`address` for a link that others click: they log in as themselves."""
    return _USER.sub("", address)


def has_password(address: str) -> bool:
    """Whether whoever has `address` could log in by it."""
    return _PASSWORD.search(address) is not None


def _secrets() -> list[str]:
    found = (value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET)
    return sorted(found, key=len, reverse=True)
