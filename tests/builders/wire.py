"""The gateway's server protocol without a socket: bytes in and out, a clock that a test moves, an app it programs."""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cotenant_serving.gateway.board import LocalBoard, LocalCount
from cotenant_serving.gateway.caps import ConnectionCap, TenantCaps
from cotenant_serving.gateway.client import Client, ClientGoneError
from cotenant_serving.gateway.connections import Connections, Times
from cotenant_serving.gateway.protocol import Connection

Handler = Callable[[Client], Awaitable[None]]
_STATUS = re.compile(rb"HTTP/1\.1 [0-9]{3} [A-Z]")


GET = b"GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
PAGE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


async def never(client: Client) -> None:
    """Does not answer."""
    await asyncio.get_running_loop().create_future()


async def no_body_wanted(client: Client) -> None:
    client.begin(413, b"", 2)
    client.end(b"no")


class Clock:
    """What the protocol needs of a loop; `advance` is the only thing that moves its time."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        self._due: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self._now_s

    def call_later(self, delay_s: float, callback: Callable[..., None], *args: Any) -> None:
        self._due.append((self._now_s + delay_s, callback, args))

    def call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        asyncio.get_running_loop().call_soon(callback, *args)

    def create_task(self, work: Any) -> "asyncio.Task[None]":
        return asyncio.get_running_loop().create_task(work)

    def advance(self, seconds: float) -> None:
        end_s = self._now_s + seconds
        while self._due and min(self._due, key=lambda due: due[0])[0] <= end_s:
            due = min(self._due, key=lambda due: due[0])
            self._due.remove(due)
            self._now_s = due[0]
            due[1](*due[2])
        self._now_s = end_s


class FakeTransport:
    """`sent`: all that was written. `waiting_bytes`: what the client has not taken of it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closing = self.aborted = self.reading_paused = False
        self.ended = False
        self.waiting_bytes = 0

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)

    def write(self, data: bytes) -> None:
        assert not self.closing, "written to a closed connection"
        assert not self.ended, "written after the end"
        self.writes.append(data)

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False

    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes

    def get_extra_info(self, name: str) -> None:
        return None


async def whole_body(client: Client) -> bytes:
    body = client.take_body()
    if body is not None:
        return body
    parts = []
    while part := await client.body_part():
        parts.append(part)
    return b"".join(parts)


async def answer_what_came(client: Client) -> None:
    """Whose body ends in the middle is not answered."""
    try:
        body = await whole_body(client)
    except ClientGoneError:
        return
    client.whole(200, b"", body)


class Wire:
    """One connection. `requests`: those that the app was given."""

    def __init__(
        self,
        handler: Handler = answer_what_came,
        *,
        times: Times | None = None,
        per_tenant: int = 9,
        shared: Connections | None = None,
    ) -> None:
        self.clock = Clock()
        self.requests: list[Client] = []
        self.pages: list[dict[str, Any]] = []
        """The scopes of requests that no engine answers."""
        self._handler = handler
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.shared = shared or Connections(
            ConnectionCap(9, LocalCount()), TenantCaps(per_tenant, LocalBoard()), times
        )
        self.transport = FakeTransport()
        self.protocol = Connection(self.shared, self, self, self.clock)  # type: ignore[arg-type]
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]

    async def answer(self, client: Client, route: object, target: object) -> None:
        self.requests.append(client)
        await self._handler(client)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """A page. It answers what came, too."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        self.pages.append(scope)
        length = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})

    async def send(self, *pieces: bytes) -> "Wire":
        """As a client that sends one piece after the other, and sees what comes of each."""
        for piece in pieces:
            if not self.transport.closing and not self.transport.reading_paused:
                self.protocol.data_received(piece)
            await settled()
        return self

    def lose(self) -> None:
        self.transport.closing = True
        self.protocol.connection_lost(None)

    @property
    def answers(self) -> list[tuple[int, bytes, bytes]]:
        """(status, the other lines of the head, body), in their order."""
        starts = [match.start() for match in _STATUS.finditer(self.transport.sent)]
        found = []
        for answer in pieces_of(self.transport.sent, starts):
            head, _, body = answer.partition(b"\r\n\r\n")
            found.append((int(head[9:12]), head, body))
        return found

    @property
    def statuses(self) -> list[int]:
        return [status for status, _, _ in self.answers if status != 100]

    @property
    def closed(self) -> bool:
        """Nothing more is answered."""
        return self.transport.closing or self.transport.ended


async def settled() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def pieces_of(data: bytes, at: Sequence[int]) -> list[bytes]:
    """`data`, cut at each of these places."""
    cuts = [0, *sorted(set(at)), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(cuts) if start < end]
