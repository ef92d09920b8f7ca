"""Headers of safetensors files, parsed and checked without reading a tensor. Pure.

    8 bytes: N, little endian │ N bytes: JSON {name: {dtype, shape, data_offsets}} │ tensors, back to back

Format: https://huggingface.co/docs/safetensors/index#format
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cotenant_cache.errors import CorruptWeightsError

MAX_HEADER_BYTES = 32 * 2**20
PREFIX_BYTES = 8
MAX_DIMENSIONS = 64
"""torch's own bound. Without one, multiplying the sizes of a single tensor can take hours."""
MAX_SIZE = 2**63
_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "I64": 64,
    "U64": 64,
    "F64": 64,
}
_AGAIN = "download the file again"


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """Where one tensor lies: bytes `begin` to `end` of the file itself. `dtype` is the format's name (`BF16`)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """What one safetensors file holds, by dtype name (`BF16`, `F32`, …)."""

    bytes_by_dtype: Mapping[str, int]
    parameters_by_dtype: Mapping[str, int]


def header_length(prefix: bytes, *, file: str, file_bytes: int) -> int:
    """Length N of the JSON header from the first 8 bytes. Raises CorruptWeightsError."""
    if file_bytes < PREFIX_BYTES or len(prefix) < PREFIX_BYTES:
        raise CorruptWeightsError(f"{file}: has {file_bytes} bytes, a safetensors file has at least 8; {_AGAIN}")
    length: int = struct.unpack("<Q", prefix[:PREFIX_BYTES])[0]
    if length > MAX_HEADER_BYTES:
        raise CorruptWeightsError(
            f"{file}: its header says {length} bytes, at most {MAX_HEADER_BYTES} are read; "
            f"it is not a safetensors file, or damaged: {_AGAIN}"
        )
    if PREFIX_BYTES + length > file_bytes:
        raise CorruptWeightsError(
            f"{file}: has {file_bytes} bytes, its header alone needs {PREFIX_BYTES + length}: it is cut off; {_AGAIN}"
        )
    return length


def parse_header(header: bytes, *, file: str, file_bytes: int) -> WeightsHeader:
    """The JSON header → sizes by dtype. Raises CorruptWeightsError when it and the file's length disagree."""
    tensors = _tensors(header, file)
    _checked_spans(tensors, len(header), file, file_bytes)
    return _sum(tensors)


def tensor_spans(header: bytes, *, file: str, file_bytes: int) -> tuple[TensorSpan, ...]:
    """The JSON header → its tensors as they lie in the file. Raises CorruptWeightsError as `parse_header` does."""
    tensors = _tensors(header, file)
    data = PREFIX_BYTES + len(header)
    return tuple(
        TensorSpan(name, tensors[name]["dtype"], tuple(tensors[name]["shape"]), data + begin, data + end)
        for begin, end, name in _checked_spans(tensors, len(header), file, file_bytes)
    )


def _checked_spans(
    tensors: Mapping[str, Any], header_bytes: int, file: str, file_bytes: int
) -> list[tuple[int, int, str]]:
    """(begin, end, name) after the header, in order: back to back, and up to the end of the file."""
    spans = sorted(_span(name, tensor, file) for name, tensor in tensors.items())
    end = 0
    for begin, finish, name in spans:
        if begin != end:
            raise CorruptWeightsError(
                f"{file}: tensor {name!r} begins at {begin}, not at {end}: it is damaged; {_AGAIN}"
            )
        end = finish
    expected = PREFIX_BYTES + header_bytes + end
    if expected != file_bytes:
        state = "cut off" if file_bytes < expected else "longer than it says"
        raise CorruptWeightsError(
            f"{file}: has {file_bytes} bytes, its header says {expected}: it is {state}; {_AGAIN}"
        )
    return spans


def _tensors(header: bytes, file: str) -> dict[str, Any]:
    try:
        fields = json.loads(header)
    except (ValueError, RecursionError):
        raise CorruptWeightsError(f"{file}: its header is not JSON: it is damaged; {_AGAIN}") from None
    if not isinstance(fields, dict):
        raise CorruptWeightsError(f"{file}: its header is not a JSON object: it is damaged; {_AGAIN}")
    fields.pop("__metadata__", None)
    return fields


def _span(name: str, tensor: Any, file: str) -> tuple[int, int, str]:
    try:
        begin, end = tensor["data_offsets"]
        if not isinstance(begin, int) or not isinstance(end, int):
            raise TypeError
        bits = _BITS[tensor["dtype"]] * math.prod(_dimensions(tensor["shape"]))
    except (TypeError, KeyError, ValueError):
        raise CorruptWeightsError(f"{file}: tensor {name!r} is described wrongly in its header; {_AGAIN}") from None
    if begin < 0 or (end - begin) * 8 != bits:
        raise CorruptWeightsError(
            f"{file}: tensor {name!r} needs {bits // 8} bytes, its header gives it {end - begin}; {_AGAIN}"
        )
    return begin, end, name


def _dimensions(shape: Any) -> list[int]:
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise ValueError
    if any(not isinstance(size, int) or not 0 <= size < MAX_SIZE for size in shape):
        raise ValueError
    return shape


def _sum(tensors: Mapping[str, Any]) -> WeightsHeader:
    sizes: dict[str, int] = {}
    parameters: dict[str, int] = {}
    for tensor in tensors.values():
        dtype = tensor["dtype"]
        begin, end = tensor["data_offsets"]
        sizes[dtype] = sizes.get(dtype, 0) + end - begin
        parameters[dtype] = parameters.get(dtype, 0) + math.prod(tensor["shape"])
    return WeightsHeader(sizes, parameters)
