"""The composition root: builds the parts, serves them, and ends them in order.

SIGTERM: not ready any more and no new connections; what runs gets `drain_timeout_s`; what then still runs ends with
an error (in the stream, where one was begun); usage is written; exit status 0.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from cotenant_serving.gateway.asgi import GatewayApp
from cotenant_serving.gateway.conductors import Conductors
from cotenant_serving.gateway.config import ConfigFile, Directory
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.logs import log_to_stderr
from cotenant_serving.gateway.metrics import Metrics
from cotenant_serving.gateway.pages import build_pages
from cotenant_serving.gateway.protocol import ConnectionCap, capped
from cotenant_serving.gateway.state import Gateway, Settings
from cotenant_serving.gateway.upstream import AiohttpUpstream
from cotenant_serving.gateway.usage import UsageLog

log = logging.getLogger("cotenant.gateway")

KEEP_ALIVE_S = 75
BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    config: Path
    host: str
    port: int
    state: Path
    settings: Settings


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT. Exit status 1 when it cannot start."""
    options = parse_options(arguments)
    log_to_stderr()
    try:
        options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        usage = UsageLog(options.state / "usage.jsonl")
        listener = listen(options.host, options.port)
    except OSError as problem:
        sys.stderr.write(f"gateway cannot start on {options.host}:{options.port}, state {options.state}: {problem}\n")
        return 1
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(options, listener, usage))
    return 0


def parse_options(arguments: list[str] | None = None) -> Options:
    default = Settings()
    parser = argparse.ArgumentParser(prog="cotenant_serving.gateway", description="The cotenant gateway.")
    parser.add_argument("--config", type=Path, required=True, help="GatewayConfig file; re-read when it changes")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--state", type=Path, required=True, help="directory for usage.jsonl and table.json")
    for name, seconds, help_ in (
        ("request-timeout", default.request_timeout_s, "seconds from admission to the last byte"),
        ("hold-timeout", default.hold_timeout_s, "seconds that a request may wait for an engine"),
        ("waiting-comment-after", default.comment_after_s, "period of comments on a stream that waits, seconds"),
        ("body-timeout", default.body_timeout_s, "seconds that a body may take to arrive"),
        ("drain-timeout", default.drain_timeout_s, "seconds that running requests get after SIGTERM"),
    ):
        parser.add_argument(f"--{name}", type=float, default=seconds, help=f"{help_} (default {seconds:g})")
    parser.add_argument("--max-body-bytes", type=int, default=default.max_body_bytes)
    parser.add_argument(
        "--max-connections",
        type=_at_least_one,
        default=default.max_connections,
        metavar="N",
        help="connections at a time, idle and health checks included; one more gets a 503 with Retry-After: 1 and is "
        f"closed (default {default.max_connections})",
    )
    given = parser.parse_args(arguments)
    settings = Settings(
        request_timeout_s=given.request_timeout,
        hold_timeout_s=given.hold_timeout,
        comment_after_s=given.waiting_comment_after,
        body_timeout_s=given.body_timeout,
        drain_timeout_s=given.drain_timeout,
        max_body_bytes=given.max_body_bytes,
        max_connections=given.max_connections,
    )
    return Options(given.config, given.host, given.port, given.state, settings)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


async def serve(options: Options, listener: socket.socket, usage: UsageLog) -> None:
    """Runs the gateway until a signal ends it; then closes what it was given."""
    config = ConfigFile(options.config)
    upstream = AiohttpUpstream(lambda: config.pool_token)
    news = asyncio.Event()
    rng = random.Random()  # noqa: S311 spreads load and retries, guards nothing
    dispatcher = Dispatcher(clock=time.monotonic, rng=rng, on_demand=news.set)
    conductors = Conductors(
        dispatcher,
        token=lambda: config.pool_token,
        name=f"gateway-{secrets.token_hex(4)}",
        table_file=options.state / "table.json",
        rng=rng,
        news=news,
    )
    gateway = Gateway(
        settings=options.settings,
        clock=time.monotonic,
        dispatcher=dispatcher,
        upstream=upstream,
        usage=usage,
        metrics=Metrics(),
        cut=asyncio.get_running_loop().create_future(),
        pool_known=lambda: conductors.answered,
    )

    def use(directory: Directory) -> None:
        gateway.use(directory)
        conductors.follow(directory.config.conductors)

    if config.poll() and config.directory is not None:
        use(config.directory)
    tasks = [asyncio.create_task(work) for work in (config.watch(use), conductors.report_forever(), usage.run())]
    try:
        await _serve_http(gateway, listener)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await conductors.close()
        await upstream.close()
        usage.close()


async def _serve_http(gateway: Gateway, listener: socket.socket) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            GatewayApp(gateway, build_pages(gateway)),
            http=capped(ConnectionCap(gateway.settings.max_connections)),
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(gateway.settings.drain_timeout_s) + 5,
            backlog=BACKLOG,
        )
    )
    # uvicorn would end the process with the signal again, after a drain that went well.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    with _signals(gateway, server):
        host, port = listener.getsockname()[:2]
        listener.listen(BACKLOG)
        sys.stderr.write(f"gateway listening on http://{host}:{port} (pid {os.getpid()})\n")
        sys.stderr.flush()
        await server.serve(sockets=[listener])


@contextlib.contextmanager
def _signals(gateway: Gateway, server: uvicorn.Server) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def cut() -> None:
        if not gateway.cut.done():
            gateway.cut.set_result(None)

    def drain() -> None:
        if gateway.draining:
            return
        log.info("draining: up to %g s for requests that run", gateway.settings.drain_timeout_s)
        gateway.draining = True
        server.should_exit = True
        loop.call_later(gateway.settings.drain_timeout_s, cut)

    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, drain)
    try:
        yield
    finally:
        for signal_ in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signal_)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop  # type: ignore[no-any-return]
