"""Reading the JSON of a request: one object, each field checked once, and errors that name the field. Pure.

What `openai_api`, `pooling_api` and `oip_api` have in common. All use orjson, so gateway and engine see the same
value of a repeated key, and neither NaN nor infinities.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

MAX_MODEL_CHARS = 200
MAX_INTEGER = 2**53 - 1
"""The largest that every reader of JSON reads as it was written."""
LOCATED_CHARS = 256 << 10
"""How far into a body that is not JSON the place of the mistake is named by its field; later ones by position."""
_SHOWN_CHARS = 80
# A string that does not end is one match too: else each quote in it would be tried again, in quadratic time.
_MARKS = re.compile(r'"(?:[^"\\]|\\[\s\S])*"?|[\[\]{},:]')


class RequestError(Exception):
    """A request that is answered with an error.

    `message` names field, value, reason and next step; `status` is the HTTP status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type_: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.type = type_
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """In OpenAI's shape."""
        return error_body(self.message, type_=self.type, param=self.param, code=self.code)


def error_body(message: str, *, type_: str, param: str | None = None, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": type_, "param": param, "code": code}})


def json_object(body: bytes | memoryview) -> dict[str, Any]:
    """Raises RequestError (400) that says where it stops being JSON."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        field = _field_at(error.doc[: error.pos]) if error.pos <= LOCATED_CHARS else ""
        place = f"in '{field}', " if field else ""
        raise RequestError(
            400,
            f"The body is not valid JSON: {place}{error}. Send one JSON object; NaN and infinities are not JSON.",
            param=field or None,
            code="invalid_json",
        ) from None
    if not isinstance(value, dict):
        raise RequestError(
            400,
            f"The body is a JSON {_kind(value)}, not an object. Send one JSON object.",
            code="invalid_json",
        )
    return value


def _field_at(before: str) -> str:
    """Path of the value that would begin after `before`, such as `input[3]`; empty at the top."""
    stack: list[str | int] = []
    last = ""
    for mark in _MARKS.findall(before):
        if mark in "{[":
            stack.append("" if mark == "{" else 0)
        elif mark in "]}":
            del stack[-1:]
        elif mark == "," and stack and isinstance(stack[-1], int):
            stack[-1] += 1
        elif mark == ":" and stack and isinstance(stack[-1], str):
            stack[-1] = last
        elif mark[0] == '"':
            last = mark.strip('"')
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in stack)
    return path.lstrip(".")[:MAX_MODEL_CHARS]


def refuse_unknown(
    fields: Mapping[str, Any],
    served: frozenset[str],
    *,
    ignored: frozenset[str] = frozenset(),
    neutral: Mapping[str, Sequence[Any]] | None = None,
    prefix: str = "",
) -> None:
    """Raises RequestError (400) for the first field that would change the answer and is not served.

    `ignored` never change it; `neutral` do not for the values that stand with them. Null changes nothing.
    """
    for name, value in fields.items():
        if name in served or name in ignored or value is None:
            continue
        if not any(_same(value, accepted) for accepted in (neutral or {}).get(name, ())):
            raise unsupported(prefix + name, value, "leave it out")


def _same(value: Any, accepted: Any) -> bool:
    """As JSON has it: true is not 1."""
    return bool(value == accepted) and isinstance(value, bool) == isinstance(accepted, bool)


def model_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise wrong("model", value, "the name of a model as a string", "GET /v1/models lists yours")
    if len(value) > MAX_MODEL_CHARS:
        raise wrong("model", value[:40] + "…", f"at most {MAX_MODEL_CHARS} characters", "GET /v1/models lists yours")
    return value


def boolean(fields: Mapping[str, Any], name: str, shown: str | None = None, *, default: bool = False) -> bool:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong(shown or name, value, "true or false", "")
    return value


def integer(fields: Mapping[str, Any], name: str, *, low: int, shown: str | None = None) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    found = whole(value)
    if found is None or found < low:
        raise wrong(shown or name, value, f"an integer of at least {low} and at most {MAX_INTEGER}", "")
    return found


def whole(value: Any) -> int | None:
    """An integer of JSON, which 2.0 is too and true is not; None for anything else and for more than MAX_INTEGER."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MAX_INTEGER:
        return None
    return int(value) if value == int(value) else None


def number(
    fields: Mapping[str, Any], name: str, *, low: float, high: float, default: float, low_open: bool = False
) -> float:
    value = fields.get(name)
    if value is None:
        return default
    inside = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (low < value if low_open else low <= value)
        and value <= high
    )
    if not inside:
        raise wrong(
            name,
            value,
            f"a number {'above' if low_open else 'from'} {low:g} {'and up ' if low_open else ''}to {high:g}",
            "",
        )
    return float(value)


def unsupported(name: str, value: Any, step: str) -> RequestError:
    return RequestError(
        400,
        f"'{name}' = {_shown(value)} is not supported here; {step}.",
        param=name,
        code="unsupported_parameter",
    )


def wrong(name: str, value: Any, wanted: str, step: str) -> RequestError:
    """`value` None reads as missing."""
    given = "missing" if value is None else f"{_shown(value)}"
    tail = f" ({step})" if step else ""
    return RequestError(400, f"'{name}' is {given}; it must be {wanted}{tail}.", param=name, code="invalid_value")


def _shown(value: Any) -> str:
    if isinstance(value, list | dict | str) and len(value) > _SHOWN_CHARS:
        value = value[:_SHOWN_CHARS] if not isinstance(value, dict) else f"an object of {len(value)} fields"
    try:
        text = value if isinstance(value, str) and "…" in value else orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes
        return f"a deeply nested {_kind(value)}"
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def _kind(value: Any) -> str:
    names = {
        dict: "object",
        list: "array",
        str: "string",
        int: "number",
        float: "number",
        bool: "boolean",
        type(None): "null",
    }
    return names.get(type(value), "value")
