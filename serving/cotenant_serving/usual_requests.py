"""Usual chats and completions, read in one go by a typed decoder: what the gateway has to know of them.

The decoder knows fewer fields and spellings than `openai_api`. What it accepts, `parse_chat` and `parse_completion`
accept with the same values, and they judge everything else, wrong or only seldom.
"""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import astuple

from cotenant_serving.openai_api import MAX_MESSAGES, MAX_STOP, MAX_STOP_CHARS
from cotenant_serving.request_fields import LARGE_BYTES, MAX_INTEGER, MAX_MODEL_CHARS

Tokens = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
Stop = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARS)]


class Asked(NamedTuple):
    model: str
    stream: bool
    max_tokens: int | None


class _Options(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    include_usage: bool | UnsetType = UNSET


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A field that was not given is UNSET, so that what is written again has the fields that were read."""

    model: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_CHARS)]
    stream: bool | UnsetType = UNSET
    stream_options: _Options | UnsetType = UNSET
    max_tokens: Tokens | UnsetType = UNSET
    max_completion_tokens: Tokens | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0, le=MAX_INTEGER)] | UnsetType = UNSET
    stop: Stop | Annotated[list[Stop], Meta(max_length=MAX_STOP)] | UnsetType = UNSET
    n: Literal[1] | UnsetType = UNSET
    user: str | UnsetType = UNSET

    def strings(self) -> int:
        """How many stand in its JSON, keys included."""
        given = astuple(self)
        keys = len(given) - given.count(UNSET)
        stop = self.stop
        values = 1 + (self.user is not UNSET)
        if stop is not UNSET:
            values += 1 if isinstance(stop, str) else len(stop)
        if self.stream_options is not UNSET:
            values += self.stream_options.include_usage is not UNSET
        return keys + values


class _Chat(_Request, forbid_unknown_fields=True, kw_only=True, gc=False):
    messages: Annotated[list[_Message], Meta(min_length=1, max_length=MAX_MESSAGES)]

    def strings(self) -> int:
        return super().strings() + 4 * len(self.messages)


class _Completion(_Request, forbid_unknown_fields=True, kw_only=True, gc=False):
    prompt: str

    def strings(self) -> int:
        return super().strings() + 1


def _reader(kind: type[_Request]) -> Callable[[bytes], Asked | None]:
    decode, encode = msgspec.json.Decoder(kind).decode, msgspec.json.Encoder().encode

    def read(body: bytes) -> Asked | None:
        """None when `openai_api` must judge it."""
        escapes = b"\\" in body
        if len(body) > LARGE_BYTES or (escapes and b"\\u0022" in body):
            return None
        try:
            request = decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        # Written again it lacks what was given twice: a key, with its two quotes. In a string either has as many.
        quotes = encode(request).count(b'"') if escapes else 2 * request.strings()
        if quotes != body.count(b'"'):
            return None
        stream, max_tokens = request.stream is True, request.max_tokens
        if request.max_completion_tokens is not UNSET:
            if max_tokens is not UNSET:
                return None
            max_tokens = request.max_completion_tokens
        if request.stream_options is not UNSET and not stream:
            return None
        return Asked(request.model, stream, None if max_tokens is UNSET else max_tokens)

    return read


usual_chat = _reader(_Chat)
usual_completion = _reader(_Completion)
