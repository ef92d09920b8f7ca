"""The elements of the Open Inference Protocol's tensors: checked, and turned from bytes to JSON and back. Pure."""

import itertools
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotenant_serving.request_fields import RequestError, wrong

MAX_ELEMENTS = 1 << 48
MAX_BYTES_ELEMENTS = 1 << 20
"""Of a BYTES tensor: each becomes an object of its own."""
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Datatype:
    """`size`: bytes of an element, 0 for BYTES. `form`: its letter in `struct`. `low`, `high`: of its values.

    `reach`: the largest number that is rounded to `high`, which may be written in fewer digits and as a little more.
    """

    size: int
    form: str
    low: float = 0
    high: float = 0
    reach: float = 0

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high or -self.reach <= value <= self.reach


def _integer(size: int, form: str, *, signed: bool) -> Datatype:
    bits = 8 * size - signed
    return Datatype(size, form, -(1 << bits) if signed else 0, (1 << bits) - 1)


DATATYPES: Mapping[str, Datatype] = {
    "BOOL": Datatype(1, "?"),
    "UINT8": _integer(1, "B", signed=False),
    "UINT16": _integer(2, "H", signed=False),
    "UINT32": _integer(4, "I", signed=False),
    "UINT64": _integer(8, "Q", signed=False),
    "INT8": _integer(1, "b", signed=True),
    "INT16": _integer(2, "h", signed=True),
    "INT32": _integer(4, "i", signed=True),
    "INT64": _integer(8, "q", signed=True),
    "FP16": Datatype(2, "e", -65504.0, 65504.0, 65519.99609375),
    "BF16": Datatype(2, "H"),
    "FP32": Datatype(4, "f", -3.4028234663852886e38, 3.4028234663852886e38, 3.4028235677973362e38),
    "FP64": Datatype(8, "d", -math.inf, math.inf),
    "BYTES": Datatype(0, ""),
}
_FLOATS = ("FP16", "FP32", "FP64", "BF16")


def from_json(datatype: str, shape: tuple[int, ...], value: Any, where: str) -> list[Any]:
    """The flat list of a tensor's elements from JSON, flat or nested as `shape`. Raises RequestError (400)."""
    if datatype == "BF16":
        raise wrong(where, "JSON", "binary data for BF16", "send it with 'binary_data_size'")
    if not isinstance(value, list):
        raise wrong(where, value, "an array, or 'parameters.binary_data_size' given", "")
    flat = _flat(value, shape, where)
    _check_values(datatype, flat, where)
    return [text.encode() for text in flat] if datatype == "BYTES" else flat


def from_bytes(datatype: str, shape: tuple[int, ...], data: memoryview, where: str) -> list[bytes] | memoryview:
    """A binary tensor: the view itself once its size is right; of BYTES its elements. Raises RequestError (400)."""
    count = math.prod(shape)
    size_field = f"{where}.parameters.binary_data_size"
    if datatype == "BYTES":
        return _split(data, count, where)
    needed = count * DATATYPES[datatype].size
    if len(data) != needed:
        raise wrong(size_field, len(data), f"{needed}, as {count} elements of {datatype} have", "")
    if datatype == "BOOL" and data.tobytes().strip(b"\x00\x01"):
        raise wrong(where, "binary data with other bytes", "0 or 1 in each byte of BOOL", "")
    return data


def as_bytes(datatype: str, data: Any) -> bytes | memoryview:
    """Binary form of an output."""
    if datatype != "BYTES":
        return memoryview(data).cast("B")
    return b"".join(part for element in data for part in (_LENGTH.pack(len(element)), element))


def as_json(datatype: str, data: Any) -> list[Any]:
    """JSON form of an output, flat. Raises RequestError (400) for what JSON cannot hold."""
    if datatype == "BYTES":
        return [_text(element) for element in data]
    raw = memoryview(data).cast("B")
    kind = DATATYPES[datatype]
    values: Sequence[Any] = struct.unpack(f"<{len(raw) // kind.size}{kind.form}", raw)
    if datatype == "BF16":  # the upper half of an FP32
        values = struct.unpack(f"<{len(values)}f", struct.pack(f"<{len(values)}I", *(half << 16 for half in values)))
    if datatype in _FLOATS and not all(map(math.isfinite, values)):
        raise _not_json("it has NaN or infinite values")
    return list(values)


def _text(element: bytes) -> str:
    try:
        return bytes(element).decode()
    except UnicodeDecodeError:
        raise _not_json("it is not UTF-8") from None


def _not_json(why: str) -> RequestError:
    return RequestError(400, f"{why}, which JSON cannot hold. Ask for it in binary ('binary_data').", code="not_json")


def _flat(value: list[Any], shape: tuple[int, ...], where: str) -> list[Any]:
    """One level of nesting after the other; every list must be as long as `shape` says."""
    if not any(isinstance(item, list) for item in value):
        count = math.prod(shape)
        if len(value) != count:
            raise wrong(where, f"an array of {len(value)}", f"of {count} elements, as the shape {list(shape)}", "")
        return value
    level: list[Any] = [value]
    for depth, size in enumerate(shape):
        for index, item in enumerate(level):
            if not isinstance(item, list) or len(item) != size:
                given = f"an array of {len(item)}" if isinstance(item, list) else item
                path = where + _path(index, shape[:depth])
                raise wrong(
                    path, given, f"an array of {size}, as the shape {list(shape)}", "arrays may not be ragged"
                )
        level = list(itertools.chain.from_iterable(level))
    for index, item in enumerate(level):
        if isinstance(item, list):
            raise wrong(where + _path(index, shape), item, f"one element, as the shape {list(shape)}", "")
    return level


def _path(index: int, shape: Sequence[int]) -> str:
    """`[1][2]` of the element `index` in row-major order."""
    steps = []
    for size in reversed(shape):
        index, step = divmod(index, size)
        steps.append(f"[{step}]")
    return "".join(reversed(steps))


def _check_values(datatype: str, flat: list[Any], where: str) -> None:
    kind = DATATYPES[datatype]
    types, words = _JSON_TYPES["FP" if datatype in _FLOATS else datatype if datatype in _JSON_TYPES else "INT"]
    if not set(map(type, flat)) <= types:
        at = next(index for index, item in enumerate(flat) if type(item) not in types)
        raise wrong(f"{where}[{at}]", "null" if flat[at] is None else flat[at], f"{words} ({datatype})", "")
    if kind.high and flat and not (kind.holds(min(flat)) and kind.holds(max(flat))):
        at = next(index for index, item in enumerate(flat) if not kind.holds(item))
        raise wrong(f"{where}[{at}]", flat[at], f"from {kind.low} to {kind.high} ({datatype})", "")


_JSON_TYPES: Mapping[str, tuple[frozenset[type], str]] = {
    "BOOL": (frozenset({bool}), "true or false"),
    "BYTES": (frozenset({str}), "a string"),
    "INT": (frozenset({int}), "an integer"),
    "FP": (frozenset({int, float}), "a number"),
}


def _split(data: memoryview, count: int, where: str) -> list[bytes]:
    """Elements of a binary BYTES tensor: each is its length in four bytes, then itself."""
    if count > MAX_BYTES_ELEMENTS:
        raise wrong(where, f"{count} elements", f"at most {MAX_BYTES_ELEMENTS} elements of BYTES", "")
    elements: list[bytes] = []
    at = 0
    while at < len(data) and len(elements) <= count:
        end = at + _LENGTH.size
        size = _LENGTH.unpack(data[at:end])[0] if end <= len(data) else -1
        if size < 0 or end + size > len(data):
            raise wrong(f"{where}[{len(elements)}]", "cut off", "a length in four bytes and as many bytes", "")
        elements.append(bytes(data[end : end + size]))
        at = end + size
    if len(elements) != count:
        given = f"{len(elements)} elements" if len(elements) < count else "longer"
        raise wrong(where, given, f"{count} elements of BYTES, as the shape says", "")
    return elements
