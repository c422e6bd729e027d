"""Addresses of servers and databases, as they may be shown: whoever reads a log shall not be able to log in."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*:)[^@\s]+(?=@)|([?&](?:ssl)?password=)[^&\s'\"]+")
_USER = re.compile(r"(?<=://)[^/@\s]*@")


def hide_passwords(text: str) -> str:
    """`text` with `***` for the password in each address, such as `postgresql://lectern:***@db.example/mlflow`."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", text)


def without_user(address: str) -> str:
    """`address` for a link that others click: they log in as themselves."""
    return _USER.sub("", address)
