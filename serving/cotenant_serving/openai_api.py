"""OpenAI's wire shapes that gateway and engines share: requests checked once, errors in one form.

`parse_chat` and `parse_completion` are pure. They accept what works, ignore what has no effect, and refuse
every other parameter with a `RequestError` that names it. The gateway calls them before it wakes an engine;
the engine calls them for the typed values. Both use orjson, so both see the same value of a repeated key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

MAX_STOP = 4
MAX_STOP_CHARS = 256
MAX_MESSAGES = 2048

Kind = Literal["chat", "completion"]


class RequestError(Exception):
    """A request that is answered with an OpenAI error object.

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
        return error_body(self.message, type_=self.type, param=self.param, code=self.code)


def error_body(message: str, *, type_: str, param: str | None = None, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": type_, "param": param, "code": code}})


def error_event(message: str, *, type_: str = "server_error", code: str | None = None) -> bytes:
    """The server-sent event that ends a broken stream; no `[DONE]` follows it."""
    return b"data: " + error_body(message, type_=type_, code=code) + b"\n\n"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0 is greedy; top_k 0 is off; max_tokens None means up to the context."""

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A checked chat or text completion request."""

    kind: Kind
    model: str
    stream: bool = False
    include_usage: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    messages: tuple[ChatMessage, ...] = ()
    """Set for `chat`."""
    prompt: str | tuple[int, ...] = ""
    """Set for `completion`: text, or token ids."""


def parse_chat(body: bytes) -> GenerateRequest:
    """Body of POST /v1/chat/completions → request. Raises RequestError (400)."""
    fields = _object(body)
    _refuse_unsupported(fields, _CHAT_FIELDS)
    return GenerateRequest(kind="chat", messages=_messages(fields.get("messages")), **_common(fields))


def parse_completion(body: bytes) -> GenerateRequest:
    """Body of POST /v1/completions → request. Raises RequestError (400)."""
    fields = _object(body)
    _refuse_unsupported(fields, _COMPLETION_FIELDS)
    return GenerateRequest(kind="completion", prompt=_prompt(fields.get("prompt")), **_common(fields))


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            400, f"The body is not valid JSON: {error}. Send one JSON object.", code="invalid_json"
        ) from None
    if not isinstance(value, dict):
        raise RequestError(
            400,
            f"The body is a JSON {_kind(value)}, not an object. Send one JSON object.",
            code="invalid_json",
        )
    return value


def _common(fields: Mapping[str, Any]) -> dict[str, Any]:
    stream = _boolean(fields, "stream")
    return {
        "model": _model(fields.get("model")),
        "stream": stream,
        "include_usage": _include_usage(fields.get("stream_options"), stream),
        "sampling": Sampling(
            max_tokens=_max_tokens(fields),
            temperature=_number(fields, "temperature", low=0.0, high=2.0, default=1.0),
            top_p=_number(fields, "top_p", low=0.0, high=1.0, default=1.0, low_open=True),
            top_k=_integer(fields, "top_k", low=0) or 0,
            stop=_stop(fields.get("stop")),
        ),
    }


def _model(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong("model", value, "the name of a model as a string", "GET /v1/models lists yours")
    if len(value) > 200:
        raise _wrong("model", value[:40] + "…", "at most 200 characters", "GET /v1/models lists yours")
    return value


def _max_tokens(fields: Mapping[str, Any]) -> int | None:
    newer = _integer(fields, "max_completion_tokens", low=1)
    older = _integer(fields, "max_tokens", low=1)
    if newer is not None and older is not None and newer != older:
        raise RequestError(
            400,
            f"'max_tokens' is {older} and 'max_completion_tokens' is {newer}: they mean the same. Send one of them.",
            param="max_tokens",
        )
    return newer if newer is not None else older


def _include_usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not isinstance(value, dict):
        raise _wrong("stream_options", value, "an object", 'for example {"include_usage": true}')
    if not stream:
        raise RequestError(
            400,
            "'stream_options' is only allowed when 'stream' is true. Leave it out, or set 'stream'.",
            param="stream_options",
        )
    for name in value:
        if name not in ("include_usage", "include_obfuscation"):
            raise _unsupported(f"stream_options.{name}", value[name], "leave it out")
    if value.get("include_obfuscation"):
        raise _unsupported("stream_options.include_obfuscation", True, "leave it out or send false")
    return _boolean(value, "include_usage", "stream_options.include_usage")


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise _wrong("stop", value, f"a string or an array of at most {MAX_STOP} strings", "")
    if len(values) > MAX_STOP:
        raise _wrong("stop", f"{len(values)} strings", f"at most {MAX_STOP} strings", "")
    if any(not item or len(item) > MAX_STOP_CHARS for item in values):
        raise _wrong("stop", value, f"strings of 1 to {MAX_STOP_CHARS} characters", "")
    return tuple(values)


def _messages(value: Any) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong("messages", value, "a non-empty array", 'for example [{"role": "user", "content": "Hi"}]')
    if len(value) > MAX_MESSAGES:
        raise _wrong("messages", f"{len(value)} messages", f"at most {MAX_MESSAGES}", "send fewer")
    return tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))


_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def _message(value: Any, where: str) -> ChatMessage:
    if not isinstance(value, dict):
        raise _wrong(where, value, "an object with 'role' and 'content'", "")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise _wrong(f"{where}.role", role, "one of " + ", ".join(_ROLES), "")
    for name, given in value.items():
        if name not in ("role", "content", "name", "refusal", "annotations", "audio") and given:
            raise _unsupported(f"{where}.{name}", given, "leave it out")
    return ChatMessage(_ROLES[role], _content(value.get("content"), f"{where}.content"))


def _content(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise _wrong(where, value, "a string or an array of text parts", "")
    texts = []
    for index, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise _wrong(f"{where}[{index}]", kind, 'a part {"type": "text", "text": "…"}', "only text is served")
        texts.append(part["text"])
    return "".join(texts)


def _prompt(value: Any) -> str | tuple[int, ...]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, int) and item >= 0 for item in value):
        if any(isinstance(item, bool) for item in value):
            raise _wrong("prompt", True, "token ids as integers", "")
        return tuple(value)
    if isinstance(value, list) and len(value) > 1 and all(isinstance(item, str) for item in value):
        raise _wrong("prompt", f"{len(value)} prompts", "one prompt per request", "send one request for each")
    raise _wrong("prompt", value, "a string, or an array of token ids", "")


def _boolean(fields: Mapping[str, Any], name: str, shown: str | None = None) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(shown or name, value, "true or false", "")
    return bool(value)


def _integer(fields: Mapping[str, Any], name: str, *, low: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise _wrong(name, value, f"an integer of at least {low}", "")
    return value


def _number(
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
        raise _wrong(
            name,
            value,
            f"a number {'above' if low_open else 'from'} {low:g} {'and up ' if low_open else ''}to {high:g}",
            "",
        )
    return float(value)


# Parameters that are served, and those whose neutral value is accepted because it changes nothing.
_SERVED = frozenset(
    {
        "model",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
    }
)
_IGNORED = frozenset({"user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"})
_NEUTRAL: Mapping[str, Callable[[Any], bool]] = {
    "n": lambda value: value == 1,
    "best_of": lambda value: value == 1,
    "logprobs": lambda value: value is False,
    "top_logprobs": lambda value: value == 0,
    "echo": lambda value: value is False,
    "presence_penalty": lambda value: value == 0,
    "frequency_penalty": lambda value: value == 0,
    "logit_bias": lambda value: value == {},
    "tools": lambda value: value == [],
    "tool_choice": lambda value: value == "none",
    "parallel_tool_calls": lambda value: isinstance(value, bool),
    "response_format": lambda value: value == {"type": "text"},
    "modalities": lambda value: value == ["text"],
}
_CHAT_FIELDS = _SERVED | {"messages"}
_COMPLETION_FIELDS = _SERVED | {"prompt"}


def _refuse_unsupported(fields: Mapping[str, Any], served: frozenset[str]) -> None:
    for name, value in fields.items():
        if name in served or name in _IGNORED or value is None:
            continue
        neutral = _NEUTRAL.get(name)
        if neutral is None or not neutral(value):
            raise _unsupported(name, value, "leave it out")


def _unsupported(name: str, value: Any, step: str) -> RequestError:
    return RequestError(
        400,
        f"'{name}' = {_shown(value)} is not supported here; {step}.",
        param=name,
        code="unsupported_parameter",
    )


def _wrong(name: str, value: Any, wanted: str, step: str) -> RequestError:
    given = "missing" if value is None else f"{_shown(value)}"
    tail = f" ({step})" if step else ""
    return RequestError(400, f"'{name}' is {given}; it must be {wanted}{tail}.", param=name, code="invalid_value")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and "…" in value else orjson.dumps(value, default=str).decode()
    return text if len(text) <= 80 else text[:79] + "…"


def _kind(value: Any) -> str:
    names = {
        list: "array",
        str: "string",
        int: "number",
        float: "number",
        bool: "boolean",
        type(None): "null",
    }
    return names.get(type(value), "value")
