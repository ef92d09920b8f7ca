"""The app: what happens to a request, in order.

    route → identity (auth) → body → parse → model (catalog) → limits (admission) → Exchange: queue, engine, relay

What goes to engines (`routes`) is answered here, straight to the server's protocol (`client`); everything else speaks
ASGI and is answered by the FastAPI app in `pages`.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from cotenant_serving.gateway import catalog, routes
from cotenant_serving.gateway.account import Call
from cotenant_serving.gateway.auth import authenticate
from cotenant_serving.gateway.bodies import (
    BINARY_TIMES,
    JSON,
    SMALL_BYTES,
    Reservation,
    check_headers,
    check_size,
    read_body,
)
from cotenant_serving.gateway.client import Client, ClientGoneError, claim
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.exchange import Exchange
from cotenant_serving.gateway.page_calls import AsgiApp, Message, Receive, Send
from cotenant_serving.gateway.quick import Known, QuickStart
from cotenant_serving.gateway.reply import Reply, harmless
from cotenant_serving.gateway.request_ids import RequestIds, new_request_id
from cotenant_serving.gateway.routes import Incoming, Route, Target, Wanted
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.upstream import Outgoing
from cotenant_serving.gateway.upstream_lean import LeanUpstream
from cotenant_serving.openai_api import RequestError
from cotenant_serving.tracing import NO_SPAN, NO_TRACER

log = logging.getLogger("cotenant.gateway")

PARSE_IN_THREAD_BYTES = 256 << 10


class GatewayApp:
    def __init__(self, gateway: Gateway, pages: AsgiApp) -> None:
        self._gateway = gateway
        self._ids = RequestIds()
        upstream = gateway.upstream
        self.quick = QuickStart(gateway, upstream, self._ids) if isinstance(upstream, LeanUpstream) else None
        self._pages = pages
        self._small_bytes = min(SMALL_BYTES, gateway.settings.max_body_bytes)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """What no engine answers."""
        path = scope["path"]
        api = path.startswith(("/v1/", "/v2/")) or path == "/v2"
        await self._pages(scope, receive, _with_request_id(scope, send) if api else send)

    def answer(self, client: Client, route: Route, target: Target | None) -> Coroutine[Any, Any, None] | None:
        """A request on one of the `routes`: what answers it, or None when it is on its way already (`quick`)."""
        if self.quick is not None and self.quick.begin(client, route):
            return None
        return self.in_order(client, route, target)

    async def in_order(self, client: Client, route: Route, target: Target | None) -> None:
        """Any request, step by step. Raises nothing, but when it is cancelled."""
        gateway, tenant, held = self._gateway, None, None
        reply = Reply(client, self._ids.new())
        span = NO_SPAN
        if gateway.tracer is not NO_TRACER:
            span = gateway.tracer.request(f"{route.method} {route.shown}", client.headers)
        try:
            fields = dict(client.headers)
            if b"x-request-id" in fields:
                reply.echo(fields[b"x-request-id"])
            if client.method != route.method:
                raise error("method_not_allowed", headers={"allow": route.method})
            tenant = self._identify(client, fields)
            body = client.take_body()
            if (
                body is None
                or len(body) > self._small_bytes
                or fields.get(b"content-type") != JSON
                or b"content-encoding" in fields
            ):
                held = Reservation(gateway.bodies, tenant)
                body = await self._check(client, body, fields, route, held)
            incoming = Incoming(client.headers, body, target)
            in_thread = len(body) > PARSE_IN_THREAD_BYTES
            wanted = await asyncio.to_thread(route.read, incoming) if in_thread else route.read(incoming)
            if held is not None:  # the configuration may have changed while the body came
                tenant = self._identify(client, fields)
            call = self._admit(client, reply, tenant, route, wanted, target)
            await Exchange(gateway, call, reply, client, span).run()
        except RequestError as problem:
            span.failed(problem.code or "invalid_request")
            gateway.metrics.rejected(tenant, problem.code or "invalid_request")
            reply.fail(problem)
        except ClientGoneError:
            span.failed("client_closed")
        except Exception:
            log.exception("request %s failed in the gateway", reply.request_id)
            span.failed("internal_error")
            reply.fail(error("internal_error"))
        finally:
            if held is not None:
                held.release()
            if span is not NO_SPAN:
                span.note({"http.response.status_code": reply.status, "cotenant.request_id": reply.request_id})
                span.end()

    def _identify(self, client: Client, fields: Mapping[bytes, bytes]) -> str:
        """The tenant. A connection that shows the same key again is not asked for it again."""
        directory = self._gateway.directory
        if directory is None:
            raise error("not_ready", retry_after_s=1)
        shown = (fields.get(b"authorization"), fields.get(b"x-api-key"), len(fields) == len(client.headers))
        known: Known | None = client.known
        if known is not None and known.directory is directory and known.shown == shown:
            return known.tenant
        tenant = authenticate(client.headers, directory.keyring)
        claim(client, tenant)
        if shown[2]:
            client.known = Known(directory, shown, tenant)
        return tenant

    async def _check(
        self, client: Client, body: bytes | None, fields: Mapping[bytes, bytes], route: Route, held: Reservation
    ) -> bytes:
        """The body, whatever it needs to be read; None is one that has not come whole."""
        most_json = most = self._gateway.settings.max_body_bytes
        if route.binary and routes.announces_binary(client.headers):
            most *= BINARY_TIMES
        check_headers(fields, most, most_json)
        if body is None:
            return await read_body(client, most, held)
        check_size(len(body), most)
        held.take(len(body))
        return body

    def _admit(
        self, client: Client, reply: Reply, tenant: str, route: Route, wanted: Wanted, target: Target | None
    ) -> Call:
        gateway = self._gateway
        if target is not None:
            target.check_version()
        assert gateway.directory is not None
        view = gateway.directory.tenants[tenant]
        model = view.named.get(wanted.model) or catalog.resolve(view, wanted.model)
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


def _with_request_id(scope: Message, send: Send) -> Send:
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
