"""Token ids → text, piece by piece: nothing is sent that a later token or a stop string could still change. Pure."""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\ufffd"
# A UTF-8 character has at most 4 bytes, so an unfinished one shows as at most 3 replacement characters:
# byte-level tokenizers show one for the whole sequence, byte-fallback tokenizers one for each byte.
MAX_UNFINISHED = 3


class TextDecoder:
    """Incremental `decode`. The pieces of one answer, joined, are the decoded text of all its ids."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._context = 0
        """Leading ids of the window whose text is out already: tokenizers decode a word by its neighbours."""
        self._context_text = ""
        self._sent = 0
        """Characters after the context's text that are out."""

    def push(self, ids: Sequence[int]) -> str:
        """Text that has become certain by these ids; often empty."""
        self._window.extend(ids)
        text = self._text()
        unfinished = len(text) - len(text.rstrip(REPLACEMENT))
        piece = self._send(text, len(text) - min(unfinished, MAX_UNFINISHED))
        if not unfinished and len(self._window) > self._context:
            self._roll()
        return piece

    def finish(self) -> str:
        """What was held back, an unfinished character as U+FFFD."""
        text = self._text()
        return self._send(text, len(text))

    def _text(self) -> str:
        text = self._decode(self._window)
        if text.startswith(self._context_text):
            return text[len(self._context_text) :]
        # Byte-fallback tokenizers show a whole run of bytes as broken while its end is: what is out stays out.
        return self._decode(self._window[self._context :])

    def _send(self, text: str, end: int) -> str:
        piece = text[self._sent : end]
        self._sent = max(self._sent, end)
        return piece

    def _roll(self) -> None:
        self._window = self._window[self._context :]
        self._context = len(self._window)
        self._context_text = self._decode(self._window)
        self._sent = 0


class StopMatcher:
    """Ends a text at the stop string that is completed first; the text excludes it.

    Text that could be the beginning of a stop string is held back until it is clear that it is not.
    The result does not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.matched = False

    def push(self, text: str) -> str:
        """Text that may be sent. After a match nothing more comes out."""
        if self.matched:
            return ""
        text = self._held + text
        start = self._first_match(text)
        if start is not None:
            self.matched, self._held = True, ""
            return text[:start]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back: the text ended before it became a stop string."""
        held, self._held = self._held, ""
        return held

    def _first_match(self, text: str) -> int | None:
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        return min(found)[1] if found else None


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
