"""Server-sent events: bytes in any pieces → the data of whole events. Pure.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

MAX_EVENT_BYTES = 1 << 20
"""An event beyond it is nonsense: a token takes some hundred bytes, the longest tool call some ten thousand."""
_FIELDS = (b"event", b"id", b"retry")
_SERVER_TIMING = b": server-timing "
"""A comment of cotenant's: the header `server-timing` of a stream whose head was sent long before."""


_INTERNAL = b" cotenant-usage"
"""Begins a comment that the gateway must strip."""


class EventTooLargeError(Exception):
    pass


class NotAnEventError(Exception):
    """A line that no field of an event begins."""


class EventStream:
    """`feed` what comes; `rest` tells whether an event is under way."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self.server_timing = b""
        self.leaked = False
        """A comment came that is between cotenant's engines and its gateway."""
        self._carriage_return = False

    def feed(self, piece: bytes) -> list[bytes | None]:
        """The data of each event that is whole by now, and None for lines without any that follow it or stand alone.

        Raises EventTooLargeError, NotAnEventError.
        """
        rest = self.rest
        seen = max(0, len(rest) - 1)
        rest += self._line_feeds(piece)
        end = rest.rfind(b"\n\n", seen)
        if end < 0:
            if len(rest) > MAX_EVENT_BYTES:
                raise EventTooLargeError
            return []
        whole = bytes(rest[:end])
        del rest[: end + 2]
        events: list[bytes | None] = []
        for block in whole.split(b"\n\n"):
            if len(block) > MAX_EVENT_BYTES:
                raise EventTooLargeError
            if block.startswith(_SERVER_TIMING):
                self.server_timing = block.removeprefix(_SERVER_TIMING)
            self._read(block, events)
        return events

    def end(self) -> list[bytes | None]:
        """The stream is over: an event that only lacks its empty line counts, another one is not whole."""
        return self.feed(b"\n\n") if self.rest else []

    def _read(self, block: bytes, events: list[bytes | None]) -> None:
        lines, more = [], False
        for line in block.split(b"\n"):
            name, colon, value = line.partition(b":")
            if name == b"data":
                lines.append(value.removeprefix(b" "))
                more = False
            elif line:
                more = True
                if colon and not name:
                    self.leaked = self.leaked or value.startswith(_INTERNAL)
                elif name not in _FIELDS:
                    raise NotAnEventError
        if lines:
            events.append(b"\n".join(lines))
        if more:
            events.append(None)

    def _line_feeds(self, piece: bytes) -> bytes:
        """All three ends of lines become line feeds; one may be cut in two."""
        if self._carriage_return:
            piece = b"\r" + piece
            self._carriage_return = False
        if b"\r" not in piece:
            return piece
        if piece.endswith(b"\r"):
            self._carriage_return = True
            piece = piece[:-1]
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
