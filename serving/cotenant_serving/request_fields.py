"""Reading the JSON of a request: one object, each field checked once, and errors that name the field. Pure.

What `openai_api`, `pooling_api` and `oip_api` have in common. The gateway routes and charges by what it reads here,
and forwards the bytes as they came: nothing may pass that another reader of JSON would read differently, so no key
given twice, no NaN and no infinities, and nothing but UTF-8.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

MAX_MODEL_CHARS = 200
MAX_INTEGER = 2**53 - 1
"""The largest that every reader of JSON reads as it was written."""
LOCATED_CHARS = 64 << 10
"""How far into a body that is not JSON the place of the mistake is named by its field; later ones by position."""
MAX_DEPTH = 254
"""Of arrays and objects in each other; orjson writes no deeper ones."""
LARGE_BYTES = 128 << 10
"""From here on `MAX_STRUCTURE` is looked at: what is shorter cannot hold as much."""
MAX_STRUCTURE = 100_000
"""Arrays, objects and fields of one body. Reading so many keeps a core, and all other Python, for about 20 ms."""
_SHOWN_CHARS = 80
# A string that does not end is one match too: else each quote in it would be tried again, in quadratic time.
_MARKS = re.compile(r'"(?:[^"\\]|\\[\s\S])*"?|[\[\]{},:]')
# The next bracket or colon that is in no string, or the end.
_STRUCTURE = re.compile(rb'(?:"(?:[^"\\]++|\\[\s\S])*+"?|[^"{\[:]++)*+(?:[{\[:]|\Z)')
# A quote in its longer spelling: after an even number of backslashes.
_SPELLED_QUOTES = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0022")


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
    """Raises RequestError (400) that says where it stops being JSON, or which key is given twice."""
    body = bytes(body)
    if len(body) > LARGE_BYTES:
        _check_structure(body)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        field = _field_at(error.doc[: error.pos]) if error.pos <= LOCATED_CHARS else ""
        place = f"in '{field}', " if field else ""
        step = "Send one JSON object; NaN and infinities are not JSON."
        raise _not_json(f"is not valid JSON: {place}{error}. {step}", field or None) from None
    if not isinstance(value, dict):
        raise _not_json(f"is a JSON {_kind(value)}, not an object. Send one JSON object.")
    _refuse_repeated_keys(body, value)
    return value


def _not_json(what: str, field: str | None = None) -> RequestError:
    return RequestError(400, f"The body {what}", param=field, code="invalid_json")


def _check_structure(body: bytes) -> None:
    """Raises RequestError (400) for more than is read in one go."""
    if sum(map(body.count, (b"{", b"[", b":"))) > MAX_STRUCTURE:  # those in strings do not count
        marks = itertools.islice(_STRUCTURE.finditer(body), MAX_STRUCTURE + 2)
        if sum(1 for _ in marks) > MAX_STRUCTURE + 1:
            raise _not_json(f"has more than {MAX_STRUCTURE} arrays, objects and fields. Send less in one request.")


def _refuse_repeated_keys(body: bytes, value: dict[str, Any]) -> None:
    """Compares the body with its value written again, which lacks what was given twice. Raises RequestError (400).

    A string has two quotes around it and, apart from the spelling `\\u0022`, those within it in either text. So the
    two have equally many quotes exactly if no string was lost on the way; and no key is lost without its quotes.
    """
    try:
        written = orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise _not_json(f"is nested deeper than {MAX_DEPTH} levels. Send a flatter one.") from None
    if written == body:
        return
    if b"\\" in body and b"\\u0022" in body:
        body = _SPELLED_QUOTES.sub(rb"\1\"", body)
    if written.count(b'"') != body.count(b'"'):
        raise _repeated_key(body if len(body) <= LOCATED_CHARS else b"{}")


def _repeated_key(body: bytes) -> RequestError:
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                repeated.append(key)
            seen.add(key)

    json.loads(body, object_pairs_hook=look, parse_int=str)
    key = repeated[0][:MAX_MODEL_CHARS] if repeated else None
    named = "a key" if key is None else repr(key)
    return _not_json(f"gives {named} twice. Send each key of an object once.", key or None)


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
    text = value if isinstance(value, str) and "…" in value else orjson.dumps(value, default=str).decode()
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
