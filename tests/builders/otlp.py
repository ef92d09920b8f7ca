"""A collector of OpenTelemetry spans on loopback: what a user's own would receive, decoded."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.builders.loopback import answering_posts


@dataclass(frozen=True)
class Seen:
    """One span, as it was exported."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: tuple[str, ...]
    error: bool


@dataclass
class Collector:
    spans: list[Seen] = field(default_factory=list)
    url: str = ""

    def wait_for(self, *names: str, timeout_s: float = 30.0) -> dict[str, Seen]:
        """Name → the first span of that name, once all have come."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = {span.name: span for span in reversed(self.spans)}
            if set(names) <= found.keys():
                return found
            time.sleep(0.05)
        raise AssertionError(f"wanted {names}; came: {[span.name for span in self.spans]}")


@contextmanager
def collector() -> Iterator[Collector]:
    made = Collector()

    def answer(path: str, _: Message, body: bytes) -> tuple[str, bytes]:
        assert path == "/v1/traces"
        made.spans.extend(_decode(body))
        return "application/x-protobuf", ExportTraceServiceResponse().SerializeToString()

    with answering_posts(answer) as made.url:
        yield made


def _decode(body: bytes) -> Iterator[Seen]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _attributes(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    service=service,
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    events=tuple(event.name for event in span.events),
                    error=span.status.code == 2,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
