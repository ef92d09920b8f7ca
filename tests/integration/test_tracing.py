"""One request as spans of two real programs, gateway and engine, in a collector on loopback."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from tests.builders.engine import RunningEngine, echo_args, fake_conductor, running_engine
from tests.builders.gateway import KEYS, FakeConductor, GatewayProcess, config, eventually, model_row, row
from tests.builders.otlp import Collector, collector

pytestmark = pytest.mark.integration

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
SECRET_TEXT = "canary-prompt-of-a-tenant"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as made:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield made


@pytest.fixture
def engine(spans: Collector, tmp_path: Path) -> Iterator[RunningEngine]:
    with fake_conductor() as own, running_engine(echo_args(model="search/echo"), tmp_path / "engine", own) as started:
        yield started


async def serve(gateway: GatewayProcess, conductor: FakeConductor, engine: RunningEngine) -> None:
    beat = engine.beat
    conductor.publish(row(beat.instance, port=beat.port), models=(model_row(),))
    gateway.write_config(config(conductors=(conductor.url,)))
    await gateway.start()


async def test_a_clients_trace_goes_on_through_gateway_queue_and_engine_to_the_first_token(
    gateway: GatewayProcess,
    conductor: FakeConductor,
    client: openai.AsyncOpenAI,
    engine: RunningEngine,
    spans: Collector,
) -> None:
    await serve(gateway, conductor, engine)
    stream = await client.with_options(base_url=gateway.url + "/v1").chat.completions.create(
        model="echo",
        stream=True,
        messages=[{"role": "user", "content": f"one two {SECRET_TEXT}"}],
        extra_headers=HEADERS,
    )
    assert [chunk async for chunk in stream]
    found = spans.wait_for("POST /v1/chat/completions", "queue", "engine", "answer", "first token")

    request, queue, attempt = found["POST /v1/chat/completions"], found["queue"], found["engine"]
    answer, first = found["answer"], found["first token"]
    assert {span.trace_id for span in found.values()} == {TRACE}
    assert request.parent_id == CALLER
    assert (queue.parent_id, attempt.parent_id) == (request.span_id, request.span_id)
    assert answer.parent_id == attempt.span_id
    assert first.parent_id == answer.span_id
    assert (request.service, answer.service) == ("cotenant-gateway", "cotenant-engine")
    assert queue.end_ns <= attempt.start_ns <= answer.start_ns <= first.end_ns <= answer.end_ns
    assert request.attributes["cotenant.tenant"] == "search"
    assert request.attributes["gen_ai.usage.output_tokens"] == 4
    assert request.attributes["http.response.status_code"] == 200
    assert not any(span.error for span in spans.spans)
    everything = repr(spans.spans)
    assert SECRET_TEXT not in everything
    assert KEYS["search"] not in everything


async def test_a_refused_request_is_a_failed_span_with_its_code(
    gateway: GatewayProcess, conductor: FakeConductor, engine: RunningEngine, spans: Collector
) -> None:
    await serve(gateway, conductor, engine)
    body = msgspec.json.encode({"model": "nothing", "messages": [{"role": "user", "content": "hi"}]})
    status = post(gateway, body, {"authorization": f"Bearer {KEYS['search']}"})
    await eventually(lambda: spans.spans)

    (refused,) = spans.spans
    assert status == 404
    assert refused.error
    assert refused.attributes["error.type"] == "model_not_found"


def post(gateway: GatewayProcess, body: bytes, headers: dict[str, Any]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    try:
        connection.request("POST", "/v1/chat/completions", body, headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()
