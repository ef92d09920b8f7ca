"""One client's connection: the guarded HTTP/1.1 protocol that uvicorn's server runs.

uvicorn's own costs as much as the rest of the request path and leaves out what a gateway needs: bounds on headers,
on their time and on slow readers, strict framing, nothing read ahead without end. Here a request is read as far as
its end and no further; the next one waits, unread or in `_ahead`, until the answer has ended:

    head → `framing` → `Request` → app (`answer` for engines' routes, ASGI for pages) → `answered` → next head
                           ↑ body, as it comes                                       ↘ linger, if some was not read
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

from cotenant_serving.gateway import framing, routes
from cotenant_serving.gateway.caps import RefusedConnection
from cotenant_serving.gateway.client import Client
from cotenant_serving.gateway.connections import Connections, StallWatch
from cotenant_serving.gateway.eager import Work
from cotenant_serving.gateway.page_calls import Message, Receive, Send, call_page
from cotenant_serving.gateway.request import HELD_BYTES, Request
from cotenant_serving.openai_api import RequestError


class App(Protocol):
    """`answer` for what `routes.find` knows, ASGI for everything else."""

    async def answer(self, client: Client, route: routes.Route, target: routes.Target | None) -> None: ...

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None: ...


def served_by(shared: Connections) -> Callable[..., "Connection"]:
    """What uvicorn takes as `http`: makes the protocol of each connection that it accepts."""

    def connection(
        *, config: Any, server_state: Any, app_state: Any, _loop: asyncio.AbstractEventLoop | None = None
    ) -> Connection:
        return Connection(shared, config.loaded_app, server_state, _loop or asyncio.get_running_loop())

    return connection


class Connection(asyncio.Protocol):
    """uvicorn's server calls `shutdown`; `Connections` `late`; `Request` `read_on`, `belongs_to` and `answered`."""

    __slots__ = (
        "_ahead",
        "_app",
        "_chunks",
        "_held_back",
        "_known_to_server",
        "_left",
        "_lingers",
        "_loop",
        "_paused",
        "_request",
        "_tasks",
        "client_is_slow",
        "deadline_s",
        "ending",
        "known",
        "shared",
        "tenant",
        "transport",
        "watch",
    )

    def __init__(self, shared: Connections, app: App, server_state: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.shared = shared
        self._app = app
        self._loop = loop
        self._known_to_server = server_state.connections
        self._tasks = server_state.tasks
        self._ahead = b""
        """Came, and was not read yet: of a head that is not complete, or after the end of the running request."""
        self._request: Request | None = None
        self._left = 0
        """Bytes of its body that are still to come, where it has a length."""
        self._chunks: framing.Chunks | None = None
        """Reads its body, where that is chunked."""
        self._lingers = False
        """All is said; what still comes is thrown away."""
        self._held_back = False
        """The app is not given the request before the rest of its short body is here, or the next sweep."""
        self._paused = False
        self.tenant = ""
        self.known: Any = None
        """What the app keeps with it."""
        self.client_is_slow = False
        self.ending = False
        """No request follows the running one."""
        self.deadline_s = inf
        self.watch = StallWatch()

    # The transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        cap = self.shared.cap
        if not cap.held.take(cap.limit):
            refused = RefusedConnection(cap, self._loop)
            transport.set_protocol(refused)
            refused.connection_made(transport)
            return
        self.transport = transport
        self.deadline_s = self._loop.time() + self.shared.times.header_s
        self._known_to_server.add(self)
        self.shared.add(self, self._loop)

    def connection_lost(self, exc: Exception | None) -> None:
        self._known_to_server.discard(self)
        self.shared.remove(self)
        if self.tenant:
            self.shared.tenants.give(self.tenant)
            self.tenant = ""
        self._lingers = True
        self._leave()

    def data_received(self, data: bytes) -> None:
        request = self._request
        if self._lingers:
            return
        if request is None:
            self._read_head(self._ahead + data if self._ahead else data)
        elif request.taken_in:
            self._keep(data)
        else:
            self._read_body(request, data)

    def pause_writing(self) -> None:
        self.client_is_slow = True
        if self._request is not None:
            self._request.slow()

    def resume_writing(self) -> None:
        self.client_is_slow = False
        if self._request is not None:
            self._request.caught_up()

    # A request, from its first byte to its last.

    def _read_head(self, data: bytes) -> None:
        begins = not self._ahead
        while data.startswith(b"\r\n"):  # some clients send one too many after a body
            data = data[2:]
        self._ahead = b""
        size = data.find(b"\r\n\r\n") + 4
        try:
            if not 4 <= size <= framing.MAX_HEAD_BYTES:
                self._wait_for_head(data, begins)
                return
            head = framing.read_head(data, size)
        except RequestError as problem:
            self._refuse(problem, framing.path_of(data), silent=data.startswith(b"HEAD "))
            return
        self._begin(head, data[size:])

    def _wait_for_head(self, data: bytes, begins: bool) -> None:
        problem = framing.problem_of(data)
        if problem is not None:
            raise problem
        self._ahead = data
        if begins and data:
            self.deadline_s = self._loop.time() + self.shared.times.header_s

    def _begin(self, head: framing.Head, rest: bytes) -> None:
        whole = len(rest) == head.length
        self._request = request = Request(self, self.transport, head, rest if whole else None)
        if whole:
            self.deadline_s = inf
        elif not head.length:
            request.taken_in = True
            self.deadline_s = inf
            self._keep(rest)
        else:
            self._begin_body(head.length)
            self._read_body(request, rest)
            if self._request is None:
                return  # the body was refused
            if 0 < self._left <= HELD_BYTES and not head.waits_for_100:
                # Most clients send head and body in two packets: with both, the app need not wait.
                self._held_back = True
                self.deadline_s = self._loop.time()
                return
        self._start(request)

    def _start(self, request: Request) -> None:
        self._held_back = False
        found = routes.find(request.path)
        work = call_page(self._app, request, self.transport) if found is None else self._app.answer(request, *found)
        Work(work, self._loop, self._tasks, request.left).step()

    def _begin_body(self, length: int) -> None:
        self._chunks = framing.Chunks() if length == framing.CHUNKED else None
        self._left = max(0, length)
        self.deadline_s = self._loop.time() + self.shared.times.body_s

    def _read_body(self, request: Request, data: bytes) -> None:
        rest = b""
        if self._chunks is None:
            if len(data) > self._left:
                data, rest = data[: self._left], data[self._left :]
            self._left -= len(data)
            ended = not self._left
        else:
            try:
                data, rest = self._chunks.feed(data)
            except RequestError as problem:
                self._refuse(problem, request.path, silent=request.method == "HEAD")
                return
            ended = self._chunks.done
        if data:
            request.arrived(data)
        if ended:
            self.deadline_s = inf
            self._chunks = None
            request.complete()
            self._keep(rest)
            if self._held_back:
                self._start(request)
        elif request.held_bytes > HELD_BYTES and not request.awaited:
            self._pause()

    # What a request asks of its connection.

    def read_on(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def belongs_to(self, tenant: str) -> bool:
        if tenant == self.tenant or self._request is None:
            return True
        if not self.shared.tenants.take(tenant):
            return False
        if self.tenant:
            self.shared.tenants.give(self.tenant)
        self.tenant = tenant
        return True

    def answered(self, request: Request) -> None:
        """Its answer has been written."""
        self._request = None
        if not request.taken_in or (self._ahead and not request.keep_alive):
            self._linger()
        elif not request.keep_alive:
            self.transport.close()
        else:
            self.deadline_s = self._loop.time() + self.shared.times.idle_s
            if self._paused:
                self.read_on()
            if self._ahead:
                self._loop.call_soon(self._read_ahead)  # not now: a thousand requests may wait there

    def _read_ahead(self) -> None:
        if self._request is None and self._ahead and not self._lingers:
            data, self._ahead = self._ahead, b""
            self._read_head(data)

    # Ends.

    def shutdown(self) -> None:
        """No more requests; the running one gets its answer."""
        self.ending = True
        if self._request is None and not self._lingers:
            self.transport.close()
        elif self._request is not None:
            self._request.keep_alive = False

    def late(self, now_s: float) -> None:
        """The deadline has passed."""
        if self._request is not None and self._held_back:
            self.deadline_s = now_s + self.shared.times.body_s
            self._start(self._request)
            return
        if self._request is not None and self._request.awaited:
            self.deadline_s = now_s + self.shared.times.answer_s
            self._request.too_late()
            return
        self.deadline_s = inf
        self._lingers = True
        self._leave()
        self.transport.close()

    def _refuse(self, problem: RequestError, path: str, *, silent: bool) -> None:
        """Answers what is no request, unless an answer has begun. `silent`: it is a HEAD, which gets no body."""
        begun = self._request is not None and self._request.begun
        self._leave()
        self.shared.on_refusal(problem.code or "malformed_request")
        if not begun:
            self.transport.write(framing.refusal(problem, path, silent=silent))
        self._linger()

    def _leave(self) -> None:
        """Whoever works on the running request sees its client gone."""
        request, self._request = self._request, None
        if request is not None:
            request.lost()

    def _linger(self) -> None:
        """Takes what still comes, for a moment: to close now would reset the connection and lose the answer."""
        self._lingers, self._ahead, self._chunks = True, b"", None
        self.deadline_s = self._loop.time() + self.shared.times.linger_s
        self.read_on()
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    def _keep(self, data: bytes) -> None:
        """What came before its turn."""
        if data:
            self._ahead += data
            if len(self._ahead) > HELD_BYTES:
                self._pause()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()
