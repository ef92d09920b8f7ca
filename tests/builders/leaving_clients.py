"""Clients that leave at some stage of a request, and an engine that gives them the time to."""

import asyncio
import contextlib
import random

import orjson

from tests.builders.gateway import (
    FakeEngine,
    Seen,
    Wire,
    chat,
    event,
    eventually,
    raw_connection,
    raw_request,
    say_hello,
)
from tests.builders.gateway import stream_end as the_end

STAGES = (
    "before a byte",
    "in the headers",
    "in the body",
    "at once",
    "before the first byte of the answer",
    "between two events",
    "after the last byte",
)


async def answer_by_stage(seen: Seen, wire: Wire) -> None:
    """Holds what its client will not wait for; the rest is answered."""
    body = orjson.loads(seen.body)
    stage = body["messages"][0]["content"].partition("|")[2]
    if stage == "before the first byte of the answer":
        await seen.disconnected.wait()
        return
    if stage != "between two events":
        await say_hello(seen, wire)
        return
    await wire.stream_head()
    await wire.chunk(event("hello"))
    await seen.disconnected.wait()
    with contextlib.suppress(ConnectionError):
        await wire.chunk(the_end())


async def leave(stage: str, number: int, port: int, engine: FakeEngine, rng: random.Random) -> None:
    """Sends a request as far as its stage, takes what there is until then, and is gone; some with a reset."""
    text = f"{number}|{stage}"
    data = raw_request(chat(text, stream=stage in STAGES[5:]))
    body_at = data.index(b"\r\n\r\n") + 4
    upto = {
        "before a byte": 0,
        "in the headers": rng.randrange(1, body_at),
        "in the body": rng.randrange(body_at, len(data)),
    }
    async with raw_connection(port) as (reader, writer):
        writer.write(data[: upto.get(stage, len(data))])
        if stage == "before the first byte of the answer":
            mark = text.encode()
            await eventually(lambda: any(mark in seen.body for seen in engine.requests), within_s=60)
        elif stage == "between two events":
            await reader.readuntil(b"hello")
        elif stage == "after the last byte":
            await reader.readuntil(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        if rng.random() < 0.5:  # else the connection is reset with what is left unsent
            writer.close()
            await asyncio.sleep(0)
