"""Connections to one endpoint: kept between requests, opened when none is free, never more than agreed."""

import asyncio
import errno
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic_ns

from cotenant_loadtests.checks import Finding
from cotenant_loadtests.connection import Connection
from cotenant_loadtests.exchange import Exchange, Traffic
from cotenant_loadtests.http_urls import http_parts, port_of
from cotenant_loadtests.tls import tls_context
from cotenant_loadtests.units import NS_PER_S

MAX_IDLE_S = 4
"""Uvicorn, and with it vLLM, hangs up after 5 s; a request sent in that moment would fail by the tool's doing."""
ADDRESS_S = 3.0
"""For an address that never worked, while there are others: a packet may be lost twice before."""
_NO_TIME_LIMIT_S = 86_400.0
"""Deadlines end a handshake, not the loop's own limit."""


class EndpointError(Exception):
    """The endpoint cannot be used as told; str is the whole message."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go."""

    host: str
    port: int
    prefix: str
    """Path before those of the APIs, without a slash at its end."""
    authority: str
    """For the header `host`."""
    tls: ssl.SSLContext | None
    addresses: tuple[str, ...]
    """Empty: the name is unknown."""


def make_endpoint(url: str, addresses: Sequence[str], *, ca_file: str | None, verify_tls: bool) -> Endpoint:
    """`addresses`: those of the url's host. Raises EndpointError."""
    parts = http_parts(url)
    if parts is None or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise EndpointError(f"target.url: {url!r} is not http(s)://host:port/path. Give scheme, host and port.")
    try:
        context = tls_context(ca_file, verify=verify_tls) if parts.scheme == "https" else None
    except OSError as problem:
        raise EndpointError(
            f"target.ca_file: {ca_file!r} cannot be used: {problem}. It must be a PEM file."
        ) from None
    return Endpoint(
        host=parts.hostname,
        port=port_of(parts),
        prefix=parts.path.rstrip("/"),
        authority=parts.netloc,
        tls=context,
        addresses=tuple(addresses),
    )


@dataclass(slots=True)
class Pool:
    """An exchange that is given to `submit` is sent at once, or opens a connection, or waits for one.

    `ended` is told of each end: exchange, finding, time. `limit`: connections open or opening.
    """

    endpoint: Endpoint
    limit: int
    ended: Callable[[Exchange, Finding, int], None]
    traffic: Traffic = field(default_factory=Traffic)
    address_s: float = ADDRESS_S
    _working: str | None = None
    """The address of the connection that opened last, so the first to be tried."""
    _open: int = 0
    _closed: bool = False
    _idle: dict[Connection, int] = field(default_factory=dict)
    """→ since when, the longest first."""
    _waiting: deque[Exchange] = field(default_factory=deque)

    @property
    def waiting(self) -> int:
        return sum(exchange.finding is None for exchange in self._waiting)

    def submit(self, exchange: Exchange) -> None:
        if self._idle:
            self._idle.popitem()[0].send(exchange)
        elif self._open < self.limit:
            self._dial(exchange)
        else:
            self._waiting.append(exchange)

    def give_up(self, exchange: Exchange) -> None:
        """Stop working on it; it has ended."""
        if exchange.dial is not None:
            exchange.dial.cancel()
        if exchange.connection is not None:
            connection, exchange.connection = exchange.connection, None
            connection.drop()

    def close_idle(self, now_ns: int) -> None:
        """Those that have not been used for `MAX_IDLE_S`."""
        while self._idle:
            connection, since_ns = next(iter(self._idle.items()))
            if now_ns - since_ns < MAX_IDLE_S * NS_PER_S:
                return
            connection.drop()

    def close(self) -> None:
        """Also those that will be free only after this."""
        self._closed = True
        for connection in list(self._idle):
            connection.drop()

    # What connections tell

    def opened(self, connection: Connection) -> None:
        exchange, connection.first = connection.first, None
        now_ns = monotonic_ns()
        if exchange is None or exchange.finding is not None:
            self.free(connection, now_ns)
            return
        exchange.connect_ns = now_ns - exchange.dialled_ns
        connection.send(exchange)

    def answered(self, exchange: Exchange, finding: Finding, now_ns: int) -> None:
        self.ended(exchange, finding, now_ns)

    def free(self, connection: Connection, now_ns: int) -> None:
        if self._closed:
            connection.drop()
            return
        following = self._next_waiting()
        if following is None:
            self._idle[connection] = now_ns
        else:
            connection.send(following)

    def closing(self, connection: Connection) -> None:
        self._idle.pop(connection, None)

    def lost(self, connection: Connection) -> None:
        self._one_less()

    # Opening

    def _dial(self, exchange: Exchange) -> None:
        self._open += 1
        exchange.dialled_ns = monotonic_ns()
        connection = Connection(self, exchange, tls=self.endpoint.tls is not None)
        exchange.dial = asyncio.get_running_loop().create_task(self._connect(exchange, connection))
        exchange.dial.add_done_callback(partial(self._dialled, exchange, connection))

    async def _connect(self, exchange: Exchange, connection: Connection) -> None:
        finding = await self._try_addresses(connection)
        if finding is not None and exchange.finding is None:
            self.ended(exchange, finding, monotonic_ns())

    def _dialled(self, exchange: Exchange, connection: Connection, _dial: asyncio.Task[None]) -> None:
        """A callback and no `finally`: one that is given up before its first step never comes to that."""
        exchange.dial = None
        if not connection.made:
            self._one_less()

    async def _try_addresses(self, connection: Connection) -> Finding | None:
        """None: it is open, or was. No exception is kept: each would keep its frames, a cycle."""
        finding = Finding("connect", "unknown_host")
        addresses = sorted(self.endpoint.addresses, key=lambda address: address != self._working)
        for address in addresses:
            patient = address in (self._working, addresses[-1])
            try:
                async with asyncio.timeout(None if patient else self.address_s):
                    await self._open_to(address, connection)
            except OSError as error:
                finding = connect_finding(error, tls=self.endpoint.tls is not None)
            if connection.made:
                self._working = address
                return None
        return finding

    async def _open_to(self, address: str, connection: Connection) -> None:
        endpoint = self.endpoint
        await asyncio.get_running_loop().create_connection(
            lambda: connection,
            address,
            endpoint.port,
            ssl=endpoint.tls,
            server_hostname=endpoint.host if endpoint.tls else None,
            ssl_handshake_timeout=_NO_TIME_LIMIT_S if endpoint.tls else None,
        )

    def _one_less(self) -> None:
        self._open -= 1
        if self._open < self.limit and (following := self._next_waiting()) is not None:
            self._dial(following)

    def _next_waiting(self) -> Exchange | None:
        while self._waiting:
            exchange = self._waiting.popleft()
            if exchange.finding is None:
                return exchange
        return None


def connect_finding(problem: OSError, *, tls: bool) -> Finding:
    """Why no connection came about."""
    if isinstance(problem, TimeoutError) and problem.errno is None:
        return Finding("connect", "no_answer")  # ours, not the kernel's
    if isinstance(problem, ssl.SSLCertVerificationError):
        return Finding("tls", "certificate")
    if isinstance(problem, ssl.SSLError):
        return Finding("tls", (problem.reason or "handshake").lower())
    if tls and isinstance(problem, ConnectionResetError | ConnectionAbortedError):
        return Finding("tls", "handshake")
    return Finding("connect", errno.errorcode.get(problem.errno or 0, type(problem).__name__))
