"""HTTP of one engine: a raw ASGI app. Slots, refusals and cancellation are decided here, text is made elsewhere.

Every route but GET /healthz needs `authorization: Bearer <pool token>`. Bodies and answers are OpenAI's; what is
for the gateway only (refusals, usage) travels in the headers and the comment that `contract` names.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any

import msgspec

from cotenant_serving.contract import (
    HEADER_INSTANCE,
    HEADER_MODEL,
    HEADER_REFUSED,
    HEADER_REQUEST_ID,
    HEADER_USAGE,
    Usage,
)
from cotenant_serving.engine.answers import AnswerForm, answer_form, usage_comment, usage_json
from cotenant_serving.engine.base import DeltaStream, Engine, GenerationError, Job, resolve_max_tokens
from cotenant_serving.engine.status import EngineStatus
from cotenant_serving.openai_api import (
    GenerateRequest,
    Kind,
    RequestError,
    error_body,
    error_event,
    parse_chat,
    parse_completion,
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 32 * 2**20
BODY_DEADLINE_S = 30.0
MAX_REQUEST_ID_CHARS = 128
REQUESTS_PATH = "/v1/requests/"
CREATES: Mapping[str, Kind] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}
CLIENT_CLOSED_REQUEST = 499

log = logging.getLogger("cotenant.engine")


@dataclass(slots=True)
class Running:
    """A request that holds a slot."""

    request_id: str
    prompt_tokens: int = 0
    stream: DeltaStream = field(default_factory=DeltaStream)

    def usage(self) -> Usage:
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.stream.tokens)


class EngineServer:
    """ASGI app over an engine. `clock` gives unix seconds."""

    def __init__(
        self, engine: Engine, status: EngineStatus, token: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._status = status
        self._authorization = f"Bearer {token}".encode()
        self._clock = clock
        self._running: dict[str, Running] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    def cancel_all(self) -> None:
        for running in list(self._running.values()):
            self._cancel(running)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the engine serves http, not {scope['type']}")
        try:
            await self._route(scope, receive, send)
        except RequestError as error:
            await _respond(send, error.status, error.body(), error.headers)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", "/healthz"):
            return await _respond(send, 200, b'{"status":"ok"}')
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        if not compare_digest(headers.get("authorization", b""), self._authorization):
            raise RequestError(
                401,
                "This engine answers only with its pool's token. Send requests to the gateway.",
                type_="authentication_error",
                code="invalid_pool_token",
            )
        if method == "POST" and path in CREATES:
            return await self._create(CREATES[path], headers, receive, send)
        if (method, path) == ("GET", "/state"):
            return await _respond(send, 200, msgspec.json.encode(self._status.snapshot()))
        if method == "DELETE" and path.startswith(REQUESTS_PATH):
            return await _respond(send, 200, self._cancel_by_id(path.removeprefix(REQUESTS_PATH)))
        raise RequestError(404, f"{method} {path} is not a route of an engine.", code="not_found")

    def _cancel_by_id(self, request_id: str) -> bytes:
        running = self._running.get(request_id)
        if running is None:
            raise RequestError(404, f"No request {request_id!r} is running here.", code="request_not_found")
        self._cancel(running)
        return usage_json(running.usage())

    def _cancel(self, running: Running) -> None:
        running.stream.fail(GenerationError("The request was cancelled.", code="cancelled"))
        self._engine.cancel(running.request_id)

    async def _create(self, kind: Kind, headers: Mapping[str, bytes], receive: Receive, send: Send) -> None:
        self._check_addressed(headers)
        running = self._claim_slot(headers)
        try:
            body = await _read_body(receive)
            request = parse_chat(body) if kind == "chat" else parse_completion(body)
            prompt = await self._engine.encode(request)
            running.prompt_tokens = prompt.tokens
            param = "messages" if kind == "chat" else "prompt"
            limit = resolve_max_tokens(prompt, request.sampling.max_tokens, self._engine.context_tokens, param)
            await self._run(Job(running.request_id, prompt, limit, request.sampling), request, running, receive, send)
        finally:
            del self._running[running.request_id]
            self._status.request_ended()

    def _check_addressed(self, headers: Mapping[str, bytes]) -> None:
        """Raises RequestError (421) when another engine is meant."""
        me = self._status.snapshot()
        for name, own in ((HEADER_INSTANCE, me.instance), (HEADER_MODEL, me.model)):
            meant = headers.get(name)
            if meant is not None and meant != own.encode():
                shown = meant.decode("latin-1")
                raise _refusal(421, "misdirected", f"{name} is {shown!r}, and this is {own!r}. Drop this route.")

    def _claim_slot(self, headers: Mapping[str, bytes]) -> Running:
        """Raises RequestError: 503 while loading, draining or full; 409 for an id that is in flight."""
        state = self._status.state
        if state == "draining":
            raise _refusal(503, "draining", "This engine is finishing its requests and takes no more.")
        if state != "ready":
            raise _refusal(503, "loading", f"This engine cannot answer: it is {state}.")
        given = headers.get(HEADER_REQUEST_ID, b"").decode("latin-1")
        request_id = given[:MAX_REQUEST_ID_CHARS] or uuid.uuid4().hex
        if request_id in self._running:
            raise RequestError(409, f"A request {request_id!r} is already running here.", code="duplicate_request_id")
        slots = self._status.snapshot().slots
        if len(self._running) >= slots:
            raise _refusal(503, "busy", f"All {slots} slots of this engine are taken.", {"retry-after": "1"})
        self._running[request_id] = Running(request_id)
        self._status.request_started()
        return self._running[request_id]

    async def _run(self, job: Job, request: GenerateRequest, running: Running, receive: Receive, send: Send) -> None:
        form = answer_form(request, job.request_id, int(self._clock()))
        watch = asyncio.create_task(self._cancel_when_gone(receive, running))
        try:
            if not running.stream.closed:
                self._engine.start(job, running.stream)
            await (_send_stream if request.stream else _send_whole)(form, running, send)
        finally:
            watch.cancel()
            self._engine.cancel(job.request_id)

    async def _cancel_when_gone(self, receive: Receive, running: Running) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._cancel(running)


async def _send_stream(form: AnswerForm, running: Running, send: Send) -> None:
    """Events in as few writes as they come; status 200 only with the first of them."""
    first = True
    try:
        finished = False
        while not finished:
            deltas = await running.stream.take()
            finished = deltas[-1].finish_reason is not None
            events: list[bytes] = []
            for delta in deltas:
                if delta.text or delta.finish_reason:
                    events.append(form.chunk(delta, first=first and not events))
            if events:
                if first:
                    await _start_stream(send)
                first = False
                await _write(send, b"".join(events))
        await _write(send, form.end(running.usage()), more=False)
    except GenerationError as error:
        if first:
            await _send_failure(error, running, send)
        else:
            event = error_event(error.message, code=error.code)
            await _write(send, event + usage_comment(running.usage()), more=False)


async def _send_whole(form: AnswerForm, running: Running, send: Send) -> None:
    texts: list[str] = []
    reason = None
    try:
        while reason is None:
            for delta in await running.stream.take():
                texts.append(delta.text)
                reason = delta.finish_reason
    except GenerationError as error:
        await _send_failure(error, running, send)
        return
    usage = running.usage()
    await _respond(send, 200, form.whole("".join(texts), reason, usage), {HEADER_USAGE: usage_json(usage).decode()})


async def _send_failure(error: GenerationError, running: Running, send: Send) -> None:
    status = CLIENT_CLOSED_REQUEST if error.code == "cancelled" else 500
    body = error_body(error.message, type_="server_error", code=error.code)
    await _respond(send, status, body, {HEADER_USAGE: usage_json(running.usage()).decode()})


async def _start_stream(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _write(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def _respond(send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    all_headers = {"content-type": "application/json", "content-length": str(len(body))} | dict(headers or {})
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in all_headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


async def _read_body(receive: Receive) -> bytes:
    """Raises RequestError: 413 for too much, 408 for too slow, 499 for a client that left."""
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestError(CLIENT_CLOSED_REQUEST, "The client left before its body was complete.")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MAX_BODY_BYTES:
                    raise RequestError(413, f"The body has more than {MAX_BODY_BYTES} bytes. Send a shorter prompt.")
                more = message.get("more_body", False)
    except TimeoutError:
        raise RequestError(408, f"The body did not arrive within {BODY_DEADLINE_S:.0f} s. Send it again.") from None
    return b"".join(parts)


def _refusal(status: int, why: str, message: str, headers: Mapping[str, str] | None = None) -> RequestError:
    """No work was done: another engine may take the request."""
    return RequestError(
        status,
        message,
        type_="service_unavailable",
        code=why,
        headers={HEADER_REFUSED: why} | dict(headers or {}),
    )
