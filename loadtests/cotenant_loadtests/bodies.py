"""A planned request → the path and the exact bytes that are sent. Pure; equal requests give equal bytes."""

from collections.abc import Callable
from hashlib import shake_128
from math import prod
from typing import Any
from urllib.parse import quote

import msgspec

from cotenant_loadtests.planned import Planned, Tensor
from cotenant_loadtests.spec import Api
from cotenant_loadtests.words import text_of

_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings"}

_RESERVED = ("model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens")


def reserved_fields(api: Api) -> tuple[str, ...]:
    """Fields of the body that the harness writes itself."""
    return ("inputs",) if api == "oip" else _RESERVED


def request_path(planned: Planned) -> str:
    """Path of the request, to put after that of the target."""
    if planned.api == "oip":
        return f"/v2/models/{quote(planned.model, safe='/')}/infer"
    return _PATHS[planned.api]


def render(planned: Planned) -> bytes:
    """The JSON body."""
    if planned.api == "oip":
        return msgspec.json.encode({"inputs": [_tensor(tensor) for tensor in planned.tensors], **planned.body})
    fields: dict[str, Any] = {"model": planned.model}
    if planned.api == "chat":
        fields["messages"] = [{"role": message.role, "content": text_of(message)} for message in planned.messages]
    elif planned.api == "completions":
        fields["prompt"] = text_of(planned.messages[0])
    else:
        fields["input"] = [text_of(message) for message in planned.messages]
    if planned.max_tokens is not None:
        fields["max_tokens"] = planned.max_tokens
    if planned.streamed:
        fields["stream"] = True
        if planned.include_usage:
            fields["stream_options"] = {"include_usage": True}
    return msgspec.json.encode(fields | planned.body)


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": tensor.shape,
        "datatype": tensor.datatype,
        "data": _values(tensor.datatype, prod(tensor.shape), tensor.seed),
    }


def _values(datatype: str, count: int, seed: int) -> list[Any]:
    """Whole numbers of one byte, and fractions that every float type holds exactly, so that JSON changes nothing."""
    return list(map(_VALUE_OF_BYTE[datatype], shake_128(seed.to_bytes(8, "big")).digest(count)))


def _signed(byte: int) -> int:
    return byte - 128


def _fraction(byte: int) -> float:
    return (byte - 128) / 128


_VALUE_OF_BYTE: dict[str, Callable[[int], Any]] = {
    "BOOL": lambda byte: byte >= 128,
    "UINT8": int,
    **dict.fromkeys(("INT8", "INT16", "INT32", "INT64"), _signed),
    **dict.fromkeys(("FP32", "FP64"), _fraction),
}
