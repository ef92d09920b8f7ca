"""Tokens of programs: one a line, of which the first is shown and each is taken.

So a token is changed without a moment in which two programs know different ones: first the new one is added below the
old one, then it is put above it, then the old one is taken out; each time all programs are given time to read it.
"""

import hmac
import logging
from pathlib import Path

from cotenant_serving.file_changes import signature_of

log = logging.getLogger("cotenant.tokens")


def tokens_in(text: str) -> tuple[str, ...]:
    return tuple(line for line in map(str.strip, text.splitlines()) if line)


def shown(text: str) -> str:
    """The token to show to others; empty when there is none."""
    return next(iter(tokens_in(text)), "")


def opens(authorization: bytes, text: str) -> bool:
    """Whether this header shows one of them."""
    return any(hmac.compare_digest(authorization, b"Bearer " + token.encode()) for token in tokens_in(text))


class TokenFile:
    """The text of a file now: a look costs one system call. What cannot be read, or is empty, leaves it as it was."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, UnicodeDecodeError when it cannot be read now."""
        self._path = path
        self._seen = signature_of(path)
        self._text = path.read_text(encoding="utf-8")

    def __call__(self) -> str:
        signature = signature_of(self._path)
        if signature != self._seen:
            self._seen = signature
            self._read()
        return self._text

    def _read(self) -> None:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            # The error of a bad decode quotes bytes of the file: only its kind is logged.
            log.error("token file %s cannot be read, it stays as it was: %s", self._path, type(problem).__name__)
            return
        if not tokens_in(text):
            log.error("token file %s is empty, it stays as it was", self._path)
            return
        self._text = text
        log.info("token file %s has changed: %d tokens", self._path, len(tokens_in(text)))
