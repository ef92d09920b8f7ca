"""How many connections there may be, in all and of one tenant, over all workers; and what those over it are told.

Without a bound one client takes every file descriptor; without one per tenant, one tenant does.
"""

import asyncio
import logging

from cotenant_serving.gateway.board import Board, Count
from cotenant_serving.gateway.errors import error, speaks_oip
from cotenant_serving.gateway.framing import path_of, refusal

log = logging.getLogger("cotenant.gateway")

REFUSAL_TIMEOUT_S = 1.0
"""A connection over the cap gets this long to ask, and to read why it is refused."""
REFUSALS_AT_ONCE = 256
"""Connections over the cap that are given that time; the next ones are closed with the answer alone."""
LOG_EVERY_S = 60.0
RETRY_AFTER_S = 1


class ConnectionCap:
    """How many connections the workers hold together. `refusing` are those over it that are just being told so."""

    def __init__(
        self,
        limit: int,
        held: Count,
        *,
        refusal_timeout_s: float = REFUSAL_TIMEOUT_S,
        refusals_at_once: int = REFUSALS_AT_ONCE,
    ) -> None:
        self.limit = limit
        self.held = held
        self.refusal_timeout_s = refusal_timeout_s
        self.refusals_at_once = refusals_at_once
        told = error(
            "overloaded", f"The gateway holds {limit} connections, which is its cap.", retry_after_s=RETRY_AFTER_S
        )
        self.answer, self._oip_answer = refusal(told, "/v1"), refusal(told, "/v2")
        self.refusing: set[RefusedConnection] = set()
        self._logged_at: float | None = None

    def answer_to(self, start: bytes) -> bytes:
        """`start`: the first bytes of the request; its path decides about the shape."""
        return self._oip_answer if speaks_oip(path_of(start)) else self.answer

    def log_refusal(self, now_s: float) -> None:
        if self._logged_at is None or now_s - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now_s
            log.warning("all %d connections are taken, more are refused; see --max-connections", self.limit)


class TenantCaps:
    """How many connections each tenant has: one counts for the tenant whose key it showed last."""

    def __init__(self, limit: int, board: Board) -> None:
        self.limit = limit
        self._board = board
        self._held: dict[str, Count] = {}

    def take(self, tenant: str) -> bool:
        """False when that tenant has as many as it may."""
        return self._count(tenant).take(self.limit)

    def give(self, tenant: str) -> None:
        self._count(tenant).add(-1)

    def _count(self, tenant: str) -> Count:
        if tenant not in self._held:
            self._held[tenant] = self._board.count(f"connections of {tenant}")
        return self._held[tenant]


class RefusedConnection(asyncio.Protocol):
    """Answers whatever comes first with 503 and closes. It reads on meanwhile: a reset would lose the answer."""

    def __init__(self, cap: ConnectionCap, loop: asyncio.AbstractEventLoop) -> None:
        self._cap = cap
        self._loop = loop
        self._answered = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._cap.log_refusal(self._loop.time())
        if len(self._cap.refusing) >= self._cap.refusals_at_once:
            transport.write(self._cap.answer)
            transport.close()
            return
        self._cap.refusing.add(self)
        self._timer = self._loop.call_later(self._cap.refusal_timeout_s, transport.abort)

    def data_received(self, data: bytes) -> None:
        if not self._answered and not self._transport.is_closing():
            self._answered = True
            self._transport.write(self._cap.answer_to(data))
            self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._cap.refusing:
            self._cap.refusing.remove(self)
            self._timer.cancel()
