"""The ASGI app: what happens to a request, in order.

    identity (auth) → body → parse → model (catalog) → limits (admission) → Exchange: queue, engine, relay

The two hot routes are answered here; everything else by the FastAPI app in `pages`.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping

from cotenant_serving.gateway import catalog
from cotenant_serving.gateway.account import Call
from cotenant_serving.gateway.admission import estimated_tokens
from cotenant_serving.gateway.auth import authenticate
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.exchange import Exchange
from cotenant_serving.gateway.reply import Receive, Reply, Scope, Send, echoed_request_id
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.openai_api import GenerateRequest, RequestError, parse_chat, parse_completion

log = logging.getLogger("cotenant.gateway")

HOT_ROUTES: Mapping[str, Callable[[bytes], GenerateRequest]] = {
    "/v1/chat/completions": parse_chat,
    "/v1/completions": parse_completion,
}
PARSE_IN_THREAD_BYTES = 256 << 10
LINGER_S = 1.0
"""How long the rest of a refused body is read and thrown away, so that the client sees the answer and no reset."""

Pages = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientGoneError(Exception):
    """The client left before its body was complete."""


class GatewayApp:
    def __init__(self, gateway: Gateway, pages: Pages) -> None:
        self._gateway = gateway
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parse = HOT_ROUTES.get(scope["path"]) if scope["type"] == "http" else None
        if parse is None:
            await self._pages(scope, receive, send)
            return
        reply = Reply(send, new_request_id(), echoed_request_id(scope["headers"]))
        try:
            await self._complete(scope, receive, reply, parse)
        except ClientGoneError:
            return
        except Exception:
            log.exception("request %s failed in the gateway", reply.request_id)
            await reply.fail(error("internal_error"))

    async def _complete(
        self, scope: Scope, receive: Receive, reply: Reply, parse: Callable[[bytes], GenerateRequest]
    ) -> None:
        tenant = None
        try:
            _check_method(scope["method"])
            tenant = self._identify(scope)
            call = await self._admit(scope, receive, reply, tenant, parse)
        except RequestError as problem:
            self._gateway.metrics.rejected(tenant, problem.code or "invalid_request")
            unread = problem.status in (408, 413)
            await reply.fail(problem, linger=(lambda: _discard(receive)) if unread else None)
            return
        await Exchange(self._gateway, call, reply, receive).run()

    def _identify(self, scope: Scope) -> str:
        directory = self._gateway.directory
        if directory is None:
            raise error("not_ready", retry_after_s=1)
        return authenticate(scope["headers"], directory.keyring)

    async def _admit(
        self,
        scope: Scope,
        receive: Receive,
        reply: Reply,
        tenant: str,
        parse: Callable[[bytes], GenerateRequest],
    ) -> Call:
        gateway = self._gateway
        assert gateway.directory is not None
        view = gateway.directory.tenants[tenant]
        body = await self._body(scope, receive)
        request = await asyncio.to_thread(parse, body) if len(body) > PARSE_IN_THREAD_BYTES else parse(body)
        model = catalog.resolve(view, request.model)
        tokens = estimated_tokens(len(body), request.sampling.max_tokens)
        now = gateway.clock()
        limits = gateway.limits(view.tenant)
        limits.admit(tokens, now)
        reply.headers.update(limits.headers(now))
        return Call(
            request_id=reply.request_id,
            path=scope["path"],
            body=body,
            tenant=tenant,
            model=model.name,
            stream=request.stream,
            tokens=tokens,
            limits=limits,
            began=now,
        )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        settings = self._gateway.settings
        check_headers(scope["headers"], settings.max_body_bytes)
        try:
            async with asyncio.timeout(settings.body_timeout_s):
                return await read_body(receive, settings.max_body_bytes)
        except TimeoutError:
            raise error("body_too_slow", headers={"connection": "close"}) from None


def new_request_id() -> str:
    return "req-" + secrets.token_hex(12)


def check_headers(headers: list[tuple[bytes, bytes]], max_body_bytes: int) -> None:
    """Refuses by its headers a body that would be refused anyway. Raises RequestError (413, 415)."""
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise error("unsupported_encoding")
        if name == b"content-length" and int(value) > max_body_bytes:
            raise _too_large(f"{int(value)} bytes", max_body_bytes)


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """The whole body. Raises RequestError (413), or ClientGoneError."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > max_bytes:
            raise _too_large(f"more than {max_bytes} bytes", max_bytes)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(given: str, most: int) -> RequestError:
    return error("body_too_large", f"The body has {given}; at most {most} are read.", headers={"connection": "close"})


def _check_method(method: str) -> None:
    if method != "POST":
        raise error("method_not_allowed", headers={"allow": "POST"})


async def _discard(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER_S):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    except TimeoutError:
        pass
