"""The app: what happens to a request, in order.

    route → identity (auth) → body → parse → model (catalog) → limits (admission) → Exchange: queue, engine, relay

What goes to engines (`routes`) is answered here, straight to the server's protocol (`client`); everything else speaks
ASGI and is answered by the FastAPI app in `pages`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from cotenant_serving.gateway import catalog, routes
from cotenant_serving.gateway.account import Call
from cotenant_serving.gateway.auth import authenticate
from cotenant_serving.gateway.bodies import (
    BINARY_TIMES,
    SMALL_BYTES,
    BodyBudget,
    Reservation,
    check_headers,
    read_body,
)
from cotenant_serving.gateway.client import Client, ClientGoneError
from cotenant_serving.gateway.errors import error, new_request_id
from cotenant_serving.gateway.exchange import Exchange
from cotenant_serving.gateway.reply import Reply, harmless
from cotenant_serving.gateway.request_ids import RequestIds
from cotenant_serving.gateway.routes import Incoming, Route, Target, Wanted
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.upstream import Outgoing
from cotenant_serving.openai_api import RequestError
from cotenant_serving.tracing import NO_SPAN, NO_TRACER, Span

log = logging.getLogger("cotenant.gateway")

PARSE_IN_THREAD_BYTES = 256 << 10

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Pages = Callable[[Scope, Receive, Send], Awaitable[None]]


class GatewayApp:
    def __init__(self, gateway: Gateway, pages: Pages) -> None:
        self._gateway = gateway
        self._pages = pages
        self._budget = BodyBudget()
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What no engine answers."""
        path = scope["path"]
        api = path.startswith(("/v1/", "/v2/")) or path == "/v2"
        await self._pages(scope, receive, _with_request_id(scope, send) if api else send)

    async def answer(self, client: Client, route: Route, target: Target | None) -> None:
        """A request on one of the `routes`. Never raises."""
        reply = Reply(client, self._ids.new())
        gateway = self._gateway
        span = NO_SPAN
        if gateway.tracer is not NO_TRACER:
            span = gateway.tracer.request(f"{route.method} {route.shown}", client.headers)
        try:
            await self._complete(client, reply, span, route, target)
        except ClientGoneError:
            span.failed("client_closed")
        except Exception:
            log.exception("request %s failed in the gateway", reply.request_id)
            span.failed("internal_error")
            reply.fail(error("internal_error"))
        finally:
            if span is not NO_SPAN:
                span.note({"http.response.status_code": reply.status, "cotenant.request_id": reply.request_id})
                span.end()

    async def _complete(self, client: Client, reply: Reply, span: Span, route: Route, target: Target | None) -> None:
        tenant, held = None, None
        try:
            fields = dict(client.headers)
            if b"x-request-id" in fields:
                reply.echo(fields[b"x-request-id"])
            if client.method != route.method:
                raise error("method_not_allowed", headers={"allow": route.method})
            tenant = self._identify(client)
            held = Reservation(self._budget, tenant)
            body = await self._body(client, route, fields, held)
            wanted = await self._read(route, Incoming(client.headers, body, target))
            call = self._admit(client, reply, tenant, route, wanted)
            await Exchange(self._gateway, call, reply, client, held, span).run()
        except RequestError as problem:
            span.failed(problem.code or "invalid_request")
            self._gateway.metrics.rejected(tenant, problem.code or "invalid_request")
            reply.fail(problem)
        finally:
            if held is not None:
                held.release()

    def _identify(self, client: Client) -> str:
        directory = self._gateway.directory
        if directory is None:
            raise error("not_ready", retry_after_s=1)
        tenant = authenticate(client.headers, directory.keyring)
        if not client.belongs_to(tenant):
            client.keep_alive = False
            raise error("too_many_connections", retry_after_s=1)
        return tenant

    async def _body(self, client: Client, route: Route, fields: Mapping[bytes, bytes], held: Reservation) -> bytes:
        most_json = most = self._gateway.settings.max_body_bytes
        if route.binary and routes.announces_binary(client.headers):
            most *= BINARY_TIMES
        check_headers(fields, most, most_json)
        body = client.take_body()
        if body is None:
            return await read_body(client, most, held)
        if len(body) > SMALL_BYTES:
            held.take(len(body))
        return body

    async def _read(self, route: Route, incoming: Incoming) -> Wanted:
        if incoming.target is not None:
            incoming.target.check_version()
        if len(incoming.body) > PARSE_IN_THREAD_BYTES:
            return await asyncio.to_thread(route.read, incoming)
        return route.read(incoming)

    def _admit(self, client: Client, reply: Reply, tenant: str, route: Route, wanted: Wanted) -> Call:
        gateway = self._gateway
        assert gateway.directory is not None
        view = gateway.directory.tenants[tenant]
        model = view.models.get(wanted.model) or catalog.resolve(view, wanted.model)
        if model.task not in route.tasks:
            routes.check_task(route, model)
        now = gateway.clock()
        limits = gateway.limits(view.tenant)
        limits.admit(wanted.tokens, now)
        reply.add(limits.fields(now))
        return Call(
            request_id=reply.request_id,
            outgoing=Outgoing(route.method, client.path, wanted.body, wanted.headers),
            tenant=tenant,
            model=model.name,
            stream=wanted.stream,
            prompt_tokens=wanted.prompt_tokens,
            tokens=wanted.tokens,
            limits=limits,
            began=now,
        )


def _with_request_id(scope: Scope, send: Send) -> Send:
    """`send` that names the request in the head of the answer."""
    added = [(b"x-request-id", new_request_id().encode())]
    given = dict(scope["headers"]).get(b"x-request-id", b"")
    if harmless(given):
        added.append((b"x-client-request-id", given))

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending
