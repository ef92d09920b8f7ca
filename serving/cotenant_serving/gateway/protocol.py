"""One client's connection: the guarded HTTP/1.1 protocol that uvicorn's server runs.

uvicorn's own costs as much as the rest of the request path and leaves out what a gateway needs: bounds on headers,
on their time and on slow readers, strict framing, nothing read ahead without end. Here a request is read as far as
its end and no further; the next one waits, unread or in `_ahead`, until the answer has ended:

    head → `framing` → `Request` → app (`answer` for engines' routes, ASGI for pages) → `answered` → next head
                           ↑ body, as it comes                                       ↘ linger, if some was not read
"""

import asyncio
from collections.abc import Callable, Coroutine
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

    def answer(
        self, client: Client, route: routes.Route, target: routes.Target | None
    ) -> Coroutine[Any, Any, None] | None:
        """What answers the request; None when it is on its way already."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None: ...


def served_by(shared: Connections) -> Callable[..., "Connection"]:
    """What uvicorn takes as `http`: makes the protocol of each connection that it accepts."""

    def connection(
        *, config: Any, server_state: Any, app_state: Any, _loop: asyncio.AbstractEventLoop | None = None
    ) -> Connection:
        return Connection(shared, config.loaded_app, server_state, _loop or asyncio.get_running_loop())

    return connection


class Connection(asyncio.Protocol):
    """uvicorn's server calls `shutdown`; `Connections` `late` and `leave`; `Request` `read_on`, `belongs_to` and
    `answered`.
    """

    __slots__ = (
        "_ahead",
        "_app",
        "_at",
        "_chunks",
        "_held_back",
        "_known_to_server",
        "_left",
        "_lingers",
        "_loop",
        "_paused",
        "_request",
        "_seen",
        "_tasks",
        "client_is_slow",
        "deadline_s",
        "ending",
        "known",
        "shared",
        "tenant",
        "transport",
        "waiting",
        "watch",
    )

    def __init__(self, shared: Connections, app: App, server_state: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.shared = shared
        self._app = app
        self._loop = loop
        self._known_to_server = server_state.connections
        self._tasks = server_state.tasks
        self._ahead = b""
        """From `_at` on: came, and was not read yet, of a head that is not complete or after the running request."""
        self._at = 0
        self._seen = 0
        """Bytes of the head that waits there which were looked at; 0: none was."""
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
        self.waiting: tuple[asyncio.Future[None], ...] = ()
        """Who wants to know when the client has caught up, or is gone."""
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
        times = self.shared.times
        draining = self.shared.draining  # it was accepted when all others were told
        self.ending = draining or self.shared.leaving
        self.deadline_s = self._loop.time() + (times.linger_s if draining else times.header_s)
        self._known_to_server.add(self)
        self.shared.add(self, self._loop)

    def connection_lost(self, exc: Exception | None) -> None:
        self._known_to_server.discard(self)
        self.shared.remove(self)
        if self.tenant:
            self.shared.tenants.give(self.tenant)
            self.tenant = ""
        self._lingers = True
        self.client_is_slow = False
        self._leave()
        self.wake()

    def data_received(self, data: bytes) -> None:
        request = self._request
        if self._lingers:
            return
        if request is None:
            if not self._ahead and not self.client_is_slow:
                self._read_head(data, 0)
                return
            self._keep(data)
            if self._seen:
                self._read_ahead()
        elif request.taken_in:
            self._keep(data)
        else:
            self._read_body(request, data, 0)

    def pause_writing(self) -> None:
        self.client_is_slow = True
        if self._request is not None:
            self._request.slow()

    def resume_writing(self) -> None:
        self.client_is_slow = False
        self.wake()
        if self._request is not None:
            self._request.caught_up()
        elif self._ahead:
            self._loop.call_soon(self._read_ahead)

    # A request, from its first byte to its last.

    def _read_head(self, data: bytes, at: int) -> None:
        """`at`: where it begins."""
        self._ahead, seen, self._seen = b"", self._seen, 0
        while data.startswith(b"\r\n", at):  # some clients send one too many after a body
            at, seen = at + 2, 0
        end = data.find(b"\r\n\r\n", at + seen - 3 if seen > 3 else at) + 4
        try:
            if not 4 <= end - at <= framing.MAX_HEAD_BYTES:
                self._wait_for_head(data[at:], seen)
                return
            head = framing.read_head(data[at:end] if at else data, end - at)
        except RequestError as problem:
            start = data[at : at + framing.MAX_LINE_BYTES]
            self._refuse(problem, framing.path_of(start), silent=start.startswith(b"HEAD "))
            return
        self._begin(head, data, end)

    def _wait_for_head(self, data: bytes, seen: int) -> None:
        if data != b"\r":  # half of what may stand before a head
            problem = framing.problem_of(data, seen)
            if problem is not None:
                raise problem
            if data and not seen:
                self.deadline_s = self._loop.time() + self.shared.times.header_s
        self._ahead, self._at, self._seen = data, 0, len(data)

    def _begin(self, head: framing.Head, data: bytes, at: int) -> None:
        """`at`: where the body begins."""
        length, size = head.length, len(data)
        if 0 <= length <= size - at:
            end = at + length
            self._request = request = Request(self, self.transport, head, data[at:end])
            self.deadline_s = inf
            if end < size:
                self._wait_behind(data, end)
        else:
            self._request = request = Request(self, self.transport, head)
            self._begin_body(length)
            self._read_body(request, data, at)
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
        if found is None:
            self.run(call_page(self._app, request, self.transport), request)
        elif (work := self._app.answer(request, *found)) is not None:
            self.run(work, request)

    def run(self, work: Coroutine[Any, Any, None], request: Request) -> None:
        """What answers the request."""
        Work(work, self._loop, self._tasks, request.left).step()

    def _begin_body(self, length: int) -> None:
        self._chunks = framing.Chunks() if length == framing.CHUNKED else None
        self._left = max(0, length)
        self.deadline_s = self._loop.time() + self.shared.times.body_s

    def _read_body(self, request: Request, data: bytes, at: int) -> None:
        if self._chunks is None:
            end = min(at + self._left, len(data))
            part = data[at:end]
            self._left -= len(part)
            ended = not self._left
        else:
            try:
                part, end = self._chunks.feed(data, at)
            except RequestError as problem:
                self._refuse(problem, request.path, silent=request.method == "HEAD")
                return
            ended = self._chunks.done
        if part:
            request.arrived(part)
        if ended:
            self.deadline_s = inf
            self._chunks = None
            request.complete()
            if end < len(data):
                self._wait_behind(data, end)
            if self._held_back:
                self._start(request)
        elif request.held_bytes > HELD_BYTES and not request.awaited:
            self._pause()

    # What a request asks of its connection.

    def read_on(self) -> None:
        """Unless as much as may wait here does."""
        if self._paused and len(self._ahead) - self._at <= HELD_BYTES and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def wake(self) -> None:
        """Whoever waits for the client looks at it again."""
        if self.waiting:
            waiting, self.waiting = self.waiting, ()
            for each in waiting:
                if not each.done():
                    each.set_result(None)

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
            if self._ahead and not self.client_is_slow:
                self._loop.call_soon(self._read_ahead)  # not now: a thousand requests may wait there

    def _read_ahead(self) -> None:
        """Not while the client takes less than it is sent: its answers would pile up here."""
        idle = self._request is None and not self._lingers and not self.transport.is_closing()
        if idle and self._ahead and not self.client_is_slow:
            self._read_head(self._ahead, self._at)
            request = self._request
            if request is None or request.taken_in or request.awaited or request.held_bytes <= HELD_BYTES:
                self.read_on()

    # Ends.

    def leave(self) -> None:
        """Its next answer says that it is the last one. One that has begun without saying so is not the last."""
        if self._request is None or not self._request.begun:
            self.ending = True

    def shutdown(self) -> None:
        """No more requests; the running one gets its answer."""
        self.ending = self.shared.draining = True
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
        """What comes before its turn. Copies what waits, which is at most `HELD_BYTES` while anything is read."""
        self._wait_behind(self._ahead[self._at :] + data if self._ahead else data, 0)

    def _wait_behind(self, data: bytes, at: int) -> None:
        self._ahead, self._at = data, at
        if len(data) - at > HELD_BYTES:
            self._pause()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()
