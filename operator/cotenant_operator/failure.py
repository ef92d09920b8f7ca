"""The base of every error that ends a command with a message instead of a traceback."""


class Failure(Exception):  # noqa: N818 - what it is to the one who reads it
    """`str()` says what is wrong and what to do next, one line for each problem."""

    exit_code = 1


class FlagError(Failure):
    """An option has a value that it cannot have."""

    exit_code = 2
