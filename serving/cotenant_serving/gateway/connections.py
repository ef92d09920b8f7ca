"""What the connections of one worker share: caps, one look at all their deadlines, and the Date of their answers.

A timer for each request would cost more than reading it. Every `SWEEP_S` one look at all connections ends those that
are late; every `stall_s` one finds the clients that take nothing of what waits for them.
"""

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from math import inf
from typing import TYPE_CHECKING

from cotenant_serving.gateway.caps import ConnectionCap, TenantCaps

if TYPE_CHECKING:
    from cotenant_serving.gateway.protocol import Connection

log = logging.getLogger("cotenant.gateway")

SWEEP_S = 0.25
_ACKED_AT = 120
"""Offset of tcpi_bytes_acked in Linux's struct tcp_info."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long a client may take, in seconds; the end is seen up to `SWEEP_S` late."""

    header_s: float = 10.0
    """From the first byte of a request line to the end of the headers."""
    idle_s: float = 75.0
    """Between two requests."""
    body_s: float = 30.0
    """From the end of the headers to the end of the body, after which who waits for it gets a TimeoutError."""
    answer_s: float = 5.0
    """What the app then has to answer."""
    linger_s: float = 1.0
    """How long the rest of a request is thrown away after its answer, so that the client sees it and no reset."""
    stall_s: float = 30.0
    """A client that has taken nothing of what waits for it between two looks, so far apart, is cut off."""


class StallWatch:
    """Whether a client has taken nothing since the last look. Pure."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None

    def stalled(self, waiting: int, taken: int) -> bool:
        """`waiting`: bytes for the client that are still here. `taken`: by it, since the connection began."""
        before, self._seen = self._seen, (waiting, taken) if waiting else None
        return before is not None and before == self._seen


class Connections:
    """`open` has those that count for the cap."""

    def __init__(
        self,
        cap: ConnectionCap,
        tenants: TenantCaps,
        times: Times | None = None,
        on_refusal: Callable[[str], None] = lambda code: None,
    ) -> None:
        """`on_refusal`: with the code of the error that answers what is no request."""
        self.on_refusal = on_refusal
        self.cap = cap
        self.tenants = tenants
        self.times = times or Times()
        self.draining = False
        """Connections that are accepted now close after their first answer."""
        self.leaving = False
        """This gateway ends soon: connections end with their next answer, and new ones with their first."""
        self.date = b""
        """A header line, right to a second."""
        self.open: set[Connection] = set()
        self._sweeping = False
        self._next_look_s = 0.0

    def add(self, connection: "Connection", loop: asyncio.AbstractEventLoop) -> None:
        self.open.add(connection)
        if not self._sweeping:
            self._sweeping = True
            self._next_look_s = loop.time() + self.times.stall_s
            self._sweep(loop)

    def remove(self, connection: "Connection") -> None:
        """Also one that was never added."""
        if connection in self.open:
            self.open.remove(connection)
            self.cap.held.add(-1)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stops by itself when there is no connection."""
        now_s = loop.time()
        self.date = f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode()
        try:
            if self.leaving:
                for connection in self.open:
                    connection.leave()
            for connection in [each for each in self.open if each.deadline_s <= now_s]:
                self._guarded(connection, lambda each: each.late(now_s))
            if now_s >= self._next_look_s:
                self._next_look_s = now_s + self.times.stall_s
                for connection in list(self.open):
                    self._guarded(connection, self._look)
        finally:
            self._sweeping = bool(self.open)
            if self._sweeping:
                loop.call_later(SWEEP_S, self._sweep, loop)

    def _guarded(self, connection: "Connection", act: Callable[["Connection"], None]) -> None:
        """One connection that fails ends, and keeps no other from its end."""
        try:
            act(connection)
        except Exception:
            log.exception("a look at the deadlines of a connection has failed; it is cut off")
            connection.deadline_s = inf
            connection.transport.abort()

    def _look(self, connection: "Connection") -> None:
        """Also at connections that are closing: those end only when everything is sent."""
        transport = connection.transport
        waiting = transport.get_write_buffer_size()
        if connection.watch.stalled(waiting, taken(transport) if waiting else 0):
            transport.abort()


def taken(transport: asyncio.BaseTransport) -> int:
    """Bytes that the other side has acknowledged since the connection began; 0 where the kernel does not tell."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return 0
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + 8)
    except (OSError, ValueError):  # the latter is uvloop's, of a connection that was reset a moment ago
        return 0
    return int(struct.unpack_from("=Q", told, _ACKED_AT)[0]) if len(told) >= _ACKED_AT + 8 else 0
