"""The ASGI app: what happens to a request, in order.

    route → identity (auth) → body → parse → model (catalog) → limits (admission) → Exchange: queue, engine, relay

What goes to engines (`routes`) is answered here; everything else by the FastAPI app in `pages`.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from cotenant_serving.gateway import catalog, routes
from cotenant_serving.gateway.account import Call
from cotenant_serving.gateway.auth import authenticate
from cotenant_serving.gateway.bodies import (
    BINARY_TIMES,
    BodyBudget,
    ClientGoneError,
    Reserve,
    check_headers,
    discard,
    left_unread,
    read_body,
)
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.exchange import Exchange
from cotenant_serving.gateway.reply import Receive, Reply, Scope, Send, echoed_request_id, with_headers
from cotenant_serving.gateway.routes import Incoming, Route, Target
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.upstream import Outgoing
from cotenant_serving.openai_api import RequestError
from cotenant_serving.tracing import Span

log = logging.getLogger("cotenant.gateway")

PARSE_IN_THREAD_BYTES = 256 << 10

Pages = Callable[[Scope, Receive, Send], Awaitable[None]]


class GatewayApp:
    def __init__(self, gateway: Gateway, pages: Pages) -> None:
        self._gateway = gateway
        self._pages = pages
        self._budget = BodyBudget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        reply = Reply(send, new_request_id(), echoed_request_id(scope["headers"]), path=scope["path"])
        found = routes.find(scope["path"])
        if found is None:
            api = scope["path"].startswith(("/v1/", "/v2/")) or scope["path"] == "/v2"
            await self._pages(scope, receive, with_headers(send, reply.headers) if api else send)
            return
        span = self._gateway.tracer.request(f"{found[0].method} {found[0].shown}", scope["headers"])
        try:
            await self._complete(scope, receive, reply, span, *found)
        except ClientGoneError:
            span.failed("client_closed")
        except Exception:
            log.exception("request %s failed in the gateway", reply.request_id)
            span.failed("internal_error")
            await reply.fail(error("internal_error"))
        finally:
            span.note({"http.response.status_code": reply.status, "cotenant.request_id": reply.request_id})
            span.end()

    async def _complete(
        self, scope: Scope, receive: Receive, reply: Reply, span: Span, route: Route, target: Target | None
    ) -> None:
        tenant = None
        try:
            _check_method(scope["method"], route)
            tenant = self._identify(scope)
        except RequestError as problem:
            await self._refuse(problem, tenant, reply, receive, span)
            return
        with self._budget.of(tenant) as reserve:
            try:
                call = await self._admit(scope, receive, reply, tenant, route, target, reserve)
            except RequestError as problem:
                await self._refuse(problem, tenant, reply, receive, span)
                return
            await Exchange(self._gateway, call, reply, receive, reserve, span).run()

    async def _refuse(
        self, problem: RequestError, tenant: str | None, reply: Reply, receive: Receive, span: Span
    ) -> None:
        span.failed(problem.code or "invalid_request")
        self._gateway.metrics.rejected(tenant, problem.code or "invalid_request")
        await reply.fail(problem, linger=(lambda: discard(receive)) if left_unread(problem) else None)

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
        route: Route,
        target: Target | None,
        reserve: Reserve,
    ) -> Call:
        gateway = self._gateway
        assert gateway.directory is not None
        view = gateway.directory.tenants[tenant]
        if target is not None:
            target.check_version()
        body = await self._body(scope, receive, route, reserve)
        incoming = Incoming(scope["headers"], body, target)
        in_thread = len(body) > PARSE_IN_THREAD_BYTES
        wanted = await asyncio.to_thread(route.read, incoming) if in_thread else route.read(incoming)
        model = catalog.resolve(view, wanted.model)
        routes.check_task(route, model)
        now = gateway.clock()
        limits = gateway.limits(view.tenant)
        limits.admit(wanted.tokens, now)
        reply.headers.update(limits.headers(now))
        return Call(
            request_id=reply.request_id,
            outgoing=Outgoing(route.method, scope["path"], wanted.body, wanted.headers),
            tenant=tenant,
            model=model.name,
            stream=wanted.stream,
            prompt_tokens=wanted.prompt_tokens,
            tokens=wanted.tokens,
            limits=limits,
            began=now,
        )

    async def _body(self, scope: Scope, receive: Receive, route: Route, reserve: Reserve) -> bytes:
        settings = self._gateway.settings
        most = settings.max_body_bytes
        if route.binary and routes.announces_binary(scope["headers"]):
            most *= BINARY_TIMES
        check_headers(scope["headers"], most, settings.max_body_bytes)
        return await read_body(receive, most, settings.body_timeout_s, reserve)


def new_request_id() -> str:
    return "req-" + secrets.token_hex(12)


def _check_method(method: str, route: Route) -> None:
    if method != route.method:
        raise error("method_not_allowed", headers={"allow": route.method})
