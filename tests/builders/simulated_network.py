"""An event loop whose time passes only when nothing else is left to do, and a network in memory on it.

A run is decided by its seed alone. Addresses behave as on a real network: who listens there now answers, a connection
to a process that is gone is reset when it is used, and a host that vanished says nothing until another one has its
address.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.builders.virtual_time import VirtualLoop

Address = tuple[str, int]
Accept = Callable[[], asyncio.Protocol]


class SimulatedLoop(VirtualLoop):
    def __init__(self) -> None:
        super().__init__(begin_s=1000.0)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """At once: threads would bring back the machine's time."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as problem:
            future.set_exception(problem)
        return future


class End(asyncio.Transport):
    """One end of a connection. What is sent arrives in order, some time later."""

    def __init__(self, network: "Network", protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.network, self.protocol = network, protocol
        self.peer: End = self
        self.vanished = False
        """Its host is gone without a word."""
        self._closing = self._paused = False
        self._held: deque[bytes | Exception | None] = deque()
        self._last_at = 0.0

    def write(self, data: Any) -> None:
        if not self._closing:
            self._tell_peer(bytes(data))

    def close(self) -> None:
        self._end(None)

    def abort(self) -> None:
        self._end(None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        while self._held and not self._paused:
            self._take(self._held.popleft())

    def get_write_buffer_size(self) -> int:
        return 0

    def lose(self, problem: Exception | None, *, quietly: bool = False) -> None:
        """Its process is gone. `quietly`: the other side is not told."""
        if quietly:
            self.vanished = True
        self._end(problem)

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Another process has this end now, as behind a proxy that kept the connection."""
        old, self.protocol = self.protocol, protocol
        protocol.connection_made(self)
        self.network.loop.call_soon(old.connection_lost, ConnectionResetError())

    def _end(self, problem: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        if not self.vanished:
            self._tell_peer(problem)
        self.network.loop.call_soon(self.protocol.connection_lost, problem)

    def _tell_peer(self, what: bytes | Exception | None) -> None:
        loop = self.network.loop
        self._last_at = max(self._last_at + 1e-6, loop.time() + self.network.latency_s())
        loop.call_at(self._last_at, self.peer.arrive, what)

    def arrive(self, what: bytes | Exception | None) -> None:
        if self._closing:
            # A host that is there says that it knows no such connection; one that vanished says nothing.
            if isinstance(what, bytes) and (not self.vanished or self.network.host_is_back(self)):
                self._last_at = max(self._last_at + 1e-6, self.network.loop.time() + self.network.latency_s())
                self.network.loop.call_at(self._last_at, self.peer.arrive, ConnectionResetError())
        elif self._paused:
            self._held.append(what)
        else:
            self._take(what)

    def _take(self, what: bytes | Exception | None) -> None:
        if self._closing:
            return
        if isinstance(what, bytes):
            self.protocol.data_received(what)
        else:
            if what is None:
                self.protocol.eof_received()
            self._end(what)


class Network:
    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        self.loop, self._rng = loop, rng
        self.listening: dict[Address, Accept] = {}
        self.vanished: set[Address] = set()
        self._address: dict[End, Address] = {}

    def latency_s(self) -> float:
        return self._rng.uniform(0.0001, 0.003)

    def host_is_back(self, end: End) -> bool:
        return self._address.get(end) in self.listening

    async def connect(self, make: Callable[[], Any], host: str, port: int) -> tuple[End, Any]:
        """As `create_connection` of an event loop."""
        await asyncio.sleep(self.latency_s())
        address = (host, port)
        if address in self.vanished and address not in self.listening:
            await asyncio.sleep(3600)
        if (accept := self.listening.get(address)) is None:
            raise ConnectionRefusedError
        here, there = End(self, make()), End(self, accept())
        here.peer, there.peer = there, here
        self._address[there] = address
        there.protocol.connection_made(there)
        here.protocol.connection_made(here)
        return here, here.protocol
