"""What an engine's answer says, for the exchange that passes it on."""

import contextlib
from functools import lru_cache

import msgspec
import orjson

from cotenant_serving.contract import HEADER_JSON_LENGTH, HEADER_USAGE, Usage
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.reply import fields_of
from cotenant_serving.gateway.upstream import Answer, EngineLostError
from cotenant_serving.openai_api import RequestError

_JSON = "application/json"
_MAX_ERROR_BYTES = 1 << 20
_USAGE = msgspec.json.Decoder(Usage)


async def body_of(answer: Answer) -> bytes:
    """The body of an error; what came of it does not matter when the connection breaks."""
    try:
        return await answer.read(_MAX_ERROR_BYTES)
    except EngineLostError:
        return b""


def whole_fields(answer: Answer, timing: bytes) -> bytes:
    """Header lines of an answer that is passed on: the only headers of an engine that go to the client."""
    headers = answer.headers
    fields = b"%bserver-timing: %b\r\n" % (_content_type(headers.get("content-type", _JSON)), timing)
    json_length = headers.get(HEADER_JSON_LENGTH, "")
    return fields + fields_of({HEADER_JSON_LENGTH: json_length}) if json_length.isdecimal() else fields


def stream_fields(answer: Answer, timing: bytes) -> bytes:
    """As `whole_fields`, of a stream of events."""
    content_type = _content_type(answer.headers["content-type"])
    return b"%bserver-timing: %b\r\ncache-control: no-cache\r\n" % (content_type, timing)


@lru_cache(maxsize=64)
def _content_type(value: str) -> bytes:
    return fields_of({"content-type": value}) or fields_of({"content-type": _JSON})


def usage_of(answer: Answer) -> Usage | None:
    try:
        return _USAGE.decode(answer.headers.get(HEADER_USAGE, ""))
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
