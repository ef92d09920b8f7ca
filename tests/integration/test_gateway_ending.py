"""How a gateway of several ends: it serves on while clients may still be sent to it; and the port of its own for
those who look after it.
"""

import asyncio
import re
import signal

import aiohttp
import pytest
from tests.builders.gateway import KEYS, Seen, Wire, chat, event, eventually, raw_request, stream_end
from tests.builders.gateway import raw_connection as connected
from tests.builders.gateway_calls import post_chat, run, until_ready
from tests.builders.quick_stage import QuickClient

pytestmark = pytest.mark.integration
LONG = ("--pre-stop-s", "600")
"""Nobody waits for its end: the second signal does."""


async def test_all_is_served_between_the_signal_and_the_drain_and_nobody_is_told_to_come(gateway, conductor, engine):
    await run(gateway, conductor, engine, options=("--pre-stop-s", "6", "--workers", "2"))
    gateway.signal(signal.SIGTERM)

    assert await until_ready(gateway, ready=False) == "draining"
    served = 0
    while True:
        try:
            code, headers, _ = await post_chat(gateway)
        except aiohttp.ClientConnectionError:
            break  # the drain has begun: it takes no new connections
        assert code == 200
        served += 1
        await asyncio.sleep(0.05)

    assert served > 1
    assert headers["connection"] == "close"
    assert await gateway.exited() == 0
    assert len(gateway.usage()) == served


async def test_a_connection_that_is_kept_ends_with_an_answer_that_says_so_and_no_request_is_lost(
    gateway, conductor, engine
):
    await run(gateway, conductor, engine, options=LONG)
    async with connected(gateway.port) as (reader, writer):
        client = QuickClient(reader, writer)
        _, headers, _ = await client.ask(raw_request(chat()))
        assert "connection" not in headers
        gateway.signal(signal.SIGTERM)
        await until_ready(gateway, ready=False)
        while headers.get("connection") != "close":  # within a sweep
            status, headers, body = await client.ask(raw_request(chat()))
            assert status == 200
            assert b"hello world" in body
            await asyncio.sleep(0.05)

        assert await reader.read() == b""


async def test_a_stream_that_has_begun_ends_whole_and_its_connection_serves_on(gateway, conductor, engine):
    finish = asyncio.Event()

    async def held(seen: Seen, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(event("one"))
        await finish.wait()
        await wire.chunk(stream_end(completion=1))
        await wire.end()

    engine.scripts.append(held)
    await run(gateway, conductor, engine, options=LONG)
    async with connected(gateway.port) as (reader, writer):
        writer.write(raw_request(chat(stream=True)))
        await reader.readuntil(b"one")
        gateway.signal(signal.SIGTERM)
        await until_ready(gateway, ready=False)
        await asyncio.sleep(0.5)
        finish.set()
        await reader.readuntil(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        headers: dict[str, str] = {}
        while headers.get("connection") != "close":  # within a sweep
            _, headers, body = await QuickClient(reader, writer).ask(raw_request(chat()))
            assert b"hello world" in body
            await asyncio.sleep(0.05)


async def test_a_second_signal_ends_the_wait(gateway, conductor, engine):
    await run(gateway, conductor, engine, options=LONG)
    gateway.signal(signal.SIGTERM)
    await until_ready(gateway, ready=False)
    gateway.signal(signal.SIGTERM)
    assert await gateway.exited() == 0


async def test_a_worker_that_dies_meanwhile_is_replaced_by_one_that_leaves_too(gateway, conductor, engine):
    await run(gateway, conductor, engine, options=LONG)
    gateway.signal(signal.SIGTERM)
    await until_ready(gateway, ready=False)
    (before,) = gateway.workers()
    before.kill()
    await eventually(lambda: [one for one in gateway.workers() if one.pid != before.pid])
    assert await until_ready(gateway, ready=False) == "draining"
    assert (await post_chat(gateway))[0] == 200


async def test_metrics_stand_on_the_port_of_their_own_only_and_no_number_of_clients_keeps_them_out(
    gateway, conductor, engine
):
    options = ("--admin-port", "0", "--max-connections", "1", "--workers", "2")
    await run(gateway, conductor, engine, options=options)
    found = re.search(r"health and metrics on (http://\S+)", "".join(gateway.log))
    assert found is not None
    admin = found[1]
    async with aiohttp.ClientSession() as session:

        async def code(url: str, key: str = "") -> int:
            headers = {"connection": "close", **({"authorization": f"Bearer {key}"} if key else {})}
            async with session.get(url, headers=headers) as response:
                await response.read()
                return response.status

        async def metrics() -> str:
            async with session.get(admin + "/metrics") as response:
                return await response.text()

        assert [await code(admin + path) for path in ("/metrics", "/healthz", "/readyz")] == [200, 200, 200]
        # Of what tenants call, nothing is there; and of what is there, tenants see health alone.
        for path in ("/v1/models", "/v1/chat/completions", "/v2", "/docs"):
            assert await code(admin + path, KEYS["search"]) == 404

        async def answered(path: str) -> int:
            """There is room for one connection, and the last one may be counted for a moment after its end."""
            while (status := await code(gateway.url + path, KEYS["search"])) == 503:
                await asyncio.sleep(0.02)
            return status

        assert [await answered("/metrics"), await answered("/readyz")] == [404, 200]
        async with connected(gateway.port):
            for _ in range(20):
                assert await code(admin + "/readyz") == 200
        async with asyncio.timeout(30):
            # The second may still be starting when the first one says that it is ready.
            while "cotenant_gateway_workers 2.0" not in await metrics():
                await asyncio.sleep(0.02)
    gateway.signal(signal.SIGTERM)
    assert await gateway.exited() == 0
