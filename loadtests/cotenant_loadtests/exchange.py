"""One request under way: what is known of it so far, and the record it leaves. Times are CLOCK_MONOTONIC ns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cotenant_loadtests.answers import Answer
from cotenant_loadtests.checks import EchoAnswer, Finding, short_word, tokens_of
from cotenant_loadtests.key_mask import KeyMask
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import NEVER, Record, encode_times
from cotenant_loadtests.server_timing import timing_text

if TYPE_CHECKING:
    from cotenant_loadtests.connection import Connection


HIDDEN = "hidden"
_NO_KEY = KeyMask("")


@dataclass(slots=True)
class TenantCount:
    """Of one tenant, since the start."""

    mask: KeyMask = _NO_KEY
    """Of its key, which must not stand in a record."""
    sent: int = 0
    ended: int = 0
    """Of the sent ones."""
    succeeded: int = 0
    failed: int = 0
    tokens: int = 0
    """Events with text, of ended answers."""


@dataclass(slots=True)
class Traffic:
    """Bytes of all connections: of HTTP, without TLS's own."""

    bytes_in: int = 0
    bytes_out: int = 0


class Exchange:
    """Made when its bytes are rendered, ahead of its time; ended when `finding` is set."""

    __slots__ = (
        "answer",
        "bytes_in",
        "bytes_out",
        "connect_ns",
        "connection",
        "deadline_ns",
        "dial",
        "dialled_ns",
        "expected",
        "finding",
        "first_byte_ns",
        "payload",
        "planned",
        "request_id",
        "retry_after_s",
        "scheduled_ns",
        "sent_ns",
        "server_timing",
        "slot",
        "status",
        "tenant",
    )

    def __init__(
        self, planned: Planned, payload: bytes, *, scheduled_ns: int, tenant: TenantCount, expected: EchoAnswer | None
    ) -> None:
        self.planned = planned
        self.payload = payload
        self.scheduled_ns = scheduled_ns
        self.deadline_ns = scheduled_ns + round(planned.deadline_s * 1e9)
        self.tenant = tenant
        self.expected = expected
        self.answer: Answer | None = None
        self.finding: Finding | None = None
        self.connection: Connection | None = None
        """That carries it."""
        self.dial: asyncio.Task[None] | None = None
        """That opens a connection for it."""
        self.dialled_ns = self.sent_ns = self.first_byte_ns = NEVER
        self.connect_ns = 0
        self.status = self.bytes_in = self.bytes_out = self.slot = 0
        self.retry_after_s = -1.0
        self.request_id = b""
        self.server_timing = b""

    @property
    def first_token_ns(self) -> int:
        return self.answer.text_times[0] if self.answer is not None and self.answer.text_times else NEVER

    @property
    def tokens(self) -> int:
        return len(self.answer.text_times) if self.answer is not None else 0

    @property
    def lateness_ns(self) -> int:
        """Of one that was sent: see `Record.lateness_us`."""
        return max(0, self.sent_ns - self.scheduled_ns - self.connect_ns)


def make_record(exchange: Exchange, *, process: int, start_ns: int, end_ns: int) -> Record:
    """Of an exchange that has ended at `end_ns`."""
    assert exchange.finding is not None
    answer = exchange.answer
    prompt_tokens, completion_tokens = tokens_of(answer.usage if answer is not None else None)
    times_us = [(time_ns - start_ns) // 1000 for time_ns in answer.text_times] if answer is not None else []
    return Record(
        id=exchange.planned.id,
        process=process,
        outcome=exchange.finding.outcome,
        status=exchange.status,
        scheduled_us=(exchange.scheduled_ns - start_ns) // 1000,
        sent_us=_since(start_ns, exchange.sent_ns),
        connect_us=_connect_ns(exchange, end_ns) // 1000,
        first_byte_us=_since(start_ns, exchange.first_byte_ns),
        first_token_us=times_us[0] if times_us else NEVER,
        end_us=(end_ns - start_ns) // 1000,
        token_times=encode_times(times_us),
        events=len(times_us),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        retry_after_s=exchange.retry_after_s,
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
        request_id=_shown(exchange, exchange.request_id, _short_word),
        server_timing=_shown(exchange, _server_timing(exchange), timing_text),
        detail=_shown(exchange, exchange.finding.detail.encode(), bytes.decode),
    )


def _shown(exchange: Exchange, said: bytes, show: Callable[[bytes], str]) -> str:
    """What a server said, unless it has said the client's key there."""
    if not said:
        return ""
    return HIDDEN if exchange.tenant.mask.hides(said) else show(said)


def _short_word(said: bytes) -> str:
    return short_word(said.decode("latin-1"))


def _server_timing(exchange: Exchange) -> bytes:
    """Of the head, or of a comment in the stream."""
    answer = exchange.answer
    return exchange.server_timing or (answer.server_timing if answer is not None else b"")


def _connect_ns(exchange: Exchange, end_ns: int) -> int:
    """Of one that was never sent: as long as it waited for its connection in vain."""
    in_vain = exchange.sent_ns == NEVER and exchange.dialled_ns != NEVER
    return end_ns - exchange.dialled_ns if in_vain else exchange.connect_ns


def _since(start_ns: int, time_ns: int) -> int:
    return (time_ns - start_ns) // 1000 if time_ns != NEVER else NEVER
