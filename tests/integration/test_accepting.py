"""A server that runs out of file descriptors keeps who comes waiting, and burns no processor meanwhile."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator

import pytest
import uvicorn
import uvloop

from cotenant_serving.accepting import PatientServer, most_descriptor, use_every_descriptor

pytestmark = pytest.mark.integration

LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.Loop}
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def answer_ok(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.contextmanager
def files(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def highest_descriptor() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def taken(number: int) -> Iterator[None]:
    """Every descriptor below it is."""
    placeholders = []
    try:
        while not placeholders or placeholders[-1] < number:
            placeholders.append(os.open("/", os.O_RDONLY))
        yield
    finally:
        for one in placeholders:
            os.close(one)


@contextlib.asynccontextmanager
async def serving():
    """Yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(answer_ok, ws="none", interface="asgi3", lifespan="off", log_config=None)
    server = PatientServer(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        await running


async def ask(client: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, REQUEST)
    return (await asyncio.wait_for(loop.sock_recv(client, 4096), 60)).partition(b"\r\n")[0]


async def test_signals_are_left_to_the_process() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with serving() as address:
        with socket.create_connection(address) as client:
            client.setblocking(False)
            assert await ask(client) == b"HTTP/1.1 200 OK"
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("room_for", [0, 1], ids=["none is left", "those kept are left"])
@pytest.mark.parametrize("loop", LOOPS)
def test_connections_wait_while_descriptors_are_short_and_are_served_once_there_are_some(loop, room_for, caplog):
    async def test() -> None:
        loop = asyncio.get_running_loop()
        enough = 2 * highest_descriptor() + 300  # other tests may have left many open
        limit = enough if room_for else 3
        async with serving() as address:
            clients = [socket.socket() for _ in range(8)]  # before the limit falls: they need descriptors too
            for client in clients:
                client.setblocking(False)
            await loop.sock_connect(clients[0], address)
            assert await ask(clients[0]) == b"HTTP/1.1 200 OK"
            with taken(most_descriptor(enough)), files(limit):
                for client in clients[1:]:
                    await loop.sock_connect(client, address)  # the kernel takes it
                answers = [asyncio.create_task(ask(client)) for client in clients[1:]]
                if room_for:
                    await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
                before_s = time.process_time()
                await asyncio.wait(answers, timeout=1)
                assert time.process_time() - before_s < 0.5
                assert sum(one.done() for one in answers) == room_for
                assert await ask(clients[0]) == b"HTTP/1.1 200 OK"  # who is connected is served
            assert set(await asyncio.gather(*answers)) == {b"HTTP/1.1 200 OK"}
            for client in clients:
                client.close()
        (told,) = [record.message for record in caplog.records if record.name == "cotenant.accepting"]
        assert "too few file descriptors, new connections wait" in told

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(test())


@pytest.mark.parametrize(("limit", "most"), [(64, 48), (1024, 768), (20_000, 17_952), (1, 0)])
def test_some_descriptors_are_kept_for_what_connections_need(limit, most):
    assert most_descriptor(limit) == most


def test_the_soft_limit_of_descriptors_becomes_the_hard_one():
    with files(512):
        use_every_descriptor()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == hard
