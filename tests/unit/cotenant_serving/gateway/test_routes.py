"""Which paths go to engines, what they read from a request, and what it costs on entry."""

import orjson
import pytest

from cotenant_serving.contract_gateway import GatewayModel
from cotenant_serving.gateway import routes
from cotenant_serving.gateway.routes import Incoming, Target, find, oip_target
from cotenant_serving.request_fields import RequestError

TENSOR = {"name": "x", "datatype": "INT8", "shape": [2]}
LENGTH = b"inference-header-content-length"


def wanted(path: str, body: bytes, *headers: tuple[bytes, bytes]) -> routes.Wanted:
    found = find(path)
    assert found is not None
    return found[0].read(Incoming(headers, body, found[1]))


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v2/models/a", Target("a", "", "metadata")),
        ("/v2/models/s/a", Target("s/a", "", "metadata")),
        ("/v2/models/a/infer", Target("a", "", "infer")),
        ("/v2/models/s/a/infer", Target("s/a", "", "infer")),
        ("/v2/models/a/ready", Target("a", "", "ready")),
        ("/v2/models/s/a/versions/1/ready", Target("s/a", "1", "ready")),
        ("/v2/models/a/versions/1", Target("a", "1", "metadata")),
        ("/v2/models/a/versions/1/infer", Target("a", "1", "infer")),
        ("/v2/models/s/a/versions/1/infer", Target("s/a", "1", "infer")),
    ],
)
def test_paths_of_models_name_model_version_and_action(path: str, target: Target) -> None:
    assert oip_target(path) == target


@pytest.mark.parametrize(
    "path",
    ["/v2", "/v2/models", "/v2/models/", "/v2/models//infer", "/v2/models/a/b/c", "/v2/models/a/", "/V2/models/a"],
)
def test_other_paths_name_nothing(path: str) -> None:
    assert oip_target(path) is None
    assert find(path) is None


def test_readiness_is_not_asked_of_an_engine() -> None:
    assert find("/v2/models/a/ready") is None
    assert find("/v2/models/a") == (routes.METADATA, Target("a", "", "metadata"))
    assert find("/v1/embeddings/") is None


def test_pooling_costs_its_body_and_no_completion() -> None:
    body = orjson.dumps({"model": "m", "input": "x" * 400})

    one = wanted("/v1/embeddings", body)

    assert (one.model, one.body, one.stream) == ("m", body, False)
    assert one.tokens == one.prompt_tokens == len(body) // 4


def test_a_query_costs_as_often_as_it_is_paired() -> None:
    body = orjson.dumps({"model": "m", "query": "q" * 400, "documents": ["d"] * 11})

    assert wanted("/v1/rerank", body).tokens == (len(body) + 4000) // 4


def test_generation_costs_its_body_and_what_it_may_generate() -> None:
    body = orjson.dumps({"model": "m", "prompt": "x" * 400, "max_tokens": 7, "stream": True})

    one = wanted("/v1/completions", body)

    assert (one.prompt_tokens, one.tokens, one.stream) == (len(body) // 4, len(body) // 4 + 7, True)


def test_tensors_cost_no_tokens_and_tell_how_to_read_them() -> None:
    json = orjson.dumps({"inputs": [{**TENSOR, "data": [1, 2]}]})
    head = orjson.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 2}}]})

    plain = wanted("/v2/models/s/m/infer", json)
    binary = wanted("/v2/models/s/m/infer", head + b"\1\2", (LENGTH, b" %d" % len(head)))

    assert (plain.model, plain.tokens, plain.headers) == ("s/m", 0, {"content-type": "application/json"})
    assert binary.headers == {"content-type": "application/octet-stream", LENGTH.decode(): str(len(head))}
    assert binary.body == head + b"\1\2"


def test_two_lengths_of_json_are_refused() -> None:
    with pytest.raises(RequestError, match="Inference-Header-Content-Length"):
        wanted("/v2/models/m/infer", b"{}", (LENGTH, b"1"), (LENGTH, b"2"))


def test_metadata_are_asked_for_without_a_body() -> None:
    one = wanted("/v2/models/m", b"ignored")

    assert (one.body, one.tokens, one.headers) == (b"", 0, {})


@pytest.mark.parametrize(
    ("task", "path", "hint"),
    [
        ("embed", "/v1/chat/completions", "Use /v1/embeddings or /v2/models/{model}/infer."),
        ("generate", "/v1/embeddings", "Use /v1/chat/completions or /v1/completions."),
        ("rerank", "/v1/classify", "Use /v1/rerank or /v1/score."),
        ("classify", "/v2/models/m/infer", "Use /v1/classify."),
        ("tensor", "/v1/score", "Use /v2/models/{model}/infer."),
    ],
)
def test_a_model_of_another_task_says_where_it_is_served(task: str, path: str, hint: str) -> None:
    found = find(path)
    assert found is not None

    with pytest.raises(RequestError) as caught:
        routes.check_task(found[0], GatewayModel(name="s/m", task=task))

    assert (caught.value.status, caught.value.code) == (400, "wrong_task")
    assert f"has task {task}" in caught.value.message
    assert caught.value.message.endswith(hint)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v2/models/m/infer"])
def test_no_route_is_wrong_for_a_model_whose_task_nobody_knows(path: str) -> None:
    found = find(path)
    assert found is not None

    routes.check_task(found[0], GatewayModel(name="s/m"))


def test_each_task_has_a_route() -> None:
    served = {task for route in routes.ROUTES for task in route.tasks}

    assert served == {"generate", "echo", "embed", "rerank", "classify", "tensor"}


@pytest.mark.parametrize("version", ["2", "01", "latest"])
def test_only_the_one_version_exists(version: str) -> None:
    Target("m", "1", "infer").check_version()
    Target("m", "", "infer").check_version()
    with pytest.raises(RequestError) as caught:
        Target("m", version, "infer").check_version()

    assert (caught.value.status, caught.value.code) == (404, "model_version_not_found")
