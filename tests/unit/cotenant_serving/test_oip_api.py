"""Open Inference Protocol v2: tensors in JSON and in binary, every mistake named, and answers that read back."""

import contextlib
import json
import math
import struct
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cotenant_serving import oip_api
from cotenant_serving.oip_api import InferRequest, OutputTensor, RequestedOutput, TensorFacts, parse_infer
from cotenant_serving.oip_data import DATATYPES
from cotenant_serving.request_fields import RequestError

NUMBERS = [name for name in DATATYPES if name not in ("BYTES", "BF16")]
shapes = st.lists(st.integers(1, 4), max_size=3)


def elements(datatype: str) -> st.SearchStrategy[Any]:
    kind = DATATYPES[datatype]
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(max_size=6)
    if datatype.startswith("FP"):
        width = {"FP16": 16, "FP32": 32, "FP64": 64}[datatype]
        return st.floats(width=width, allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    return st.integers(int(kind.low), int(kind.high))


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, list[int], list[Any]]:
    datatype = draw(st.sampled_from([*NUMBERS, "BYTES"]))
    shape = draw(shapes)
    count = math.prod(shape)
    return datatype, shape, draw(st.lists(elements(datatype), min_size=count, max_size=count))


def packed(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        coded = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(one)) + one for one in coded)
    return struct.pack(f"<{len(values)}{DATATYPES[datatype].form}", *values)


def nested(values: list[Any], shape: list[int]) -> Any:
    if not shape:
        return values[0]
    step = len(values) // shape[0]
    return [nested(values[at : at + step], shape[1:]) for at in range(0, len(values), step)]


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2], **fields}


def body(*inputs: Any, **fields: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **fields}).encode()


def binary(*parts: tuple[dict[str, Any], bytes], **fields: Any) -> tuple[bytes, int]:
    head = body(*(one | {"parameters": {"binary_data_size": len(raw)}} for one, raw in parts), **fields)
    return head + b"".join(raw for _, raw in parts), len(head)


def refusal(raw: bytes, length: int | None = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_infer(raw, length)
    assert caught.value.status == 400
    assert len(caught.value.message) < 800
    return caught.value


@given(tensors())
def test_json_tensors_come_through_flat_and_nested(given_tensor: tuple[str, list[int], list[Any]]) -> None:
    datatype, shape, values = given_tensor
    wanted = [value.encode() for value in values] if datatype == "BYTES" else values

    for data in [values, nested(values, shape)] if shape else [values]:
        (parsed,) = parse_infer(body(tensor(datatype=datatype, shape=shape, data=data)), None).inputs

        assert (parsed.name, parsed.datatype, parsed.shape) == ("x", datatype, tuple(shape))
        assert parsed.data == wanted


@given(st.lists(tensors(), min_size=1, max_size=4))
def test_binary_tensors_come_through_in_their_order(given_tensors: list[tuple[str, list[int], list[Any]]]) -> None:
    parts = [
        ({"name": f"t{index}", "datatype": datatype, "shape": shape}, packed(datatype, values))
        for index, (datatype, shape, values) in enumerate(given_tensors)
    ]
    raw, length = binary(*parts)

    parsed = parse_infer(raw, length).inputs

    for one, (datatype, _, values), (_, part) in zip(parsed, given_tensors, parts, strict=True):
        if datatype == "BYTES":
            assert one.data == [value.encode() for value in values]
        else:
            assert isinstance(one.data, memoryview)
            assert bytes(one.data) == part


@given(st.lists(tensors(), min_size=1, max_size=3), st.booleans())
def test_answers_read_back_in_both_forms(
    given_tensors: list[tuple[str, list[int], list[Any]]], as_binary: bool
) -> None:
    outputs = [
        OutputTensor(
            f"t{index}",
            datatype,
            shape,
            [value.encode() for value in values] if datatype == "BYTES" else packed(datatype, values),
        )
        for index, (datatype, shape, values) in enumerate(given_tensors)
    ]
    request = InferRequest(inputs=(), binary_by_default=as_binary, id="7")

    raw, length = oip_api.infer_response(request, "m", outputs)

    assert (length is not None) == as_binary
    head = orjson.loads(raw[:length])
    assert (head["model_name"], head["model_version"], head["id"]) == ("m", "1", "7")
    as_request = orjson.dumps({"inputs": head["outputs"]})
    again = parse_infer(as_request + raw[length or len(raw) :], len(as_request)).inputs
    for parsed, (datatype, shape, values) in zip(again, given_tensors, strict=True):
        assert parsed.shape == tuple(shape)
        wanted = packed(datatype, values)
        got = parsed.data if isinstance(parsed.data, memoryview) else packed(datatype, _texts(parsed.data))
        assert bytes(got) == wanted


def _texts(values: list[Any]) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in values]


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(1, 200)))
def test_any_bytes_are_a_request_or_a_refusal(raw: bytes, length: int | None) -> None:
    assume(length is None or length <= len(raw))
    with contextlib.suppress(RequestError):
        parse_infer(raw, length)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["x", "FP32", "INT8", "BYTES", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "datatype", "shape", "data", "parameters", "binary_data_size"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["inputs", "outputs", "parameters", "id", "other"]), JSON))
def test_any_json_is_a_request_or_a_refusal(value: Any) -> None:
    with contextlib.suppress(RequestError):
        parse_infer(json.dumps(value).encode(), None)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "inputs[0].name"),
        ({"name": 3}, "inputs[0].name"),
        ({"name": "n" * 300}, "inputs[0].name"),
        ({"datatype": "FLOAT"}, "inputs[0].datatype"),
        ({"datatype": None}, "inputs[0].datatype"),
        ({"shape": None}, "inputs[0].shape"),
        ({"shape": "2"}, "inputs[0].shape"),
        ({"shape": [-1]}, "inputs[0].shape[0]"),
        ({"shape": [2, 0]}, "inputs[0].shape[1]"),
        ({"shape": [True]}, "inputs[0].shape[0]"),
        ({"shape": [2.0]}, "inputs[0].shape[0]"),
        ({"shape": [1] * 33}, "inputs[0].shape"),
        ({"shape": [2**40, 2**40]}, "inputs[0].shape"),
        ({"shape": [3]}, "inputs[0].data"),
        ({"data": None}, "inputs[0].data"),
        ({"data": 5}, "inputs[0].data"),
        ({"data": []}, "inputs[0].data"),
        ({"data": [1, None]}, "inputs[0].data[1]"),
        ({"data": [1, True]}, "inputs[0].data[1]"),
        ({"data": [1, "2"]}, "inputs[0].data[1]"),
        ({"data": [1, 1e39]}, "inputs[0].data[1]"),
        ({"datatype": "FP16", "data": [1, 70000]}, "inputs[0].data[1]"),
        ({"datatype": "INT8", "data": [1, 128]}, "inputs[0].data[1]"),
        ({"datatype": "INT8", "data": [-129, 1]}, "inputs[0].data[0]"),
        ({"datatype": "UINT64", "data": [1, -1]}, "inputs[0].data[1]"),
        ({"datatype": "INT64", "data": [1, 2**63]}, "inputs[0].data[1]"),
        ({"datatype": "INT32", "data": [1, 1.0]}, "inputs[0].data[1]"),
        ({"datatype": "BOOL", "data": [True, 1]}, "inputs[0].data[1]"),
        ({"datatype": "BYTES", "data": ["a", 1]}, "inputs[0].data[1]"),
        ({"datatype": "BF16"}, "inputs[0].data"),
        ({"shape": [2, 2], "data": [[1, 2], [3]]}, "inputs[0].data[1]"),
        ({"shape": [2, 2], "data": [[1, 2], 3]}, "inputs[0].data[1]"),
        ({"shape": [2, 2], "data": [1, [2, 3]]}, "inputs[0].data[0]"),
        ({"shape": [2, 2], "data": [[1, 2], [3, [4]]]}, "inputs[0].data[1][1]"),
        ({"shape": [2, 2], "data": [[1, 2, 3, 4]]}, "inputs[0].data"),
        ({"shape": [], "data": [[1]]}, "inputs[0].data"),
        ({"extra": 1}, "inputs[0].extra"),
        ({"parameters": []}, "inputs[0].parameters"),
        ({"parameters": {"shared_memory_region": "r"}}, "inputs[0].parameters.shared_memory_region"),
        ({"parameters": {"binary_data_size": -1}}, "inputs[0].parameters.binary_data_size"),
        ({"parameters": {"binary_data_size": 8}}, "inputs[0].data"),
        ({"data": None, "parameters": {"binary_data_size": 8}}, "inputs[0].parameters.binary_data_size"),
    ],
)
def test_mistakes_in_an_input_name_it_and_its_field(fields: dict[str, Any], field: str) -> None:
    problem = refusal(body(tensor(**fields)))

    assert problem.param == field
    if "name" not in fields:
        assert problem.message.startswith("Input 'x': ")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"inputs": None}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": ["x"]}, "inputs[0]"),
        ({"inputs": [tensor()] * 2}, "inputs[1].name"),
        ({"inputs": [tensor(name=str(n)) for n in range(257)]}, "inputs"),
        ({"outputs": "y"}, "outputs"),
        ({"outputs": [1]}, "outputs[0]"),
        ({"outputs": [{}]}, "outputs[0].name"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "outputs[1].name"),
        ({"outputs": [{"name": "y", "data": []}]}, "outputs[0].data"),
        ({"outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "outputs[0].parameters.classification"),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "outputs[0].parameters.binary_data"),
        ({"parameters": {"sequence_id": 7}}, "parameters.sequence_id"),
        ({"parameters": {"timeout": 7}}, "parameters.timeout"),
        ({"parameters": {"binary_data_output": "yes"}}, "parameters.binary_data_output"),
        ({"parameters": {"truncate_prompt_tokens": 0}}, "parameters.truncate_prompt_tokens"),
        ({"parameters": {"dimensions": 0}}, "parameters.dimensions"),
        ({"id": 5}, "id"),
        ({"model": "m"}, "model"),
    ],
)
def test_mistakes_outside_the_inputs_are_named(fields: dict[str, Any], field: str) -> None:
    assert refusal(body(**{"inputs": [tensor()], **fields})).param == field


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": {"sequence_id": 1}},
        {"outputs": [{"name": "y", "parameters": {"classification": 1}}]},
        {"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]},
    ],
)
def test_extensions_that_are_not_served_say_so(fields: dict[str, Any]) -> None:
    problem = refusal(body(**{"inputs": [tensor()], **fields}))

    assert problem.code == "unsupported_parameter"
    assert "not supported" in problem.message


FLOATS = {"name": "x", "datatype": "FP32", "shape": [2]}


def test_binary_data_must_fill_the_rest_of_the_body_exactly() -> None:
    raw, length = binary((FLOATS, b"\0" * 8))

    assert "only 7 bytes" in refusal(raw[:-1], length).message
    assert "1 bytes after" in refusal(raw + b"\0", length).message
    assert "it must be 8" in refusal(*binary((FLOATS, b"\0" * 4))).message
    assert "Inference-Header-Content-Length" in refusal(raw[:length]).message


def test_the_elements_of_binary_bytes_and_bools_are_checked() -> None:
    texts = {"name": "x", "datatype": "BYTES", "shape": [2]}

    for raw in (b"\1\0\0\0a", b"\1\0\0\0a" * 3, b"\1\0\0\0a\5\0\0\0a", b"\1\0\0\0a\0\0", b"\xff" * 8):
        assert refusal(*binary((texts, raw))).message.startswith("Input 'x': ")
    assert "at most 1048576" in refusal(*binary(({**texts, "shape": [(1 << 20) + 1]}, b"\0" * 8))).message
    assert "BOOL" in refusal(*binary(({**FLOATS, "datatype": "BOOL"}, b"\1\2"))).message
    empty = parse_infer(*binary((texts, b"\0" * 8)))
    assert empty.inputs[0].data == [b"", b""]


@pytest.mark.parametrize("value", ["", "-1", "1.5", "0x10", "twelve", "1" * 30, "101", "0", "1, 1"])
def test_a_json_length_that_makes_no_sense_is_refused(value: str) -> None:
    with pytest.raises(RequestError) as caught:
        oip_api.parse_json_length(value, 100)

    assert caught.value.param == "Inference-Header-Content-Length"


def test_a_json_length_that_cuts_the_json_is_refused() -> None:
    raw, length = binary((FLOATS, b"\0" * 8))

    assert oip_api.parse_json_length(None, 10) is None
    assert oip_api.parse_json_length(f" {length} ", len(raw)) == length
    assert refusal(raw, length - 1).code == "invalid_json"
    assert refusal(raw, length + 1).code == "invalid_json"


def test_nan_in_json_is_named_by_its_place() -> None:
    assert (
        refusal(b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[0,NaN]}]}').param
        == "inputs[0].data[1]"
    )


def test_outputs_are_binary_as_asked_or_as_the_default_says() -> None:
    wanted = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}]

    request = parse_infer(body(tensor(), outputs=wanted, parameters={"binary_data_output": True}), None)

    assert request.outputs == (RequestedOutput("a", True), RequestedOutput("b", False))
    assert [request.binary(name) for name in ("a", "b", "c")] == [True, False, True]


def test_parameters_of_embed_are_kept_and_refused_by_others() -> None:
    request = parse_infer(body(tensor(), parameters={"truncate_prompt_tokens": -1, "dimensions": 4}), None)

    assert request.parameters == {"truncate_prompt_tokens": -1, "dimensions": 4}
    with pytest.raises(RequestError, match=r"parameters\.truncate_prompt_tokens"):
        request.refuse_parameters()
    parse_infer(body(tensor()), None).refuse_parameters()


def test_only_the_outputs_that_are_asked_for_are_answered() -> None:
    outputs = [OutputTensor("a", "INT8", [1], b"\1"), OutputTensor("b", "INT8", [1], b"\2")]

    raw, _ = oip_api.infer_response(InferRequest((), (RequestedOutput("b", False),)), "m", outputs)

    assert orjson.loads(raw)["outputs"] == [{"name": "b", "datatype": "INT8", "shape": [1], "data": [2]}]
    with pytest.raises(RequestError, match="one of: a, b") as caught:
        oip_api.infer_response(InferRequest((), (RequestedOutput("c", True),)), "m", outputs)
    assert (caught.value.status, caught.value.param) == (400, "outputs[0].name")


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("FP32", struct.pack("<f", math.nan)), ("FP16", b"\0\x7c"), ("BF16", b"\x80\x7f"), ("BYTES", [b"\xff"])],
)
def test_what_json_cannot_hold_is_sent_in_binary_only(datatype: str, data: Any) -> None:
    output = OutputTensor("y", datatype, [1], data)

    oip_api.infer_response(InferRequest((), binary_by_default=True), "m", [output])
    with pytest.raises(RequestError, match=r"Output 'y': .*binary"):
        oip_api.infer_response(InferRequest(()), "m", [output])


def test_bf16_is_widened_for_json() -> None:
    halves = struct.pack("<f", 1.5)[2:] + struct.pack("<f", -2.0)[2:]

    raw, _ = oip_api.infer_response(InferRequest(()), "m", [OutputTensor("y", "BF16", [2], halves)])

    assert orjson.loads(raw)["outputs"][0]["data"] == [1.5, -2.0]


def test_metadata_and_errors_have_the_protocols_shape() -> None:
    facts = [TensorFacts("x", "FP32", [-1, 4])]

    assert orjson.loads(oip_api.metadata("m", "pytorch", facts, facts)) == {
        "name": "m",
        "versions": ["1"],
        "platform": "pytorch",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    }
    assert oip_api.error_body("no") == b'{"error":"no"}'


def test_what_tritonclient_sends_is_read_and_what_is_answered_it_reads() -> None:
    import numpy as np
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    texts = np.array([b"a", b"\xff\xfe", b""], dtype=np.object_)
    inputs = [InferInput("x", [2, 3], "FP32"), InferInput("t", [3], "BYTES"), InferInput("j", [2, 3], "FP32")]
    inputs[0].set_data_from_numpy(values)
    inputs[1].set_data_from_numpy(texts)
    inputs[2].set_data_from_numpy(values, binary_data=False)
    wanted = [InferRequestedOutput("x"), InferRequestedOutput("t"), InferRequestedOutput("j", binary_data=False)]
    raw, length = InferenceServerClient.generate_request_body(inputs, outputs=wanted, request_id="r1")

    request = parse_infer(raw, length)
    outputs = [OutputTensor(one.name, one.datatype, one.shape, as_output(one.data)) for one in request.inputs]
    answer_body, answer_length = oip_api.infer_response(request, "m", outputs)
    answer = InferenceServerClient.parse_response_body(answer_body, header_length=answer_length)

    assert request.id == "r1"
    assert np.array_equal(answer.as_numpy("x"), values)
    assert list(answer.as_numpy("t")) == [b"a", b"\xff\xfe", b""]
    assert np.array_equal(answer.as_numpy("j"), values)


def as_output(data: Any) -> Any:
    if isinstance(data, list) and not isinstance(data[0], bytes):
        return struct.pack(f"<{len(data)}f", *data)
    return data


@pytest.mark.parametrize(
    ("datatype", "number", "fits"),
    [
        ("FP32", b"3.4028235e38", True),
        ("FP32", b"-3.4028235e38", True),
        ("FP32", b"3.4028236e38", False),
        ("FP16", b"65519", True),
        ("FP16", b"-65519.5", True),
        ("FP16", b"65520", False),
        ("UINT8", b"256", False),
        ("INT8", b"-129", False),
    ],
)
def test_a_number_fits_that_is_rounded_to_one_of_the_type(datatype: str, number: bytes, fits: bool) -> None:
    raw = b'{"inputs":[{"name":"x","datatype":"%s","shape":[1],"data":[%s]}]}' % (datatype.encode(), number)
    if fits:
        assert parse_infer(raw, None).inputs[0].data == [float(number)]
    else:
        assert refusal(raw).param == "inputs[0].data[0]"
