"""The client of engines that gateways use: bare transports, httptools, and as little as possible for each request.

Connections are kept per instance of an engine and used last in, first out; one sweep closes those that waited too
long. A request is one write of precomputed bytes; a reused connection costs no timer, no lock and no task.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache

import msgspec

from cotenant_serving.contract import HEADER_INSTANCE, HEADER_MODEL, HEADER_REQUEST_ID, Usage
from cotenant_serving.contract_gateway import EngineRow
from cotenant_serving.gateway.eager import as_task
from cotenant_serving.gateway.upstream import (
    CANCEL_S,
    CONNECT_S,
    IDLE_CONNECTION_S,
    LARGE_BODY_BYTES,
    REQUESTS_PATH,
    EngineLostError,
    EngineUnreachableError,
    Outgoing,
    encoded_path,
    for_head,
    host_and_port,
)
from cotenant_serving.gateway.upstream_answer import LeanAnswer
from cotenant_serving.gateway.upstream_connection import Connection

LEAVE_S = 1.0
"""How long the end of an answer may take after its last piece that mattered."""
SWEEP_S = 0.5
_MAX_KNOWN = 4096
"""Engines that are remembered, with their idle connections; the oldest is forgotten first."""
_HEAD = b"%b%b%b" + HEADER_REQUEST_ID.encode() + b": %b\r\n\r\n"
_HEAD_OF_BODY = _HEAD[:-2] + b"content-length: %d\r\n\r\n"

Connect = Callable[[Callable[[], Connection], str, int], Awaitable[tuple[object, Connection]]]
"""As `create_connection` of an event loop. Raises OSError."""


class Engine:
    """An engine as a row of the table describes it: what every request to it says, and its idle connections."""

    __slots__ = ("lines", "pool", "row", "token")

    def __init__(self, row: EngineRow, token: str, pool: list[Connection]) -> None:
        """Raises ValueError for what cannot stand in a head."""
        self.row, self.token, self.pool = row, token, pool
        self.lines = (
            _line("host", host_and_port(row))
            + _line("authorization", "Bearer " + token)
            + _line(HEADER_INSTANCE, row.instance)
            + _line(HEADER_MODEL, row.model)
        )


class LeanUpstream:
    def __init__(self, token: Callable[[], str], connect: Connect | None = None) -> None:
        """`token` gives the pool token at the time of each request. Needs a running event loop."""
        self._token = token
        self._loop = asyncio.get_running_loop()
        self._connect: Connect = connect or self._loop.create_connection
        self._engines: dict[str, Engine] = {}
        """By instance: what connects to an address is not used for who has that address later."""
        self._open: set[Connection] = set()
        self._leaving: dict[LeanAnswer, float] = {}
        """Until when each may take."""
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(self, row: EngineRow, outgoing: Outgoing, request_id: str) -> LeanAnswer:
        engine = self._engines.get(row.instance)
        if engine is None or engine.row is not row or engine.token != self._token():
            engine = self._know(row)
        method, body = outgoing.method, outgoing.body
        line = request_line(method, outgoing.path)
        fields = b""
        for name, value in outgoing.headers.items():
            fields += _known_line(name, value)
        id_ = for_head("the request's id", request_id).encode()
        if body or method == "POST":
            head = _HEAD_OF_BODY % (line, engine.lines, fields, id_, len(body))
        else:
            head = _HEAD % (line, engine.lines, fields, id_)
        connection = self._idle(engine.pool) or await self._new(engine)
        answer = connection.ask(head, body, pieces=len(body) > LARGE_BODY_BYTES, without_body=method == "HEAD")
        await answer.head()
        return answer

    def idle(self, row: EngineRow) -> Connection | None:
        """A connection for `Connection.carry`, if one waits; of an engine that was asked before as it is now."""
        engine = self._engines.get(row.instance)
        if engine is None or engine.row is not row or engine.token != self._token():
            return None
        return self._idle(engine.pool)

    def message(self, row: EngineRow, line: bytes, request_id: str, body: bytes) -> bytes:
        """All of a request with JSON, which is no larger than `JOINED_BYTES`. `line`: as `request_line` makes it."""
        lines = self._engines[row.instance].lines
        return (_HEAD_OF_BODY + b"%b") % (line, lines, _JSON_LINE, request_id.encode(), len(body), body)

    async def cancel(self, row: EngineRow, request_id: str) -> Usage | None:
        stop = Outgoing("DELETE", REQUESTS_PATH + request_id, b"", {})
        try:
            async with asyncio.timeout(CANCEL_S):
                answer = await self.send(row, stop, request_id)
                body = await answer.read()
            return msgspec.json.decode(body, type=Usage) if answer.status == 200 else None
        except (EngineUnreachableError, EngineLostError, TimeoutError, ValueError):
            return None

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)  # transports say then that they are closed

    # What connections tell it.

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)

    def leaves(self, answer: LeanAnswer) -> None:
        self._leaving.setdefault(answer, self._loop.time() + LEAVE_S)

    # How it works.

    def _know(self, row: EngineRow) -> Engine:
        """Raises EngineUnreachableError for a row that cannot be put into a request."""
        known = self._engines.pop(row.instance, None)
        moved = known is None or (known.row.host, known.row.port) != (row.host, row.port)
        try:
            engine = Engine(row, self._token(), [] if known is None or moved else known.pool)
        except ValueError as problem:
            raise EngineUnreachableError(str(problem)) from None
        if len(self._engines) >= _MAX_KNOWN:
            del self._engines[next(iter(self._engines))]
        self._engines[row.instance] = engine
        return engine

    def _idle(self, pool: list[Connection]) -> Connection | None:
        """One that its engine still keeps, as far as is known here."""
        while pool:
            connection = pool.pop()
            if connection.usable and self._loop.time() - connection.idle_since < IDLE_CONNECTION_S:
                return connection
            connection.abort()
        return None

    async def _new(self, engine: Engine) -> Connection:
        """Raises EngineUnreachableError."""
        row, pool = engine.row, engine.pool
        await as_task()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await self._connect(lambda: Connection(self, pool, self._loop), row.host, row.port)
        except (OSError, OverflowError, UnicodeError) as problem:
            raise EngineUnreachableError(type(problem).__name__) from None
        if not connection.usable:
            raise EngineUnreachableError("it closed the connection at once")
        return connection

    def _sweep(self) -> None:
        now = self._loop.time()
        try:
            for connection in list(self._open):
                if connection.idle and now - connection.idle_since >= IDLE_CONNECTION_S:
                    connection.abort()
            for answer in [
                answer for answer, until in self._leaving.items() if until <= now or answer.connection is None
            ]:
                del self._leaving[answer]
                answer.drop()
        finally:  # whatever fails, the next look comes
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep) if self._open else None


@lru_cache(maxsize=1024)
def request_line(method: str, path: str) -> bytes:
    return f"{for_head('the method', method)} {encoded_path(path)} HTTP/1.1\r\n".encode()


def _line(name: str, value: str) -> bytes:
    return f"{for_head('the name of a header', name)}: {for_head(name, value)}\r\n".encode()


_known_line = lru_cache(maxsize=1024)(_line)
_JSON_LINE = _line("content-type", "application/json")
