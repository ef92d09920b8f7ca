"""What an engine's answer says, for the exchange that passes it on."""

import contextlib
from collections.abc import AsyncIterator

import msgspec
import orjson

from cotenant_serving.contract import HEADER_JSON_LENGTH, HEADER_USAGE, Usage
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.relay import MAX_EVENT_BYTES, StreamFilter
from cotenant_serving.gateway.upstream import Answer, EngineLostError
from cotenant_serving.openai_api import RequestError

_MAX_ERROR_BYTES = 1 << 20


async def ready_parts(answer: Answer, events: StreamFilter) -> AsyncIterator[bytes]:
    """What may go to the client now. An error waits for the engine's count, which comes after it."""
    held = b""
    try:
        async for chunk in answer.chunks():
            held += events.feed(chunk)
            counted = events.usage is not None or len(held) > MAX_EVENT_BYTES
            if held and (counted or not events.failed):
                yield held
                held = b""
    except EngineLostError:
        if not held:
            raise
    if held:
        yield held


async def body_of(answer: Answer) -> bytes:
    """The body of an error; what came of it does not matter when the connection breaks."""
    try:
        return await answer.read(_MAX_ERROR_BYTES)
    except EngineLostError:
        return b""


def how_to_read(answer: Answer) -> dict[str, str]:
    """The only headers of an engine that go on to the client."""
    found = {"content-type": answer.headers.get("content-type", "application/json")}
    json_length = answer.headers.get(HEADER_JSON_LENGTH, "")
    return found | ({HEADER_JSON_LENGTH: json_length} if json_length.isdecimal() else {})


def usage_of(answer: Answer) -> Usage | None:
    try:
        return msgspec.json.decode(answer.headers.get(HEADER_USAGE, ""), type=Usage)
    except msgspec.MsgspecError:
        return None


def as_error(status: int, body: bytes) -> RequestError:
    """An engine's error body as ours; one that has neither API's shape (or blames our token) is not shown."""
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
        found = orjson.loads(body)["error"]
        if isinstance(found, str):
            found = {"message": found}
        if isinstance(found["message"], str) and status not in (401, 403):
            code = found.get("code")
            return RequestError(
                status,
                found["message"],
                param=found.get("param"),
                code=code if isinstance(code, str) else None,
                type_=str(found.get("type") or "server_error"),
            )
    return error("upstream_error", f"The engine failed with HTTP {status}.")


def size_of(answer: Answer) -> int:
    """Bytes of a whole answer as its engine announces them; 0 when it does not."""
    announced = answer.headers.get("content-length", "")
    return int(announced[:20]) if announced.isdecimal() else 0
