"""The base of the errors that end a command before anything is sent."""


class RefusedError(Exception):
    """`str()` is one sentence for each problem: what is wrong, why, and what to do next."""
