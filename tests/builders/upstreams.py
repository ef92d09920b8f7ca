"""Requests to an engine through a client of engines."""

from cotenant_serving.gateway.upstream import Answer, Outgoing, Upstream
from tests.builders.raw_engine import RawEngine

CHAT = Outgoing("POST", "/v1/chat/completions", b'{"model":"echo"}', {"content-type": "application/json"})


async def ask(upstream: Upstream, engine: RawEngine, outgoing: Outgoing = CHAT, id_: str = "req-1") -> Answer:
    return await upstream.send(engine.row, outgoing, id_)


async def whole(upstream: Upstream, engine: RawEngine, outgoing: Outgoing = CHAT) -> tuple[int, bytes]:
    answer = await ask(upstream, engine, outgoing)
    try:
        return answer.status, await answer.read()
    finally:
        await answer.close()
