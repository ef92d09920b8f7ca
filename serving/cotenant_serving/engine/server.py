"""HTTP of one engine: a raw ASGI app. Slots, refusals and cancellation are decided here, answers are made elsewhere.

Every route but GET /healthz needs `authorization: Bearer <pool token>`. Bodies and answers are those of the API; what
is for the gateway only (refusals, usage) travels in the headers and the comment that `contract` names.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from cotenant_serving.contract import HEADER_INSTANCE, HEADER_MODEL, HEADER_REQUEST_ID, Usage
from cotenant_serving.engine.answers import usage_json
from cotenant_serving.engine.asgi import Incoming, Receive, Scope, Send, refusal, respond
from cotenant_serving.engine.base import StreamingEngine, UnaryEngine
from cotenant_serving.engine.status import EngineStatus
from cotenant_serving.engine.streaming import StreamingWork
from cotenant_serving.engine.unary import UnaryWork
from cotenant_serving.openai_api import RequestError
from cotenant_serving.tokens import opens
from cotenant_serving.tracing import NO_TRACER, Span, Tracer

MAX_REQUEST_ID_CHARS = 128
REQUESTS_PATH = "/v1/requests/"


class Running(Protocol):
    """A request that holds a slot."""

    request_id: str

    def usage(self) -> Usage:
        """What it has cost so far."""

    def cancel(self) -> None:
        """Its answer ends at once, with an error."""


class Work(Protocol):
    """What a kind of engine does with a request that holds a slot."""

    def serves(self, method: str, path: str) -> bool: ...

    def begin(self, request_id: str) -> Any:
        """A `Running`, for `run`."""

    async def run(self, running: Any, incoming: Incoming) -> None:
        """Reads the body and answers. Raises RequestError before the answer has begun."""


class EngineServer:
    """ASGI app over an engine. `token` gives the text of a token file (see `tokens`), `clock` unix seconds."""

    def __init__(
        self,
        engine: StreamingEngine | UnaryEngine,
        status: EngineStatus,
        token: Callable[[], str],
        clock: Callable[[], float] = time.time,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._work: Work = UnaryWork(engine) if isinstance(engine, UnaryEngine) else StreamingWork(engine, clock)
        self._status = status
        self._tracer = tracer
        self._token = token
        self._running: dict[str, Running] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    def cancel_all(self) -> None:
        for running in list(self._running.values()):
            running.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the engine serves http, not {scope['type']}")
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        incoming = Incoming(scope["method"], scope["path"], headers, receive, send)
        try:
            await self._route(incoming)
        except RequestError as error:
            await incoming.refuse(error)

    async def _route(self, incoming: Incoming) -> None:
        method, path = incoming.method, incoming.path
        if (method, path) == ("GET", "/healthz"):
            return await respond(incoming.send, 200, b'{"status":"ok"}')
        if not opens(incoming.headers.get("authorization", b""), self._token()):
            raise RequestError(
                401,
                "This engine answers only with its pool's token. Send requests to the gateway.",
                type_="authentication_error",
                code="invalid_pool_token",
            )
        if self._work.serves(method, path):
            return await self._run(incoming)
        if (method, path) == ("GET", "/state"):
            return await respond(incoming.send, 200, msgspec.json.encode(self._status.snapshot()))
        if method == "DELETE" and path.startswith(REQUESTS_PATH):
            return await respond(incoming.send, 200, self._cancel_by_id(path.removeprefix(REQUESTS_PATH)))
        task = self._status.task
        raise RequestError(404, f"{method} {path} is not a route of an engine of task {task}.", code="not_found")

    def _cancel_by_id(self, request_id: str) -> bytes:
        running = self._running.get(request_id)
        if running is None:
            raise RequestError(404, f"No request {request_id!r} is running here.", code="request_not_found")
        running.cancel()
        return usage_json(running.usage())

    async def _run(self, incoming: Incoming) -> None:
        self._check_addressed(incoming.headers)
        running = self._claim_slot(incoming.headers)
        span = self._tracer.request("answer", ((name.encode(), value) for name, value in incoming.headers.items()))
        try:
            await self._work.run(running, replace(incoming, span=span))
        except RequestError as error:
            span.failed(error.code or "invalid_request")
            raise
        finally:
            del self._running[running.request_id]
            self._status.request_ended()
            self._end(span, running.usage())

    def _end(self, span: Span, usage: Usage) -> None:
        me = self._status.snapshot()
        span.note(
            {
                "gen_ai.request.model": me.model,
                "cotenant.engine": me.app,
                "cotenant.instance": me.instance,
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
            }
        )
        span.end()

    def _check_addressed(self, headers: Mapping[str, bytes]) -> None:
        """Raises RequestError (421) when another engine is meant."""
        me = self._status.snapshot()
        for name, own in ((HEADER_INSTANCE, me.instance), (HEADER_MODEL, me.model)):
            meant = headers.get(name)
            if meant is not None and meant != own.encode():
                shown = meant.decode("latin-1")
                raise refusal(421, "misdirected", f"{name} is {shown!r}, and this is {own!r}. Drop this route.")

    def _claim_slot(self, headers: Mapping[str, bytes]) -> Running:
        """Raises RequestError: 503 while loading, draining or full; 409 for an id that is in flight."""
        state = self._status.state
        if state == "draining":
            raise refusal(503, "draining", "This engine is finishing its requests and takes no more.")
        if state != "ready":
            raise refusal(503, "loading", f"This engine cannot answer: it is {state}.")
        given = headers.get(HEADER_REQUEST_ID, b"").decode("latin-1")
        request_id = given[:MAX_REQUEST_ID_CHARS] or uuid.uuid4().hex
        if request_id in self._running:
            raise RequestError(409, f"A request {request_id!r} is already running here.", code="duplicate_request_id")
        slots = self._status.snapshot().slots
        if len(self._running) >= slots:
            raise refusal(503, "busy", f"All {slots} slots of this engine are taken.", {"retry-after": "1"})
        running: Running = self._work.begin(request_id)
        self._running[request_id] = running
        self._status.request_started()
        return running
