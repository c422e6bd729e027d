"""Errors with a message for the user and an exit code. Any other exception is a bug in Lectern."""

from typing import ClassVar


class Rejected(Exception):
    """The data or the model is not good enough. The message says what is wrong, where, and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(Exception):
    """The command or a setting is wrong. The message says what to write instead."""

    exit_code: ClassVar[int] = 2


class TemporaryFailure(Exception):
    """A service does not answer or the machine lacks something. The same command may work later."""

    exit_code: ClassVar[int] = 75
