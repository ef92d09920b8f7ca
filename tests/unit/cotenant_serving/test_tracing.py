"""Spans: off by default at no cost, linked by W3C context, and free of anything private."""

import logging
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from cotenant_serving.tracing import NO_SPAN, NO_TRACER, OtelTracer, tracer_from, wants_tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = (b"traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


class Recorded:
    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OtelTracer(provider)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def test_a_request_continues_the_trace_of_its_client(recorded: Recorded) -> None:
    recorded.tracer.request("chat", [PARENT]).end()

    span = recorded.spans()["chat"]
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert span.kind is SpanKind.SERVER


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"traceparent", b"nonsense")],
        [(b"traceparent", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01")],
        [PARENT, PARENT],
        [(b"tracestate", b"a=1")],
        [(b"traceparent", b"\xff\xfe")],
    ],
)
def test_a_request_without_one_valid_context_begins_a_trace(
    recorded: Recorded, headers: list[tuple[bytes, bytes]]
) -> None:
    recorded.tracer.request("chat", headers).end()

    assert recorded.spans()["chat"].parent is None


def test_a_long_trace_state_is_dropped_and_the_trace_goes_on(recorded: Recorded) -> None:
    span = recorded.tracer.request("chat", [PARENT, (b"tracestate", b"a=" + b"1" * 600)])

    assert TRACE in span.context()["traceparent"]
    assert "tracestate" not in span.context()
    span.end()


def test_the_trace_state_travels_on(recorded: Recorded) -> None:
    span = recorded.tracer.request("chat", [PARENT, (b"tracestate", b"vendor=1")])

    assert span.child("engine", outgoing=True).context()["tracestate"] == "vendor=1"


def test_another_program_continues_below_the_step_that_called_it(recorded: Recorded) -> None:
    other = Recorded()
    root = recorded.tracer.request("chat", [])
    step = root.child("engine", outgoing=True)
    headers = [(name.encode(), value.encode()) for name, value in step.context().items()]
    other.tracer.request("generate", headers).end()
    step.end()
    root.end()

    called, caller = other.spans()["generate"], recorded.spans()["engine"]
    assert called.parent is not None
    assert caller.context is not None
    assert called.parent.span_id == caller.context.span_id
    assert caller.kind is SpanKind.CLIENT


def test_a_failed_step_says_its_cause(recorded: Recorded) -> None:
    span = recorded.tracer.request("chat", [])
    span.failed("upstream_error")
    span.end()

    ended = recorded.spans()["chat"]
    assert ended.status.status_code is StatusCode.ERROR
    assert ended.attributes == {"error.type": "upstream_error"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_tracing_is_on_where_an_endpoint_is_named(environ: dict[str, str], wanted: bool) -> None:
    assert wants_tracing(environ) is wanted


def test_without_an_endpoint_spans_do_nothing() -> None:
    assert tracer_from({}, "gateway") is NO_TRACER
    span = NO_TRACER.request("chat", [PARENT])

    assert span is NO_SPAN
    assert span.child("queue") is NO_SPAN
    assert span.context() == {}


def test_a_protocol_that_is_not_spoken_is_named_and_requests_are_served(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "cotenant.tracing"):
        tracer = tracer_from(ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "gateway")

    assert tracer is NO_TRACER
    assert "'grpc' is not spoken" in caplog.text
    assert "http/protobuf" in caplog.text


def test_off_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys; from cotenant_serving.tracing import tracer_from; "
        "tracer_from({}, 'gateway').request('chat', []).child('queue').end(); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"
