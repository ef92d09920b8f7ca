"""Embeddings, rerank, score, classify and the Open Inference Protocol through the gateway, with real clients.

One gateway process and one fake engine per task for the whole file; what each test needs of them it sets itself.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import openai
import orjson
import pytest
import pytest_asyncio
import tritonclient.http
from tests.builders.gateway import (
    KEYS,
    FakeEngine,
    GatewayProcess,
    eventually,
    fail_with,
    hang_up,
    raw_connection,
    refuse,
)
from tests.builders.gateway_calls import error_of, get, request
from tests.builders.gateway_stage import gateway_with_engines
from tritonclient.utils import InferenceServerException

from cotenant_serving import oip_api

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

KEY = {"authorization": f"Bearer {KEYS['search']}"}
LIMITED = {"x-api-key": KEYS["ads"]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": "embed", "input": "a"},
    "/v1/rerank": {"model": "rerank", "query": "q", "documents": ["a"]},
    "/v1/score": {"model": "rerank", "text_1": "a", "text_2": "b"},
    "/v1/classify": {"model": "classify", "input": "a"},
    "/v2/models/tensor/infer": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]},
}


@dataclass
class Stage:
    gateway: GatewayProcess
    engines: dict[str, FakeEngine]

    async def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, dict, Any]:
        """(status, headers, JSON)"""
        raw = body if isinstance(body, bytes) else orjson.dumps(BODIES[path] if body is None else body)
        status, answered, content = await request(
            self.gateway, "POST", path, body=raw, headers=KEY if headers is None else headers
        )
        return status, answered, orjson.loads(content)

    def heard(self) -> int:
        return sum(len(engine.requests) for engine in self.engines.values())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with gateway_with_engines(tmp_path_factory.mktemp("gateway")) as (process, engines):
        yield Stage(process, engines)


@pytest.fixture
def engine(stage: Stage) -> FakeEngine:
    """That of the tensor model, with nothing remembered."""
    engine = stage.engines["search/tensor"]
    engine.requests.clear()
    return engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openai_client(stage: Stage) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key=KEYS["search"], max_retries=0) as made:
        yield made


async def triton(stage: Stage, name: str, *arguments: Any, **options: Any) -> Any:
    """A call of tritonclient, which blocks."""

    def call() -> Any:
        with tritonclient.http.InferenceServerClient(f"127.0.0.1:{stage.gateway.port}") as client:
            return getattr(client, name)(*arguments, **{"headers": dict(KEY), **options})

    return await asyncio.to_thread(call)


def tensor_input(binary: bool = True) -> Any:
    values = np.arange(4, dtype=np.float32)
    return tritonclient.http.InferInput("x", [4], "FP32").set_data_from_numpy(values, binary_data=binary)


@pytest.mark.parametrize("encoding", ["float", "base64", openai.omit])
async def test_openai_python_gets_embeddings(openai_client, encoding):
    answer = await openai_client.embeddings.create(model="embed", input=["a", "b"], encoding_format=encoding)

    wanted = "AAAAPwAAgL4=" if encoding == "base64" else [0.5, -0.25]
    assert [one.embedding for one in answer.data] == [wanted] * 2
    assert answer.usage.prompt_tokens == 3


@pytest.mark.parametrize("path", BODIES)
async def test_each_api_is_answered_and_its_usage_counted(stage, path):
    status, headers, answer = await stage.post(path)

    assert status == 200, answer
    assert headers["x-request-id"].startswith("req-")
    assert not [name for name in headers if name.startswith("x-cotenant")]

    def records() -> list:
        """Lines of requests before this one may still come."""
        return [one for one in stage.gateway.usage() if one["request_id"] == headers["x-request-id"]]

    await eventually(records)
    (record,) = records()
    tokens = 0 if "tensor" in path else 3
    assert (record["prompt_tokens"], record["completion_tokens"], record["outcome"]) == (tokens, 0, "ok")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", ["tensor", "search/tensor"])
async def test_tritonclient_sends_and_gets_tensors(stage, engine, name, binary):
    wanted = [tritonclient.http.InferRequestedOutput("x", binary_data=binary)]

    answer = await triton(stage, "infer", name, [tensor_input(binary)], outputs=wanted, model_version="1")

    assert answer.as_numpy("x").tolist() == ([0, 1, 2, 3] if binary else [0, 0, 0, 0])
    (seen,) = engine.requests
    assert seen.path == f"/v2/models/{name}/versions/1/infer"
    content_type = "application/octet-stream" if binary else "application/json"
    assert seen.headers["content-type"] == content_type
    assert set(seen.headers) - {"inference-header-content-length"} == {
        *("host", "authorization", "content-type", "content-length"),
        *("x-request-id", "x-cotenant-instance", "x-cotenant-model"),
    }


async def test_tritonclient_reads_the_protocols_metadata(stage):
    server = await triton(stage, "get_server_metadata")
    model = await triton(stage, "get_model_metadata", "tensor")

    assert (server["name"], server["extensions"]) == ("cotenant", ["binary_tensor_data"])
    assert (model["name"], model["versions"], model["inputs"][0]["datatype"]) == ("search/tensor", ["1"], "FP32")
    assert await triton(stage, "is_server_live")
    assert await triton(stage, "is_server_ready")


@pytest.mark.parametrize(
    ("model", "ready"),
    [
        *(("tensor", True), ("search/embed", True), ("echo", True), ("cold", True), ("waking", True)),
        *(("waiting", False), ("failed", False), ("unheard", False), ("nobody", False)),
    ],
)
async def test_a_model_is_ready_when_it_answers_or_would_after_a_wake(stage, model, ready):
    assert await triton(stage, "is_model_ready", model) is ready


async def test_readiness_says_why_not_in_the_protocols_shape(stage):
    status, headers, body = await get(stage.gateway, "/v2/models/search/waiting/ready", **KEY)
    assert (status, headers["retry-after"]) == (503, "5")
    assert orjson.loads(body)["ready"] is False
    assert "NoRoom" in orjson.loads(body)["error"]
    for path, wanted in (("search/nobody/ready", 404), ("tensor/versions/2/ready", 404), ("a/b/c/ready", 404)):
        status, _, body = await get(stage.gateway, f"/v2/models/{path}", **KEY)
        assert status == wanted
        assert isinstance(orjson.loads(body)["error"], str)
    assert (await get(stage.gateway, "/v2/models/tensor/ready"))[0] == 401


async def test_metadata_cost_one_request_of_the_limits_and_no_tokens(stage):
    first = await get(stage.gateway, "/v2/models/tensor", **LIMITED)
    await get(stage.gateway, "/v2/models/tensor", **LIMITED)
    third = await get(stage.gateway, "/v2/models/tensor", **LIMITED)

    assert first[0] == 200
    assert first[1]["x-ratelimit-remaining-requests"] == "1"
    assert first[1]["x-ratelimit-remaining-tokens"] == "1000"
    assert third[0] == 429
    assert isinstance(orjson.loads(third[2])["error"], str)
    assert 1 <= int(third[1]["retry-after"]) <= 120
    assert third[1]["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        ("/v1/embeddings", {"input": ["a", ""]}, "input[1]"),
        ("/v1/embeddings", {"dimensions": 0}, "dimensions"),
        ("/v1/embeddings", {"colour": "red"}, "colour"),
        ("/v1/rerank", {"documents": []}, "documents"),
        ("/v1/score", {"text_2": [1]}, "text_2[0]"),
        ("/v1/classify", {"input": [[1], [-1]]}, "input[1][0]"),
        ("/v1/classify", {"model": None}, "model"),
    ],
)
async def test_bad_bodies_name_the_field_in_openais_shape_before_any_engine(stage, path, change, field):
    before = stage.heard()

    status, headers, answer = await stage.post(path, {**BODIES[path], **change})

    assert (status, answer["error"]["param"]) == (400, field)
    assert f"'{field}'" in answer["error"]["message"]
    assert headers["x-request-id"].startswith("req-")
    assert stage.heard() == before


@pytest.mark.parametrize(
    ("body", "length", "words"),
    [
        (b"{", None, "not valid JSON"),
        (b'{"inputs":[{"name":"x","data":[NaN]}]}', None, "inputs[0].data[0]"),
        (b'{"inputs":[]}', None, "'inputs'"),
        (b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1]}]}', None, "Input 'x': 'inputs[0].data'"),
        (b'{"inputs":[{"name":"x","datatype":"FP8","shape":[1],"data":[1]}]}', None, "inputs[0].datatype"),
        (b"{}", "twelve", "Inference-Header-Content-Length"),
        (b"{}", "3", "Inference-Header-Content-Length"),
        (b"{}", "-1", "Inference-Header-Content-Length"),
        (b'{"inputs":[],"parameters":{"sequence_id":1}}', None, "sequence_id' = 1 is not supported"),
    ],
)
async def test_bad_tensors_name_input_and_field_in_the_protocols_shape(stage, engine, body, length, words):
    headers = KEY | ({} if length is None else {"inference-header-content-length": length})

    status, _, answer = await stage.post("/v2/models/tensor/infer", body, headers)

    assert status == 400
    assert set(answer) == {"error"}
    assert words in answer["error"]
    assert not engine.requests


@pytest.mark.parametrize("cut", [-1, 1])
async def test_binary_data_cut_or_continued_are_refused(stage, engine, cut):
    head = orjson.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}]}
    )
    raw = head + struct.pack("<2f", 1, 2)
    headers = {**KEY, "inference-header-content-length": str(len(head))}

    status, _, answer = await stage.post("/v2/models/tensor/infer", raw[:cut] if cut < 0 else raw + b"x", headers)

    assert status == 400
    assert "bytes" in answer["error"]
    assert not engine.requests


@pytest.mark.parametrize("path", [*BODIES, "/v1/chat/completions"])
async def test_a_model_of_another_task_says_which_routes_serve_it(stage, path):
    before = stage.heard()
    body = {
        "model": "echo" if path != "/v1/chat/completions" else "embed",
        "messages": [{"role": "user", "content": "a"}],
    }
    if path == "/v2/models/tensor/infer":
        status, _, answer = await stage.post("/v2/models/echo/infer", BODIES[path])
    else:
        status, _, answer = await stage.post(path, {**BODIES.get(path, body), "model": body["model"]})

    assert status == 400
    message = answer["error"] if path.startswith("/v2") else answer["error"]["message"]
    assert ("has task embed" if path == "/v1/chat/completions" else "has task echo") in message
    assert ("/v1/embeddings" if path == "/v1/chat/completions" else "/v1/chat/completions") in message
    assert stage.heard() == before


@pytest.mark.parametrize("path", ["/v2/models/tensor/infer", "/v2/models/tensor", "/v2/models/tensor/ready"])
@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}, {**KEY, **LIMITED}]
)
async def test_keys_are_asked_for_in_the_protocols_shape(stage, engine, path, headers):
    method = "POST" if path.endswith("infer") else "GET"

    status, answered, body = await request(stage.gateway, method, path, headers=headers)

    assert status == 401
    assert isinstance(orjson.loads(body)["error"], str)
    assert answered["x-request-id"].startswith("req-")
    assert not engine.requests


async def test_errors_of_the_gateway_under_v2_have_the_protocols_shape(stage):
    calls = [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/tensor/infer", 405),
        ("POST", "/v2/models/tensor", 405),
        ("DELETE", "/v2/health/live", 405),
        ("POST", "/v2/models/tensor/ready", 405),
        ("POST", "/v2/models/nobody/infer", 404),
        ("POST", "/v2/models/tensor/versions/7/infer", 404),
        ("POST", "/v2/models/failed/infer", 503),
    ]
    for method, path, wanted in calls:
        body = orjson.dumps(BODIES["/v2/models/tensor/infer"]) if method == "POST" else None
        status, headers, answer = await request(stage.gateway, method, path, body=body, headers=KEY)
        assert (path, status) == (path, wanted)
        assert isinstance(orjson.loads(answer)["error"], str)
        assert headers["content-type"] == "application/json"
        assert headers["x-request-id"].startswith("req-")
        assert ("allow" in headers) == (wanted == 405)
        assert ("retry-after" in headers) == (wanted == 503)
    with pytest.raises(InferenceServerException, match="does not exist or is not visible"):
        await triton(stage, "infer", "nobody", [tensor_input()])


async def test_json_and_binary_bodies_have_their_own_bounds(stage):
    head = f"POST /v2/models/tensor/infer HTTP/1.1\r\nhost: x\r\nx-api-key: {KEYS['search']}\r\n"
    announced = "inference-header-content-length: 100\r\n"
    cases = [
        (f"content-length: {(4 << 20) + 1}\r\n", b" 413 "),
        (f"{announced}content-length: {(32 << 20) + 1}\r\n", b" 413 "),
        (f"inference-header-content-length: {(4 << 20) + 1}\r\ncontent-length: {8 << 20}\r\n", b" 413 "),
    ]
    for headers, status in cases:
        async with raw_connection(stage.gateway.port) as (reader, writer):
            writer.write((head + headers + "\r\n").encode())
            answer = await asyncio.wait_for(reader.read(), 20)
        assert status in answer.splitlines()[0]
        assert b'{"error":"The body has' in answer


async def test_a_binary_tensor_of_8_mib_comes_through(stage, engine):
    values = np.ones(2 << 20, dtype=np.float32)
    given = tritonclient.http.InferInput("x", [2 << 20], "FP32").set_data_from_numpy(values)

    answer = await triton(stage, "infer", "tensor", [given])

    assert np.array_equal(answer.as_numpy("x"), values)


@pytest.mark.parametrize("script", [refuse(503, "busy"), refuse(503, "loading"), fail_with(500), hang_up])
@pytest.mark.parametrize("path", ["/v2/models/tensor/infer", "/v2/models/tensor"])
async def test_tensors_and_metadata_are_tried_again_as_everything_is(stage, engine, script, path):
    engine.scripts.append(script)

    method, body = ("GET", None) if path == "/v2/models/tensor" else ("POST", orjson.dumps(BODIES[path]))
    status, _, _ = await request(stage.gateway, method, path, body=body, headers=KEY)

    assert status == 200
    assert len(engine.requests) == 2


async def test_what_an_engine_says_about_its_failure_reaches_the_client(stage, engine):
    broken = fail_with(500, oip_api.error_body("the forward pass failed"))
    engine.scripts.extend([broken, broken])

    status, _, answer = await stage.post("/v2/models/tensor/infer")

    assert (status, answer) == (500, {"error": "the forward pass failed"})


async def test_an_engines_refusal_is_passed_on_as_it_is(stage, engine):
    async def refuse_shape(_, wire):
        await wire.answer(400, oip_api.error_body("Input 'x': no such input."))

    engine.scripts.append(refuse_shape)

    with pytest.raises(InferenceServerException, match="no such input"):
        await triton(stage, "infer", "tensor", [tensor_input()])
    assert len(engine.requests) == 1


async def test_every_answer_of_the_apis_has_a_request_id_and_echoes_the_clients(stage):
    for path in (
        "/v1/models",
        "/v1/models/nobody",
        "/v1/nothing",
        "/v2",
        "/v2/health/live",
        "/v2/models/tensor/ready",
    ):
        _, headers, _ = await get(stage.gateway, path, **KEY, **{"x-request-id": "mine-1"})
        assert headers["x-request-id"].startswith("req-")
        assert headers["x-client-request-id"] == "mine-1"
    assert "x-request-id" not in (await get(stage.gateway, "/healthz"))[1]
    assert error_of((await get(stage.gateway, "/v1/nothing", **KEY))[2])["code"] == "unknown_route"
