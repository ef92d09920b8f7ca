"""The HTTP servers of one worker: for clients, and where it has a port of its own, for health and metrics.

Whoever looks after the gateway has connections of its own there, so that no number of clients keeps it out.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from functools import partial

import uvicorn

from cotenant_serving.accepting import PatientServer
from cotenant_serving.gateway.asgi import GatewayApp
from cotenant_serving.gateway.caps import ConnectionCap, TenantCaps
from cotenant_serving.gateway.client import Client
from cotenant_serving.gateway.connections import Connections, Times
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.options import Place
from cotenant_serving.gateway.page_calls import AsgiApp, Message, Receive, Send
from cotenant_serving.gateway.pages import build_admin, build_pages
from cotenant_serving.gateway.protocol import served_by
from cotenant_serving.gateway.reply import Reply
from cotenant_serving.gateway.request_ids import new_request_id
from cotenant_serving.gateway.routes import Route, Target
from cotenant_serving.gateway.state import Gateway

BACKLOG = 2048
ADMIN_CONNECTIONS = 64
"""On the port for health and metrics, over all workers."""
ADMIN_ENDS_S = 1


def client_connections(gateway: Gateway) -> Connections:
    settings = gateway.settings
    return Connections(
        ConnectionCap(settings.max_connections, gateway.board.count("connections")),
        TenantCaps(settings.max_connections_per_tenant, gateway.board),
        Times(body_s=settings.body_timeout_s),
        on_refusal=partial(gateway.metrics.rejected, None),
    )


def server_of(app: AsgiApp, connections: Connections, graceful_s: int) -> uvicorn.Server:
    """`graceful_s`: for requests that run, when it ends."""
    return PatientServer(
        uvicorn.Config(
            app,
            http=served_by(connections),  # type: ignore[arg-type]
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=graceful_s,
        )
    )


def client_server(gateway: Gateway, connections: Connections, *, metrics: bool) -> uvicorn.Server:
    app = GatewayApp(gateway, build_pages(gateway, metrics=metrics))
    return server_of(app, connections, int(gateway.settings.drain_timeout_s) + 5)


async def serve_clients(server: uvicorn.Server, gateway: Gateway, place: Place) -> None:
    """Until the server is told to exit."""
    listener = socket.socket(fileno=place.listener)
    listener.listen(BACKLOG)
    gateway.board.count("workers").add(1)
    os.write(place.ready, bytes((place.worker,)))
    await server.serve(sockets=[listener])


@contextlib.asynccontextmanager
async def serving_admin(gateway: Gateway, place: Place) -> AsyncIterator[None]:
    """Health and metrics on their own port meanwhile, if there is one: also while the clients' server drains."""
    if place.admin < 0:
        yield
        return
    cap = ConnectionCap(ADMIN_CONNECTIONS, gateway.board.count("admin connections"))
    connections = Connections(cap, TenantCaps(ADMIN_CONNECTIONS, gateway.board))
    server = server_of(AdminApp(build_admin(gateway)), connections, ADMIN_ENDS_S)
    listener = socket.socket(fileno=place.admin)
    listener.listen(BACKLOG)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="admin")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


class AdminApp:
    """The pages, and none of the routes that go to engines."""

    def __init__(self, pages: AsgiApp) -> None:
        self._pages = pages

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await self._pages(scope, receive, send)

    async def answer(self, client: Client, route: Route, target: Target | None) -> None:
        del route, target
        Reply(client, new_request_id()).fail(error("unknown_route"))
