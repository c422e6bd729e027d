"""The ways in which Lectern says no, each with its exit code. Anything else that escapes is a bug of ours."""

from typing import ClassVar


class Rejected(Exception):
    """The data or the model is not fit. The message says what, where, and what to do next."""

    exit_code: ClassVar[int] = 1


class UsageError(Exception):
    """The command or its settings are wrong. The message says what to write instead."""

    exit_code: ClassVar[int] = 2


class TemporaryFailure(Exception):
    """Something that Lectern needs does not answer; the same command may work later."""

    exit_code: ClassVar[int] = 75
