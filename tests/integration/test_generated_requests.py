"""Thousands of generated requests to every route: right ones are served, all others refused in their API's shape."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import orjson
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, note, settings
from tests.builders import generated_requests
from tests.builders.gateway import KEYS, FakeEngine, GatewayProcess, Seen
from tests.builders.gateway_calls import post_chat
from tests.builders.gateway_stage import gateway_with_engines
from tests.builders.gateway_watch import Watch
from tests.builders.generated_requests import FIELD, MAX_BODY_BYTES, PROMPT, WRONG_KEY, GeneratedRequest
from tests.builders.refusals import reason_to_refuse
from tests.builders.strict_http import Answer
from tests.builders.sync_client import SyncClient

from cotenant_serving.contract import HEADER_MODEL

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

CASES = 20_000
WARM_UP = 200
OPTIONS = ("--hold-timeout", "0.05", "--body-timeout", "5", "--max-body-bytes", str(MAX_BODY_BYTES))

Stage = tuple[GatewayProcess, dict[str, FakeEngine]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with gateway_with_engines(tmp_path_factory.mktemp("gateway"), *OPTIONS) as found:
        yield found


def send_generated(port: int, cases: int) -> tuple[Counter[int], Counter[bool], set[bytes]]:
    """(how often each status came, how many had to be refused or not, the bodies of those that had not)"""
    client = SyncClient(port)
    statuses: Counter[int] = Counter()
    to_refuse: Counter[bool] = Counter()
    bodies: set[bytes] = set()

    @settings(
        max_examples=cases, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(generated_requests.requests())
    def check(request: GeneratedRequest) -> None:
        note(repr(request))
        reason = reason_to_refuse(request)
        if reason is None:
            bodies.add(request.body)
        to_refuse[reason is not None] += 1
        answer = client.answer(request)
        faults = list(faults_of(request, answer))
        if reason is not None and answer.status < 400:
            faults.append(f"is served, although {reason}")
        assert not faults, (faults, answer)
        statuses[answer.status] += 1

    try:
        check()
    finally:
        client.close()
    return statuses, to_refuse, bodies


def faults_of(request: GeneratedRequest, answer: Answer) -> Iterable[str]:
    if answer.status >= 500 and not (answer.status == 503 and request.may_wait):
        yield "fails"
    if answer.status in (429, 503) and not answer.values(b"retry-after"):
        yield "says not when to come again"
    if answer.status >= 400 and request.method != "HEAD" and not has_shape(request, answer.body):
        yield "has not the shape of the API"
    if any(FIELD.encode() in value for name, value in answer.fields if name != b"x-client-request-id"):
        yield "repeats a field"


def has_shape(request: GeneratedRequest, body: bytes) -> bool:
    """Of OpenAI under /v1, of the Open Inference Protocol under /v2, and one of both elsewhere."""
    problem = orjson.loads(body)["error"]
    if isinstance(problem, str):
        return not request.target.startswith(b"/v1/")
    return problem.keys() == {"message", "type", "param", "code"} and not request.target.startswith(b"/v2/")


def check_what_engines_got(seen: list[Seen], engines: Iterable[str], bodies: set[bytes]) -> None:
    for request in seen:
        assert request.body in bodies
        assert request.headers[HEADER_MODEL] in engines
        assert not any(canary in str(request.headers) for canary in (FIELD, WRONG_KEY, *KEYS.values()))


async def test_every_request_is_answered_in_the_shape_of_its_api_and_leaves_nothing_behind(stage, full_size):
    gateway, engines = stage
    await asyncio.to_thread(send_generated, gateway.port, WARM_UP)
    watch = await Watch.begin(gateway)
    for engine in engines.values():
        engine.requests.clear()

    statuses, to_refuse, bodies = await asyncio.to_thread(send_generated, gateway.port, full_size(CASES))

    assert (await post_chat(gateway))[0] == 200
    await watch.check_at_rest()
    watch.check_log(PROMPT, WRONG_KEY, FIELD, *KEYS.values())
    assert {200, 400, 401, 404, 405, 413, 415, 503} <= statuses.keys(), statuses
    assert statuses[200] > statuses.total() / 5, statuses
    assert min(to_refuse[True], to_refuse[False]) > to_refuse.total() / 5, to_refuse
    for engine in engines.values():
        check_what_engines_got(engine.requests[: -1 if engine.model == "search/echo" else None], engines, bodies)
