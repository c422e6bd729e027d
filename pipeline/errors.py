"""The ways in which Lectern says no. Anything else that escapes is a bug of ours."""


class Refused(Exception):
    """The data or the model is not fit. The message says what, where, and what to do next. Exit code 1."""


class Misused(Exception):
    """The command or its settings are wrong. The message says what to write instead. Exit code 2."""


class Unavailable(Exception):
    """Something that Lectern needs does not answer; the same command may work later. Exit code 75."""
