"""What engines of each task answer, made with the shared builders: for gateways between fakes."""

from array import array
from collections.abc import Callable
from typing import Any

import orjson

from cotenant_serving import contract, oip_api, pooling_api
from tests.builders.gateway import say_hello
from tests.builders.gateway_http import Seen, Wire

ID, CREATED, TOKENS = "req-1", 1_700_000_000, 3
USAGE = {contract.HEADER_USAGE: f'{{"prompt_tokens":{TOKENS},"completion_tokens":0}}'}
FACTS = [oip_api.TensorFacts("x", "FP32", [-1])]


async def answer_any_task(seen: Seen, wire: Wire) -> None:
    """The usual answer of whatever route is called."""
    if seen.path in _POOLING:
        await wire.answer(200, _POOLING[seen.path](seen.body), USAGE)
    elif seen.path.endswith("/infer"):
        await _echo_tensors(seen, wire)
    elif seen.path.startswith("/v2/"):
        await wire.answer(200, oip_api.metadata(seen.headers[contract.HEADER_MODEL], "fake", FACTS, FACTS))
    elif seen.path == "/v1/completions" and not orjson.loads(seen.body).get("stream"):
        await wire.answer(200, orjson.dumps({**_COMPLETION, "model": orjson.loads(seen.body)["model"]}), USAGE)
    else:
        await say_hello(seen, wire)


_COMPLETION = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": CREATED,
    "choices": [{"index": 0, "text": "hello", "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": TOKENS, "completion_tokens": 0, "total_tokens": TOKENS},
}


async def _echo_tensors(seen: Seen, wire: Wire) -> None:
    """Every input comes back as an output of zeros of the same shape."""
    given = seen.headers.get(contract.HEADER_JSON_LENGTH)
    request = oip_api.parse_infer(seen.body, oip_api.parse_json_length(given, len(seen.body)))
    outputs = [_zeros(tensor) for tensor in request.inputs]
    try:
        body, length = oip_api.infer_response(request, seen.headers[contract.HEADER_MODEL], outputs)
    except oip_api.RequestError as problem:
        await wire.answer(problem.status, oip_api.error_body(problem.message))
        return
    headers = {} if length is None else {contract.HEADER_JSON_LENGTH: str(length)}
    content_type = "application/json" if length is None else "application/octet-stream"
    await wire.answer(200, body, {**headers, "content-type": content_type})


def _zeros(tensor: oip_api.InferTensor) -> oip_api.OutputTensor:
    if isinstance(tensor.data, memoryview):
        return oip_api.OutputTensor(tensor.name, tensor.datatype, tensor.shape, tensor.data)
    if tensor.datatype == "BYTES":
        return oip_api.OutputTensor(tensor.name, "BYTES", tensor.shape, tensor.data)
    size = oip_api.DATATYPES[tensor.datatype].size
    return oip_api.OutputTensor(tensor.name, tensor.datatype, tensor.shape, bytes(size * len(tensor.data)))


def _embed(body: bytes) -> bytes:
    request = pooling_api.parse_embeddings(body)
    vectors = [array("f", [0.5, -0.25][: request.dimensions]) for _ in request.inputs]
    return pooling_api.embeddings_answer(request, vectors, TOKENS)


def _rerank(body: bytes) -> bytes:
    request = pooling_api.parse_rerank(body)
    scores = [1 / (1 + index) for index in range(len(request.documents))]
    return pooling_api.rerank_answer(request, scores, TOKENS, ID)


def _score(body: bytes) -> bytes:
    request = pooling_api.parse_score(body)
    return pooling_api.score_answer(request, [0.5] * len(request.pairs), TOKENS, ID, CREATED)


def _classify(body: bytes) -> bytes:
    request = pooling_api.parse_classify(body)
    classes: list[Any] = [("good", [0.75, 0.25])] * len(request.inputs)
    return pooling_api.classify_answer(request, classes, TOKENS, ID, CREATED)


_POOLING: dict[str, Callable[[bytes], bytes]] = {
    "/v1/embeddings": _embed,
    "/v1/rerank": _rerank,
    "/v1/score": _score,
    "/v1/classify": _classify,
}
