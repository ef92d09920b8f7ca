"""What happens to the bytes of a stream on their way to the client. Pure.

Bytes are passed on as they came, never parsed and written again; only the engine's usage comment is taken out. An
event that is not complete yet is held back, so a client never sees half of one, however the network cut it.
"""

import re

import msgspec

from cotenant_serving.contract import USAGE_COMMENT, Usage

MAX_EVENT_BYTES = 1 << 20
_USAGE = re.compile(rb"(?:(?<=\n\n)|\A)" + re.escape(USAGE_COMMENT) + rb"([^\n]*)\n\n")


class EventTooLongError(Exception):
    """An engine sent more than MAX_EVENT_BYTES without ending the event."""


class StreamFilter:
    """Feed it chunks, send what it returns.

    `usage`: the engine's own count, None until it came. `events`: forwarded `data:` events but for `[DONE]`.
    `done`: `[DONE]` came. `failed`: the engine itself ended the stream with an error event.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.events = 0
        self.done = False
        self.failed = False
        self._held = b""

    @property
    def ended(self) -> bool:
        """Nothing that follows is for the client."""
        return self.done or self.failed

    def feed(self, chunk: bytes) -> bytes:
        """The bytes to send now; may be empty. Raises EventTooLongError."""
        plain = chunk[:7] == b"data: {" and chunk[-2:] == b"\n\n" and chunk.count(b"\n") == 2
        if plain and chunk[:15] != b'data: {"error":' and not self._held:
            self.events += 1  # one event, as engines send them: no end, no error and no comment
            return chunk
        whole = chunk
        if self._held or not chunk.endswith(b"\n\n"):
            whole = self._complete(chunk)
        if USAGE_COMMENT in whole:
            whole = _USAGE.sub(self._note_usage, whole)
        self._look_at(whole)
        return whole

    def _complete(self, chunk: bytes) -> bytes:
        joined = self._held + chunk
        end = joined.rfind(b"\n\n") + 2
        if end < 2:
            end = 0
        self._held = joined[end:]
        if len(self._held) > MAX_EVENT_BYTES:
            raise EventTooLongError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return joined[:end]

    def _note_usage(self, match: re.Match[bytes]) -> bytes:
        try:
            self.usage = msgspec.json.decode(match[1], type=Usage)
        except msgspec.MsgspecError:
            pass  # the record is then marked estimated
        return b""

    def _look_at(self, whole: bytes) -> None:
        # JSON has no raw line breaks, so these are found at the start of an event only.
        self.events += whole.startswith(b"data:") + whole.count(b"\ndata:")
        if b"data: [DONE]\n\n" in whole and (whole.startswith(b"data: [DONE]") or b"\ndata: [DONE]" in whole):
            self.done = True
            self.events -= 1
        if whole.startswith(b'data: {"error":') or b'\ndata: {"error":' in whole:
            self.failed = True
            self.events -= 1
