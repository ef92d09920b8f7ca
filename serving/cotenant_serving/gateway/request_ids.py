"""Ids of requests: ours alone, random, and not to be guessed from others."""

import os

_PREFIX = "req-"
_RANDOM_BYTES = 12
_DIGITS = 2 * _RANDOM_BYTES
_BLOCK = 256
"""Ids for which the kernel is asked at once."""


class RequestIds:
    """Of one process: a child that was forked would give the same ones."""

    def __init__(self) -> None:
        self._digits, self._at = "", 0

    def new(self) -> str:
        at = self._at
        if at == len(self._digits):
            self._digits, at = os.urandom(_BLOCK * _RANDOM_BYTES).hex(), 0
        self._at = at + _DIGITS
        return _PREFIX + self._digits[at : at + _DIGITS]


def new_request_id() -> str:
    """One, of a page, or of an answer to what is no request."""
    return _PREFIX + os.urandom(_RANDOM_BYTES).hex()
