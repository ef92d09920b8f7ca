"""What other fakes are made of: a connection that outlives its fake fails a test that has no part in it."""

import asyncio
import socket

import pytest
from tests.builders.loopback_server import LoopbackServer

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("rounds", range(10))
async def test_a_connection_ends_with_its_server_however_far_it_has_come(rounds):
    async def read_for_ever(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    server = LoopbackServer(read_for_ever)
    port = await server.start()
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        for _ in range(rounds):
            await asyncio.sleep(0)
        await server.stop()

        client.settimeout(20)
        try:
            left = client.recv(1)
        except (ConnectionResetError, BrokenPipeError):
            left = b""
    assert left == b""
