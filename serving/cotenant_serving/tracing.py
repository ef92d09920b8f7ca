"""Spans of one request: client → gateway → queue → engine → first token, by OpenTelemetry, W3C context in and out.

Off unless an OTLP endpoint is named in the environment, as every OpenTelemetry program reads it
(`OTEL_EXPORTER_OTLP_ENDPOINT`). Off, nothing of OpenTelemetry is imported, and a span is one object that does
nothing. Spans hold names, counts and times: no prompt, no answer, no key.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from cotenant_serving.contract import HEADER_TRACE, HEADER_TRACE_STATE

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger("cotenant.tracing")

Value = str | int | float | bool
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOL = "http/protobuf"
MAX_STATE_BYTES = 512
"""W3C asks for at least so much of `tracestate` to be passed on; more is dropped."""
FLUSH_MS = 2000
"""How long the end of a program may wait for the collector to take the last spans."""


class Span(Protocol):
    """One step of a request. `end` it exactly once; as a context manager it ends itself."""

    def child(self, name: str, *, outgoing: bool = False) -> "Span":
        """A step of this one, beginning now. `outgoing`: another program does it (kind CLIENT)."""

    def note(self, attributes: Mapping[str, Value]) -> None: ...

    def event(self, name: str) -> None:
        """Something that happened now."""

    def failed(self, cause: str) -> None:
        """Marks the step as an error; `cause` is a code or an outcome, never text of a client."""

    def context(self) -> Mapping[str, str]:
        """Headers that make this span the parent of what another program does; empty when tracing is off."""

    def end(self) -> None: ...

    def __enter__(self) -> "Span": ...

    def __exit__(self, *problem: object) -> None: ...


class Tracer(Protocol):
    """Where spans begin; one per process."""

    def request(self, name: str, headers: Iterable[tuple[bytes, bytes]]) -> Span:
        """The span of a request that came in. `headers` are ASGI's; a valid `traceparent` in them is the parent."""

    def close(self) -> None:
        """Sends what is left, for FLUSH_MS at most. Blocks."""


class _NoSpan:
    """Tracing is off."""

    def child(self, name: str, *, outgoing: bool = False) -> "_NoSpan":
        del name, outgoing
        return self

    def note(self, attributes: Mapping[str, Value]) -> None: ...

    def event(self, name: str) -> None: ...

    def failed(self, cause: str) -> None: ...

    def context(self) -> Mapping[str, str]:
        return {}

    def end(self) -> None: ...

    def __enter__(self) -> "_NoSpan":
        return self

    def __exit__(self, *problem: object) -> None: ...


class _NoTracer:
    def request(self, name: str, headers: Iterable[tuple[bytes, bytes]]) -> Span:
        del name, headers
        return NO_SPAN

    def close(self) -> None: ...


NO_SPAN: Span = _NoSpan()
NO_TRACER: Tracer = _NoTracer()


class OtelSpan:
    """`Span` over OpenTelemetry's."""

    def __init__(self, tracer: "trace.Tracer", span: "trace.Span") -> None:
        self._tracer = tracer
        self._span = span

    def child(self, name: str, *, outgoing: bool = False) -> "OtelSpan":
        from opentelemetry import trace

        kind = trace.SpanKind.CLIENT if outgoing else trace.SpanKind.INTERNAL
        return OtelSpan(self._tracer, self._tracer.start_span(name, self._as_context(), kind))

    def note(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes(attributes)

    def event(self, name: str) -> None:
        self._span.add_event(name)

    def failed(self, cause: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, cause))
        self._span.set_attribute("error.type", cause)

    def context(self) -> Mapping[str, str]:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers, self._as_context())
        return headers

    def end(self) -> None:
        self._span.end()

    def __enter__(self) -> "OtelSpan":
        return self

    def __exit__(self, *problem: object) -> None:
        self._span.end()

    def _as_context(self) -> "Context":
        from opentelemetry import trace

        return trace.set_span_in_context(self._span)


class OtelTracer:
    """`Tracer` over a provider of its own: nothing global is set, so that it mixes with no other library's spans."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("cotenant")

    def request(self, name: str, headers: Iterable[tuple[bytes, bytes]]) -> OtelSpan:
        from opentelemetry import trace

        span = self._tracer.start_span(name, parent_context(headers), trace.SpanKind.SERVER)
        return OtelSpan(self._tracer, span)

    def close(self) -> None:
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()


def parent_context(headers: Iterable[tuple[bytes, bytes]]) -> "Context":
    """What `traceparent` and `tracestate` say; an empty context when they are absent, repeated or not valid."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    wanted = {name.encode(): name for name in (HEADER_TRACE, HEADER_TRACE_STATE)}
    found = [(wanted[name], value.decode("latin-1")) for name, value in headers if name in wanted]
    carrier = dict(found)
    if len(carrier) != len(found) or len(carrier.get(HEADER_TRACE_STATE, "")) > MAX_STATE_BYTES:
        carrier.pop(HEADER_TRACE_STATE, None)
    if sum(name == HEADER_TRACE for name, _ in found) != 1:
        return Context()
    return TraceContextTextMapPropagator().extract(carrier, Context())


def tracer_from(environ: Mapping[str, str], program: str) -> Tracer:
    """The tracer that the environment asks for: NO_TRACER unless it names an OTLP endpoint. Never raises.

    `program` is `gateway` or `engine`: the service is `cotenant-<program>` unless OTEL_SERVICE_NAME names another.
    """
    if not wants_tracing(environ):
        return NO_TRACER
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", PROTOCOL):
        log.error(
            "OTLP protocol %r is not spoken, so there are no traces. Set %s, and its endpoint", protocol, PROTOCOL
        )
        return NO_TRACER
    try:
        return OtelTracer(_provider(environ, program))
    except ImportError as missing:
        log.error(
            "an OTLP endpoint is set and %s is not installed, so there are no traces. "
            "Run: pip install 'cotenant[tracing]'",
            missing.name,
        )
    except Exception as problem:  # a mistake in a variable must not keep requests from being served
        log.error("there are no traces: %s: %s. Correct the OTEL_ variables", type(problem).__name__, problem)
    return NO_TRACER


def wants_tracing(environ: Mapping[str, str]) -> bool:
    """Pure. An endpoint is named, and neither OTEL_SDK_DISABLED nor OTEL_TRACES_EXPORTER=none takes it back."""
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    return any(environ.get(name) for name in ENDPOINTS) and not disabled and exporter == "otlp"


def _provider(environ: Mapping[str, str], program: str) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    service = environ.get("OTEL_SERVICE_NAME") or f"cotenant-{program}"
    resource = Resource.create({"service.name": service, "cotenant.program": program})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
