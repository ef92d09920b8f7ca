"""Open Inference Protocol v2 (KServe, Triton): requests, answers and metadata, JSON and the binary extension. Pure.

`parse_infer` checks sizes, shapes and types once and raises `RequestError` (400) that names input and field. The
gateway calls it before it wakes an engine; the engine calls it for the tensors. No numpy: data stay JSON's lists, or
views of the body's bytes. Work is bounded by the size of the body.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from cotenant_serving import oip_data
from cotenant_serving.oip_data import DATATYPES
from cotenant_serving.pooling_api import truncate_tokens
from cotenant_serving.request_fields import (
    RequestError,
    boolean,
    integer,
    json_object,
    refuse_unknown,
    unsupported,
    wrong,
)

MODEL_VERSION = "1"
"""Every model has this one version; a newer revision replaces the older one."""
MAX_TENSORS = 256
MAX_RANK = 32
MAX_NAME_CHARS = 256
_DIGITS = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class InferTensor:
    """An input. The number of `data`'s elements is the product of `shape`.

    `data`: of a JSON tensor the flat list of its bools, ints or floats; of a binary one its bytes, little-endian,
    row-major, as a view of the body. Of BYTES always a list of `bytes`.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | memoryview


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """`outputs` empty: all of them, binary if `binary_by_default`.

    `parameters` are those that only `embed` serves, checked: `truncate_prompt_tokens`, `dimensions`. Other engines
    call `refuse_parameters`.
    """

    inputs: tuple[InferTensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    binary_by_default: bool = False
    id: str = ""
    parameters: Mapping[str, int] | None = None

    def binary(self, output: str) -> bool:
        """Whether an output goes out in binary."""
        return next((wanted.binary for wanted in self.outputs if wanted.name == output), self.binary_by_default)

    def refuse_parameters(self) -> None:
        """Raises RequestError (400) when there are any."""
        for name, value in (self.parameters or {}).items():
            raise unsupported(f"parameters.{name}", value, "leave it out: this model has no use for it")


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """An output. `data`: raw bytes, little-endian and row-major; of BYTES a list of `bytes`."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: bytes | memoryview | Sequence[bytes]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What metadata say about an input or output. -1 is any size."""

    name: str
    datatype: str
    shape: Sequence[int]


def parse_json_length(value: str | None, body_bytes: int) -> int | None:
    """The header `inference-header-content-length`, None when absent. Raises RequestError (400)."""
    if value is None:
        return None
    if not _DIGITS.fullmatch(value.strip()):
        raise wrong(_LENGTH_HEADER, value, "the number of bytes of the JSON", "")
    length = int(value)
    if length == 0:
        raise unsupported(_LENGTH_HEADER, 0, "send the inputs' JSON before the binary data")
    if length > body_bytes:
        raise wrong(_LENGTH_HEADER, length, f"at most {body_bytes}, the bytes of the body", "")
    return length


def parse_infer(body: bytes, json_length: int | None) -> InferRequest:
    """Body of POST /v2/models/{m}/infer → request. `json_length` as `parse_json_length` gives it."""
    view = memoryview(body)
    fields = json_object(body if json_length is None else view[:json_length])
    refuse_unknown(fields, _REQUEST)
    parameters = _object(fields.get("parameters"), "parameters")
    refuse_unknown(parameters, _REQUEST_PARAMETERS, prefix="parameters.")
    binary_by_default = boolean(parameters, "binary_data_output", "parameters.binary_data_output")
    tail = _Tail(view[len(body) if json_length is None else json_length :], announced=json_length is not None)
    inputs = _inputs(fields.get("inputs"), tail)
    tail.check_empty()
    return InferRequest(
        inputs=inputs,
        outputs=_outputs(fields.get("outputs"), binary_by_default),
        binary_by_default=binary_by_default,
        id=_name(fields["id"], "id") if fields.get("id") else "",
        parameters=_embed_parameters(parameters),
    )


def infer_response(request: InferRequest, model: str, outputs: Sequence[OutputTensor]) -> tuple[bytes, int | None]:
    """(body, bytes of its JSON or None when nothing is binary) of the answer: only outputs that were asked for.

    Raises RequestError (400) for an output that is asked for and not there, or that JSON cannot hold.
    """
    known = {output.name: output for output in outputs}
    for index, wanted in enumerate(request.outputs):
        if wanted.name not in known:
            raise wrong(f"outputs[{index}].name", wanted.name, f"one of: {', '.join(known)}", "")
    chosen = [known[wanted.name] for wanted in request.outputs] or list(outputs)
    described, tails = [], []
    for output in chosen:
        shown: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if request.binary(output.name):
            tails.append(oip_data.as_bytes(output.datatype, output.data))
            shown["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            with _naming("Output", output.name):
                shown["data"] = oip_data.as_json(output.datatype, output.data)
        described.append(shown)
    head = {"model_name": model, "model_version": MODEL_VERSION} | ({"id": request.id} if request.id else {})
    json = orjson.dumps({**head, "outputs": described})
    return (b"".join((json, *tails)), len(json)) if tails else (json, None)


def metadata(model: str, platform: str, inputs: Sequence[TensorFacts], outputs: Sequence[TensorFacts]) -> bytes:
    """Body of GET /v2/models/{m}."""

    def shown(tensors: Sequence[TensorFacts]) -> list[dict[str, Any]]:
        return [{"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in tensors]

    facts = {"name": model, "versions": [MODEL_VERSION], "platform": platform}
    return orjson.dumps({**facts, "inputs": shown(inputs), "outputs": shown(outputs)})


def error_body(message: str) -> bytes:
    """The protocol's errors are one string."""
    return orjson.dumps({"error": message})


_LENGTH_HEADER = "Inference-Header-Content-Length"
_REQUEST = frozenset({"id", "parameters", "inputs", "outputs"})
_REQUEST_PARAMETERS = frozenset({"binary_data_output", "truncate_prompt_tokens", "dimensions"})
_INPUT = frozenset({"name", "datatype", "shape", "data", "parameters"})
_INPUT_PARAMETERS = frozenset({"binary_data_size"})
_OUTPUT = frozenset({"name", "parameters"})
_OUTPUT_PARAMETERS = frozenset({"binary_data"})


class _Tail:
    """The bytes after the JSON, taken by the binary inputs in their order."""

    def __init__(self, data: memoryview, *, announced: bool) -> None:
        self._data = data
        self._announced = announced
        self._taken = 0

    def take(self, size: int, where: str) -> memoryview:
        left = len(self._data) - self._taken
        if size > left:
            step = "" if self._announced else f" Say with the header {_LENGTH_HEADER} where the JSON ends."
            raise RequestError(
                400,
                f"'{where}.parameters.binary_data_size' is {size}, and only {left} bytes of binary data are left in "
                f"the body.{step}",
                param=f"{where}.parameters.binary_data_size",
                code="invalid_value",
            )
        self._taken += size
        return self._data[self._taken - size : self._taken]

    def check_empty(self) -> None:
        left = len(self._data) - self._taken
        if left:
            raise RequestError(
                400,
                f"The body has {left} bytes after the last input's binary data. Correct 'binary_data_size' of the "
                f"inputs, or {_LENGTH_HEADER}.",
                param="inputs",
                code="invalid_value",
            )


def _inputs(value: Any, tail: _Tail) -> tuple[InferTensor, ...]:
    items = _tensors(value, "inputs")
    if not items:
        raise wrong("inputs", value, "a non-empty array of tensors", "GET /v2/models/MODEL names them")
    inputs = tuple(_input(item, f"inputs[{index}]", tail) for index, item in enumerate(items))
    _refuse_duplicates([tensor.name for tensor in inputs], "inputs")
    return inputs


def _input(value: Any, where: str, tail: _Tail) -> InferTensor:
    if not isinstance(value, dict):
        raise wrong(where, value, "an object with 'name', 'datatype', 'shape' and 'data'", "")
    name = _name(value.get("name"), f"{where}.name")
    with _naming("Input", name):
        refuse_unknown(value, _INPUT, prefix=f"{where}.")
        parameters = _object(value.get("parameters"), f"{where}.parameters")
        refuse_unknown(parameters, _INPUT_PARAMETERS, prefix=f"{where}.parameters.")
        datatype = value.get("datatype")
        if not isinstance(datatype, str) or datatype not in DATATYPES:
            raise wrong(f"{where}.datatype", datatype, "one of " + ", ".join(DATATYPES), "")
        shape = _shape(value.get("shape"), f"{where}.shape")
        size = integer(parameters, "binary_data_size", low=0, shown=f"{where}.parameters.binary_data_size")
        data: list[Any] | memoryview
        if size is None:
            data = oip_data.from_json(datatype, shape, value.get("data"), f"{where}.data")
        elif value.get("data") is not None:
            raise wrong(f"{where}.data", "given", "absent, as 'binary_data_size' is given", "send one of them")
        else:
            data = oip_data.from_bytes(datatype, shape, tail.take(size, where), where)
    return InferTensor(name, datatype, shape, data)


def _shape(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_RANK:
        given = value if not isinstance(value, list) else f"an array of {len(value)}"
        raise wrong(where, given, f"an array of at most {MAX_RANK} integers", "")
    for index, size in enumerate(value):
        if type(size) is not int or size < 1:
            raise wrong(f"{where}[{index}]", size, "an integer of at least 1", "")
    if math.prod(value) > oip_data.MAX_ELEMENTS:
        raise wrong(where, value, f"of at most {oip_data.MAX_ELEMENTS} elements", "")
    return tuple(value)


def _outputs(value: Any, binary_by_default: bool) -> tuple[RequestedOutput, ...]:
    outputs = []
    for index, item in enumerate(_tensors(value, "outputs")):
        where = f"outputs[{index}]"
        if not isinstance(item, dict):
            raise wrong(where, item, "an object with 'name'", "")
        refuse_unknown(item, _OUTPUT, prefix=f"{where}.")
        parameters = _object(item.get("parameters"), f"{where}.parameters")
        refuse_unknown(parameters, _OUTPUT_PARAMETERS, prefix=f"{where}.parameters.")
        binary = boolean(parameters, "binary_data", f"{where}.parameters.binary_data", default=binary_by_default)
        outputs.append(RequestedOutput(_name(item.get("name"), f"{where}.name"), binary))
    _refuse_duplicates([output.name for output in outputs], "outputs")
    return tuple(outputs)


def _tensors(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_TENSORS:
        given = value if not isinstance(value, list) else f"an array of {len(value)}"
        raise wrong(where, given, f"an array of at most {MAX_TENSORS} tensors", "")
    return value


def _embed_parameters(parameters: Mapping[str, Any]) -> dict[str, int]:
    found = {
        "truncate_prompt_tokens": truncate_tokens(
            parameters.get("truncate_prompt_tokens"), "parameters.truncate_prompt_tokens"
        ),
        "dimensions": integer(parameters, "dimensions", low=1, shown="parameters.dimensions"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _object(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(where, value, "an object", "")
    return value


def _name(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_NAME_CHARS:
        given = value if not isinstance(value, str) or not value else f"{len(value)} characters long"
        raise wrong(where, given, f"a string of 1 to {MAX_NAME_CHARS} characters", "")
    return value


def _refuse_duplicates(names: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise wrong(f"{where}[{index}].name", name, "given once", "")
        seen.add(name)


@contextmanager
def _naming(side: str, name: str) -> Iterator[None]:
    """Errors within begin with the tensor's name."""
    try:
        yield
    except RequestError as problem:
        message = f"{side} '{name[:80]}': {problem.message}"
        raise RequestError(problem.status, message, param=problem.param, code=problem.code) from None
