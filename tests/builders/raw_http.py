"""Requests as bytes, for what no HTTP client would send. Many at a time, each on a connection of its own."""

import asyncio
import contextlib
import re
from collections.abc import Iterable

from tests.builders.gateway import raw_connection

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
AT_ONCE = 16
PATIENCE_S = 20.0
"""Only ends a test that would otherwise never end."""


async def answers(port: int, data: bytes, quiet_s: float = PATIENCE_S) -> bytes:
    """Everything that comes back until the server closes, or is quiet for so long: it waits for more then."""
    got = bytearray()
    async with raw_connection(port) as (reader, writer):
        writer.write(data)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := await asyncio.wait_for(reader.read(1 << 16), quiet_s):
                got += piece
    return bytes(got)


async def answers_to_all(port: int, requests: Iterable[bytes], quiet_s: float = PATIENCE_S) -> list[bytes]:
    """In the order of the requests, `AT_ONCE` in flight."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(data: bytes) -> bytes:
        async with turn:
            return await answers(port, data, quiet_s)

    return await asyncio.gather(*map(one, requests))


def statuses(answered: bytes) -> list[int]:
    """Of every answer in it; an interim one too."""
    return [int(found) for found in _STATUS.findall(answered)]


def message(method: bytes, target: bytes, *lines: bytes, body: bytes = b"", host: bytes | None = b"x") -> bytes:
    """A request that asks for the end of its connection. `lines` are further headers, as they are."""
    head = [b"%s %s HTTP/1.1" % (method, target)]
    head += [] if host is None else [b"host: " + host]
    head += [b"connection: close", *lines]
    head += [b"content-length: %d" % len(body)] if body else []
    return b"\r\n".join(head) + b"\r\n\r\n" + body
