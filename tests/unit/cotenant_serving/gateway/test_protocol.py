"""Connections over the cap are told so and closed; those that are there stay."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine

import orjson
import pytest
import uvicorn
import uvloop
from tests.builders.gateway import eventually, raw_connection
from tests.builders.gateway_calls import error_of

from cotenant_serving.accepting import QuietServer
from cotenant_serving.gateway.board import LocalBoard, LocalCount
from cotenant_serving.gateway.caps import ConnectionCap, TenantCaps
from cotenant_serving.gateway.connections import Connections, StallWatch, Times
from cotenant_serving.gateway.options import parse_options
from cotenant_serving.gateway.protocol import served_by

REQUEST = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.Loop}


def on_both_loops(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[str], None]:
    """The gateway runs on uvloop where it is installed; transports differ."""

    @pytest.mark.parametrize("loop", LOOPS)
    def run(loop: str) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(test())

    return run


async def answer_ok(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def answer_at_length(scope, receive, send) -> None:
    """More than the kernel keeps of a connection, in pieces."""
    size = 256 << 20
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    for _ in range(size >> 16):
        await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def answer_and_close(scope, receive, send) -> None:
    """Ends at once; the server keeps it all."""
    body = bytes(64 << 20)
    headers = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(limit: int, *, app=answer_ok, stall_s=30.0, **options) -> AsyncIterator[int]:
    """A server with a cap of `limit` connections; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    cap, tenants = ConnectionCap(limit, LocalCount(), **options), TenantCaps(limit, LocalBoard())
    http = served_by(Connections(cap, tenants, Times(stall_s=stall_s)))
    config = uvicorn.Config(app, http=http, ws="none", interface="asgi3", lifespan="off", log_config=None)
    server = QuietServer(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running
        listener.close()


async def ask(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes = REQUEST) -> int:
    """Status of the answer; the connection stays open."""
    reader, writer = connection
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " in head:
        await reader.readexactly(2)
    return int(head.split()[1])


async def head_of(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> int:
    """Status of an answer that nobody reads further; 503 when there is none."""
    reader, writer = connection
    writer.write(REQUEST)
    with contextlib.suppress(ConnectionResetError):
        return int((await reader.readline() or b"- 503").split()[1])
    return 503


@on_both_loops
async def test_a_connection_over_the_cap_is_told_so_in_openais_shape_and_closed() -> None:
    async with serving(1) as port, raw_connection(port) as first, raw_connection(port) as second:
        assert await ask(first) == 200
        reader, writer = second
        writer.write(REQUEST)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert await ask(first) == 200

    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in head
    assert b"\r\nconnection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    assert error_of(body)["type"] == "server_error"
    assert error_of(body)["code"] == "overloaded"
    assert "1 connections" in error_of(body)["message"]


@pytest.mark.parametrize("target", [b"/v2", b"/v2/health/live", b"/v2/models/a/infer?x=1"])
def test_over_the_cap_the_protocol_of_tensors_is_answered_in_its_own_shape(target: bytes) -> None:
    cap = ConnectionCap(7, LocalCount())
    head, _, body = cap.answer_to(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert b" 503 " in head
    assert f"content-length: {len(body)}".encode() in head
    assert "7 connections" in orjson.loads(body)["error"]


@pytest.mark.parametrize(
    "start", [b"GET /v1/models HTTP/1.1\r\n", b"GET /v20 HTTP/1.1", b"GE", b"\xff \xff \xff", b""]
)
def test_over_the_cap_everything_else_is_answered_in_openais_shape(start: bytes) -> None:
    body = ConnectionCap(7, LocalCount()).answer_to(start).partition(b"\r\n\r\n")[2]
    assert error_of(body)["code"] == "overloaded"


@on_both_loops
async def test_a_large_body_does_not_cost_the_answer() -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n"
    async with serving(1) as port, raw_connection(port) as first, raw_connection(port) as second:
        assert await ask(first) == 200
        assert await ask(second, head + bytes(3_000_000)) == 503


@on_both_loops
async def test_a_connection_that_ends_makes_room_for_another() -> None:
    async with serving(1) as port:
        async with raw_connection(port) as first:
            assert await ask(first) == 200
        async with asyncio.timeout(30):
            status = 0
            while status != 200:
                async with raw_connection(port) as second:
                    status = await ask(second)


@on_both_loops
async def test_a_refused_connection_that_says_nothing_is_closed() -> None:
    async with (
        serving(1, refusal_timeout_s=0.01) as port,
        raw_connection(port) as first,
        raw_connection(port) as second,
    ):
        assert await ask(first) == 200
        with contextlib.suppress(ConnectionResetError):
            assert await second[0].read() == b""


@on_both_loops
async def test_a_flood_of_refused_connections_is_answered_and_not_kept() -> None:
    async with serving(1, refusals_at_once=0) as port, raw_connection(port) as first:
        assert await ask(first) == 200
        async with raw_connection(port) as (reader, _):
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")


@on_both_loops
async def test_a_client_that_takes_nothing_of_its_answer_is_cut_off_and_makes_room() -> None:
    for app in (answer_at_length, answer_and_close):
        async with serving(1, app=app, stall_s=0.1) as port, raw_connection(port) as (reader, writer):
            reader._transport.pause_reading()
            writer.write(REQUEST)
            status = 503
            async with asyncio.timeout(30):
                while status != 200:
                    await asyncio.sleep(0.02)
                    async with raw_connection(port) as second:
                        status = await head_of(second)


def test_a_client_that_takes_its_answer_bit_by_bit_is_not_cut_off() -> None:
    watch = StallWatch()
    slow = [(65536, 10), (65536, 11), (65536, 12), (0, 12), (65536, 12), (40000, 12)]
    assert not any(watch.stalled(waiting, taken) for waiting, taken in slow)
    assert watch.stalled(40000, 12)


def test_a_connection_that_waits_for_its_next_request_is_not_stalled() -> None:
    watch = StallWatch()
    assert not any(watch.stalled(0, 100) for _ in range(3))


def test_a_full_gateway_says_so_in_its_log_once_a_minute(caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="cotenant.gateway"):
        cap = ConnectionCap(7, LocalCount())
        for now_s in (0.0, 1.0, 59.0, 60.0):
            cap.log_refusal(now_s)
    assert len(caplog.records) == 2
    assert "all 7 connections" in caplog.records[0].getMessage()


REQUIRED = ["--config", "c", "--port", "0", "--state", "s"]


def test_the_cap_is_an_option_that_help_explains(capsys) -> None:
    assert parse_options(REQUIRED).settings.max_connections == 4096
    assert parse_options([*REQUIRED, "--max-connections", "3"]).settings.max_connections == 3
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--max-connections N" in said
    assert "(default 4096)" in said


def test_a_cap_below_one_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        parse_options([*REQUIRED, "--max-connections", "0"])
    assert "'0' is not a whole number from 1 to 100000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "cap"), [((), 2048), (("--max-connections", "3"), 1), (("--max-connections", "1"), 1)]
)
def test_a_tenant_may_hold_half_of_them_unless_it_is_told_otherwise(given: tuple[str, ...], cap: int) -> None:
    assert parse_options([*REQUIRED, *given]).settings.max_connections_per_tenant == cap
    chosen = parse_options([*REQUIRED, *given, "--max-connections-per-tenant", "7"])
    assert chosen.settings.max_connections_per_tenant == 7
