"""OpenAI's wire shapes that gateway and engines share: requests checked once, errors in one form.

`parse_chat` and `parse_completion` are pure. They accept what works, ignore what has no effect, and refuse
every other parameter with a `RequestError` that names it. The gateway calls them before it wakes an engine, unless
`usual_requests` has read the body; the engine calls them for the typed values. A repeated key is refused by all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from cotenant_serving.request_fields import (
    RequestError,
    boolean,
    error_body,
    integer,
    json_object,
    model_name,
    number,
    refuse_unknown,
    unsupported,
    whole,
    wrong,
)

__all__ = [
    "IGNORED",
    "IGNORED_OF_MESSAGES",
    "NEUTRAL",
    "ChatMessage",
    "GenerateRequest",
    "Kind",
    "RequestError",
    "Sampling",
    "error_body",
    "error_event",
    "parse_chat",
    "parse_completion",
]

MAX_STOP = 4
MAX_STOP_CHARS = 256
MAX_MESSAGES = 2048

Kind = Literal["chat", "completion"]


def error_event(message: str, *, type_: str = "server_error", code: str | None = None) -> bytes:
    """The server-sent event that ends a broken stream; no `[DONE]` follows it."""
    return b"data: " + error_body(message, type_=type_, code=code) + b"\n\n"


class ChatMessage(msgspec.Struct, frozen=True):
    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(msgspec.Struct, frozen=True):
    """temperature 0 is greedy; top_k 0 is off; max_tokens None means up to the context."""

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()


class GenerateRequest(msgspec.Struct, frozen=True):
    """A checked chat or text completion request."""

    kind: Kind
    model: str
    stream: bool = False
    include_usage: bool = False
    sampling: Sampling = Sampling()
    messages: tuple[ChatMessage, ...] = ()
    """Set for `chat`."""
    prompt: str | tuple[int, ...] = ""
    """Set for `completion`: text, or token ids."""


def parse_chat(body: bytes) -> GenerateRequest:
    """Body of POST /v1/chat/completions → request. Raises RequestError (400)."""
    fields = json_object(body)
    refuse_unknown(fields, _CHAT_FIELDS, ignored=IGNORED, neutral=NEUTRAL)
    messages = _messages(fields.get("messages"))
    stream = boolean(fields, "stream")
    return GenerateRequest(
        "chat",
        model_name(fields.get("model")),
        stream,
        _include_usage(fields.get("stream_options"), stream),
        _sampling(fields),
        messages,
    )


def parse_completion(body: bytes) -> GenerateRequest:
    """Body of POST /v1/completions → request. Raises RequestError (400)."""
    fields = json_object(body)
    refuse_unknown(fields, _COMPLETION_FIELDS, ignored=IGNORED, neutral=NEUTRAL)
    prompt = _prompt(fields.get("prompt"))
    stream = boolean(fields, "stream")
    return GenerateRequest(
        "completion",
        model_name(fields.get("model")),
        stream,
        _include_usage(fields.get("stream_options"), stream),
        _sampling(fields),
        prompt=prompt,
    )


def _sampling(fields: Mapping[str, Any]) -> Sampling:
    max_tokens = _max_tokens(fields)
    temperature = 1.0
    if "temperature" in fields:
        temperature = number(fields, "temperature", low=0.0, high=2.0, default=1.0)
    if fields.keys().isdisjoint(_SELDOM):
        return Sampling(max_tokens, temperature)
    return Sampling(
        max_tokens,
        temperature,
        number(fields, "top_p", low=0.0, high=1.0, default=1.0, low_open=True),
        integer(fields, "top_k", low=0) or 0,
        _stop(fields.get("stop")),
    )


def _max_tokens(fields: Mapping[str, Any]) -> int | None:
    newer = integer(fields, "max_completion_tokens", low=1) if "max_completion_tokens" in fields else None
    older = integer(fields, "max_tokens", low=1) if "max_tokens" in fields else None
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
        raise wrong("stream_options", value, "an object", 'for example {"include_usage": true}')
    if not stream:
        raise RequestError(
            400,
            "'stream_options' is only allowed when 'stream' is true. Leave it out, or set 'stream'.",
            param="stream_options",
        )
    obfuscation = {"include_obfuscation": (False,)}
    refuse_unknown(value, frozenset({"include_usage"}), neutral=obfuscation, prefix="stream_options.")
    return boolean(value, "include_usage", "stream_options.include_usage")


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise wrong("stop", value, f"a string or an array of at most {MAX_STOP} strings", "")
    if len(values) > MAX_STOP:
        raise wrong("stop", f"{len(values)} strings", f"at most {MAX_STOP} strings", "")
    if any(not item or len(item) > MAX_STOP_CHARS for item in values):
        raise wrong("stop", value, f"strings of 1 to {MAX_STOP_CHARS} characters", "")
    return tuple(values)


def _messages(value: Any) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not value:
        raise wrong("messages", value, "a non-empty array", 'for example [{"role": "user", "content": "Hi"}]')
    if len(value) > MAX_MESSAGES:
        raise wrong("messages", f"{len(value)} messages", f"at most {MAX_MESSAGES}", "send fewer")
    return tuple([_message(item, index) for index, item in enumerate(value)])


def _token(value: Any, where: str) -> int:
    found = whole(value)
    if found is None or found < 0:
        raise wrong(where, value, "a token id (an integer of at least 0)", "")
    return found


_ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def _message(value: Any, index: int) -> ChatMessage:
    if not isinstance(value, dict):
        raise wrong(f"messages[{index}]", value, "an object with 'role' and 'content'", "")
    role = value.get("role")
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise wrong(f"messages[{index}].role", role, "one of " + ", ".join(_ROLES), "")
    for name, given in value.items():
        if name not in _OF_MESSAGES and given:
            raise unsupported(f"messages[{index}].{name}", given, "leave it out")
    content = value.get("content")
    if not isinstance(content, str):
        content = _joined(content, f"messages[{index}].content")
    return ChatMessage(known, content)


def _joined(value: Any, where: str) -> str:
    """Content that comes in parts."""
    if not isinstance(value, list) or not value:
        raise wrong(where, value, "a string or an array of text parts", "")
    texts = []
    for index, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise wrong(f"{where}[{index}]", kind, 'a part {"type": "text", "text": "…"}', "only text is served")
        texts.append(part["text"])
    return "".join(texts)


def _prompt(value: Any) -> str | tuple[int, ...]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and not any(isinstance(item, str | list) for item in value):
        return tuple(_token(item, f"prompt[{index}]") for index, item in enumerate(value))
    if isinstance(value, list) and len(value) > 1 and all(isinstance(item, str) for item in value):
        raise wrong("prompt", f"{len(value)} prompts", "one prompt per request", "send one request for each")
    raise wrong("prompt", value, "a string, or an array of token ids", "")


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
IGNORED = frozenset({"user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"})
NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
IGNORED_OF_MESSAGES = ("name", "refusal", "annotations", "audio")
_OF_MESSAGES = frozenset({"role", "content", *IGNORED_OF_MESSAGES})
_SELDOM = frozenset({"top_p", "top_k", "stop"})
_CHAT_FIELDS = _SERVED | {"messages"}
_COMPLETION_FIELDS = _SERVED | {"prompt"}
