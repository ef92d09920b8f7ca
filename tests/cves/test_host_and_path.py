"""Whoever calls is judged at the route itself: no Host, target or header leads past it, and no other route exists."""

import random
from collections.abc import Callable, Iterator

import orjson
import pytest
from tests.builders.gateway import chat
from tests.builders.raw_http import answers, answers_to_all, message, statuses
from tests.cves.conftest import AUTHORIZED, Stage

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

BODIES = {
    b"/v1/chat/completions": chat(),
    b"/v1/completions": b'{"model": "search/echo", "prompt": "a"}',
    b"/v1/embeddings": b'{"model": "search/embed", "input": "a"}',
    b"/v1/rerank": b'{"model": "search/rerank", "query": "q", "documents": ["a"]}',
    b"/v1/score": b'{"model": "search/rerank", "text_1": "a", "text_2": "b"}',
    b"/v1/classify": b'{"model": "search/classify", "input": "a"}',
    b"/v2/models/search/tensor/infer": b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}',
}
ROUTES = [
    *BODIES,
    b"/v1/models",
    b"/v1/models/search/echo",
    b"/v2/models/search/tensor",
    b"/v2/models/search/echo/ready",
]
"""Every route that needs a key. Those without a body are GET."""
HOSTS = [
    *(b"x", b"localhost", b"x/healthz", b"x/healthz?", b"x/healthz#", b"x/docs/..", b"/healthz", b"x\\healthz"),
    *(b"x@y", b"@", b"x:80/healthz?", b"[::1]/healthz", b"x?/metrics", b"x#", b"", b"..", b"%2fhealthz"),
    *(b"x\thealthz", b"x, y", b"\xff\xfe", b"127.0.0.1:8080", b"x%00/healthz", b"metrics", b"x;/healthz", None),
]
TARGETS = [
    *(b"%b", b"/%b", b"//%b", b"/healthz/..%b", b"/healthz/../..%b", b"/%%2e%%2e%b", b"/healthz%%2f..%b"),
    *(b"/docs/..;%b", b"/metrics;%b", b"http://x%b", b"http://x/healthz/..%b", b"https://healthz%b", b"%b/", b"%b//"),
    *(b"%b/.", b"%b;/healthz", b"%b%%00", b"%b?/healthz", b"%b#/healthz", b"%b%%3f/healthz", b"%b?api_key=x"),
    *(b"%b/..%%2fhealthz", b"/healthz%%00%b", b"/healthz%%0d%%0a%b"),
]


def request(route: bytes, target: bytes, *lines: bytes, host: bytes | None = b"x") -> bytes:
    body = BODIES.get(route, b"")
    return message(b"POST" if body else b"GET", target, *lines, body=body, host=host)


async def test_badhost_500_shapes_of_host_and_path_open_no_route_without_a_key(
    stage: Stage, full_size: Callable[[int], int]
) -> None:
    """CVE-2026-48710 (Starlette's BadHost): the path was read out of a URL that the Host header had a part in, so
    that `Host: x/healthz?` passed for an open page.

    In full every host with every target on every route, some 6,000 cases. Breaks when a route is judged by anything
    but the path that it is found by.
    """
    shapes = [(route, target % route, host) for route in ROUTES for target in TARGETS for host in HOSTS]
    chosen = random.Random(48710).sample(shapes, full_size(len(shapes)))
    answered = await answers_to_all(stage.port, (request(route, target, host=host) for route, target, host in chosen))
    opened = [shape for shape, raw in zip(chosen, answered, strict=True) if any(s < 300 for s in statuses(raw))]
    broken = [shape for shape, raw in zip(chosen, answered, strict=True) if any(s >= 500 for s in statuses(raw))]
    assert (opened, broken, stage.heard()) == ([], [], [])
    assert {400, 401} <= {s for raw in answered for s in statuses(raw)}  # no request at all, and one without a key


async def test_with_a_key_those_routes_answer(stage: Stage) -> None:
    """What the test before refuses is refused for want of a key alone."""
    answered = await answers_to_all(stage.port, (request(route, route, AUTHORIZED) for route in ROUTES))
    assert [statuses(raw) for raw in answered] == [[200]] * len(ROUTES)
    assert len(stage.heard()) == len(BODIES) + 1  # and the metadata, which an engine answers too


@pytest.mark.parametrize("host", [b"x/healthz?", b"x/v1/models?", b"evil.example"])
async def test_with_a_key_the_host_changes_nothing_of_an_answer(stage: Stage, host: bytes) -> None:
    """CVE-2026-48710: the same request, two answers by its Host header."""
    answered = [
        await answers(stage.port, request(b"", b"/v1/models", AUTHORIZED, host=each)) for each in (b"x", host)
    ]
    plain, other = (raw.partition(b"\r\n\r\n")[2] for raw in answered)
    assert statuses(answered[0]) == [200]
    assert plain == other if host == b"evil.example" else statuses(answered[1]) == [400]
    assert host not in other


PROXY_HEADERS = (
    *(b"x-original-url", b"x-rewrite-url", b"x-forwarded-path", b"x-forwarded-uri", b"x-forwarded-prefix"),
    *(b"x-override-url", b"x-http-method-override", b"x-original-host", b"x-forwarded-host", b"forwarded", b"via"),
    *(b"x-envoy-original-path", b"x-accel-redirect", b"x-script-name", b"script_name", b"path_info", b"x-host"),
)


async def test_headers_of_proxies_move_no_request_to_an_open_route(stage: Stage) -> None:
    """CVE-2026-49468 (LiteLLM before 1.84.0): path and host as a proxy's headers have them went into the decision
    whether a key is needed."""
    values = (b"/healthz", b"http://x/healthz", b"GET", b"for=127.0.0.1;host=healthz")
    requests = [
        request(route, route, name + b": " + value) for route in ROUTES for name in PROXY_HEADERS for value in values
    ]
    chosen = random.Random(49468).sample(requests, 200)
    answered = await answers_to_all(stage.port, chosen)
    assert {tuple(statuses(raw)) for raw in answered} == {(401,)}
    assert stage.heard() == []


async def test_a_route_outside_v1_is_no_less_guarded(stage: Stage) -> None:
    """CVE-2026-48746 (vLLM 0.3.0 to 0.21): the key was asked for by a prefix of the path, so that other routes, and
    other spellings of the same ones, answered anybody."""
    spellings = (
        b"/V1/models",
        b"/v1//models",
        b"/./v1/models",
        b"/v1/./models",
        b"/x/../v1/models",
        b"/%76%31/models",
    )
    oip = (b"/v2/models/search/tensor", b"/V2/models/search/tensor", b"/v2//models/search/tensor", b"//v2/models/x")
    answered = await answers_to_all(stage.port, (message(b"GET", target) for target in (*spellings, *oip)))
    assert {status for raw in answered for status in statuses(raw)} <= {400, 401, 404}
    assert stage.heard() == []


@pytest.mark.parametrize(
    "target", [b"@healthz", b"@x/healthz", b"@evil.com", b"x@y/v1/models", b"healthz", b"*", b""]
)
async def test_a_target_that_begins_with_no_slash_is_no_path(stage: Stage, target: bytes) -> None:
    """PYSEC-2026-248 (Starlette before 1.3.0): the target `@evil.com` became the host of the URL that was built for
    the request, and its path empty."""
    for lines in ((), (AUTHORIZED,)):
        answered = await answers(stage.port, message(b"GET", target, *lines))
        assert statuses(answered) in ([400], [404])
        assert b"evil.com" not in answered.lower()


_PATHS = """
/invocations /pooling /score /rerank /tokenize /detokenize /pause /resume /is_paused /update_weights /collective_rpc
/init_weight_transfer_engine /sleep /wake_up /is_sleeping /reset_prefix_cache /reset_mm_cache /server_info /load /ping
/version /start_profile /stop_profile /abort_requests /scale_elastic_ep /flush_cache /update_weights_from_disk
/get_server_info /generate /encode /classify /release_memory_occupation /open_session /set_internal_state
/v1/load_lora_adapter /v1/unload_lora_adapter /v1/files /v1/batches /v1/responses /v1/audio/transcriptions
/v1/images/generations /v1/messages /v1/fine_tuning/jobs /v2/repository/index /v2/repository/models/x/load
/v2/systemsharedmemory/region/x/register /v2/cudasharedmemory/status /v2/logging /v2/trace/setting /models/x
/config/update /user/update /user/new /key/generate /key/update /key/info /team/new /model/new /spend/logs
/mcp-rest/test/connection /mcp-rest/test/tools/list /sso/callback /health/liveliness /routes /api/jobs/ /api/version
/api/serve/applications/ /api/cluster_status /state /v1/requests/x /v1/table /v1/desired /v1/status /v1/heartbeat
/v1/demand /debug/pprof /actuator/env /.env /admin /static/../../etc/passwd /graphql /favicon.ico /redoc
"""
OF_OTHER_SERVERS = _PATHS.split()
"""Of vLLM, SGLang, Triton, TorchServe, LiteLLM and Ray; and of our own engines and conductor, which are not for
clients."""


def probes() -> Iterator[bytes]:
    for path in OF_OTHER_SERVERS:
        for method in (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE"):
            body = b"" if method in (b"GET", b"DELETE") else b'{"method": "shutdown", "model": "search/echo"}'
            yield message(method, path.encode(), AUTHORIZED, body=body)


async def test_no_route_of_an_engine_reaches_it_but_those_of_the_api(stage: Stage) -> None:
    """Unprotected routes of engines (vLLM's --api-key guards /v1 only: /invocations, /pause, /update_weights and, in
    its development mode, /collective_rpc are open): not one is passed on, with a good key either."""
    requests = list(probes())
    answered = await answers_to_all(stage.port, requests)
    wrong = [
        (data.split(b" HTTP")[0], statuses(raw))
        for data, raw in zip(requests, answered, strict=True)
        if statuses(raw) not in ([400], [404], [405])
    ]
    assert (wrong, stage.heard()) == ([], [])


async def test_no_route_changes_what_a_tenant_may(stage: Stage) -> None:
    """CVE-2026-35029 (/config/update open to any user), CVE-2026-47102 (/user/update sets the caller's own role),
    CVE-2025-0628 (a viewer's key works for administration): there is nothing of the kind to call."""
    before = stage.gateway.config_file.read_bytes()
    raw = await answers(stage.port, message(b"GET", b"/openapi.json"))
    paths = orjson.loads(raw.partition(b"\r\n\r\n")[2])["paths"]
    open_pages = {
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
    }
    changing = {path for path, methods in paths.items() if set(methods) & {"put", "patch", "delete"}}
    posts = {path for path, methods in paths.items() if "post" in methods}
    assert changing == set()
    assert {path.replace("{model}", "search/tensor").encode() for path in posts} >= set(BODIES)
    assert all(path.startswith(("/v1/", "/v2/models/")) for path in set(paths) - open_pages)
    body = orjson.dumps({"limits": {}, "role": "admin", "models": ["ads/echo"], "key": "x" * 40})
    for path in (
        b"/config/update",
        b"/user/update",
        b"/v1/tenants",
        b"/v1/keys",
        b"/v1/models",
        b"/v1/models/ads/echo",
    ):
        for method in (b"POST", b"PUT", b"PATCH"):
            answered = await answers(stage.port, message(method, path, AUTHORIZED, body=body))
            assert statuses(answered)[0] in (404, 405), path
    assert stage.gateway.config_file.read_bytes() == before
