"""What is kept of one request. Times are whole microseconds from the start of the run, -1 where it never came."""

from collections.abc import Iterable
from typing import Literal

import msgspec

Outcome = Literal[
    "ok",
    "cancelled",
    "connect",
    "tls",
    "reset",
    "cut_short",
    "timeout",
    "rate_limited",
    "overloaded",
    "redirect",
    "http_error",
    "framing",
    "too_large",
    "bad_json",
    "bad_event",
    "bad_utf8",
    "error_event",
    "no_done",
    "after_done",
    "empty",
    "wrong_answer",
    "wrong_model",
    "wrong_usage",
    "unfinished",
    "interrupted",
]
MEANINGS: dict[Outcome, str] = {
    "ok": "a complete, correct answer",
    "cancelled": "hung up after so many tokens, as planned",
    "connect": "no connection: refused, unknown host, or no answer in time",
    "tls": "the certificate or the TLS handshake was not accepted",
    "reset": "the connection broke",
    "cut_short": "the connection was closed before the answer was whole",
    "timeout": "not whole by its deadline",
    "rate_limited": "429: the tenant's limit was reached",
    "overloaded": "503: no capacity",
    "redirect": "3xx: never followed",
    "http_error": "another status than 200",
    "framing": "not HTTP/1.1: head, chunk or length",
    "too_large": "a line or an answer beyond the limits",
    "bad_json": "not JSON, or not of the API's shape",
    "bad_event": "server-sent events that are not the API's",
    "bad_utf8": "bytes that are not UTF-8",
    "error_event": "an error within the stream",
    "no_done": "the stream ended without [DONE]",
    "after_done": "something followed [DONE]",
    "empty": "an answer without a token",
    "wrong_answer": "the words or the checksum of the echo engine do not match",
    "wrong_model": "another model answered",
    "wrong_usage": "the server's token counts do not add up",
    "unfinished": "the run was over first",
    "interrupted": "Ctrl-C; counts nowhere",
}
"""What each says of a request, in results and reports."""
SUCCESSES: tuple[Outcome, ...] = ("ok", "cancelled")
NEVER = -1


class Record(msgspec.Struct, array_like=True, kw_only=True):
    """One request, from its schedule to its end."""

    id: int
    """Of the planned request."""
    process: int
    outcome: Outcome
    status: int = 0
    """HTTP status; 0: none came."""
    scheduled_us: int
    """From the plan; of a later turn of a conversation: the end of the one before, plus its think time."""
    sent_us: int = NEVER
    """When its bytes were handed to the kernel."""
    connect_us: int = 0
    """How long it waited for a new connection to open, or in vain: the server's time, not counted as lateness."""
    first_byte_us: int = NEVER
    first_token_us: int = NEVER
    """First event with text, or the whole answer where nothing is streamed."""
    end_us: int = NEVER
    token_times: bytes = b""
    """`decode_times` → times of the events with text."""
    events: int = 0
    """Our own count of events with text."""
    prompt_tokens: int = NEVER
    completion_tokens: int = NEVER
    """By the server's usage."""
    retry_after_s: float = -1.0
    bytes_in: int = 0
    bytes_out: int = 0
    request_id: str = ""
    """The server's `x-request-id`."""
    server_timing: str = ""
    """The server's `server-timing`: `queue;dur=12.5, engine;dur=20`."""
    detail: str = ""
    """A word on what went wrong: the error's code, what was read. Never a prompt, an answer or a key."""

    @property
    def lateness_us(self) -> int:
        """From scheduled to sent, less the wait for a connection to open: what this tool adds by itself."""
        return max(0, self.sent_us - self.scheduled_us - self.connect_us) if self.sent_us != NEVER else NEVER

    @property
    def success(self) -> bool:
        return self.outcome in SUCCESSES


def encode_times(times_us: Iterable[int]) -> bytes:
    """Times that never decrease → LEB128 differences, the first from 0: one to three bytes each."""
    out, before = bytearray(), 0
    for time_us in times_us:
        rest, before = time_us - before, time_us
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def decode_times(encoded: bytes) -> list[int]:
    """The inverse of `encode_times`."""
    times, value, shift, now = [], 0, 0, 0
    for byte in encoded:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
        else:
            now += value
            times.append(now)
            value = shift = 0
    return times
