"""The end of a request: limits settled, one usage record written, metrics counted."""

import logging
import time
from typing import Protocol

import msgspec

from cotenant_serving.contract import Usage
from cotenant_serving.gateway.admission import TenantLimits
from cotenant_serving.gateway.journal import Entry
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.upstream import Outgoing
from cotenant_serving.gateway.usage import UsageRecord
from cotenant_serving.tracing import Span

log = logging.getLogger("cotenant.gateway")

BROKEN = frozenset({"upstream_error", "timeout", "shutdown", "internal_error"})
"""Outcomes that are failures whatever the status: a stream that breaks has begun with 200."""

LOGGED = ("request_id", "tenant", "model", "outcome", "status", "duration_s")
"""Fields of its usage record that the log line of a failed request has."""


class Call(msgspec.Struct, frozen=True):
    """A request that passed admission. Times are seconds of the gateway's clock."""

    request_id: str
    outgoing: Outgoing
    tenant: str
    model: str
    stream: bool
    prompt_tokens: int
    """By estimate. 0 for requests that are not measured in tokens (tensors)."""
    tokens: int
    """Charged on admission, by estimate."""
    limits: TenantLimits
    """Where they were charged."""
    began: float

    @property
    def weight(self) -> int:
        """Its part in the turns of the waiting line: tokens, or bytes / 4 where there are none."""
        return self.tokens or max(1, len(self.outgoing.body) // 4)


class Charged(Protocol):
    """What of a `Call` its end asks for."""

    @property
    def request_id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def limits(self) -> TenantLimits: ...
    @property
    def began(self) -> float: ...
    @property
    def weight(self) -> int: ...


class Ending(msgspec.Struct, frozen=True):
    """How it went. `status` is what the client gets, 0 when it left before."""

    outcome: str
    status: int
    ran: bool
    """An engine worked on it, so there is usage even if the engine cannot tell."""
    usage: Usage | None
    """The engine's own count."""
    events: int
    """Forwarded events of a stream: the estimate of completion tokens."""
    first_byte_s: float | None
    streamed: bool = False
    """Its first byte is counted already."""


def tokens_used(call: Charged, ending: Ending) -> tuple[Usage, bool]:
    """(usage, whether it is an estimate). Pure."""
    if ending.usage is not None:
        return ending.usage, False
    if not ending.ran:
        return Usage(prompt_tokens=0, completion_tokens=0), False
    return Usage(prompt_tokens=call.prompt_tokens, completion_tokens=ending.events), True


def settle(gateway: Gateway, call: Charged, entry: Entry, ending: Ending) -> int:
    """Called exactly once per admitted request. `entry`: the request in the journal.

    Returns what it cost in the turns of the waiting line: tokens, or its weight when an engine ran and told none.
    """
    used, estimated = tokens_used(call, ending)
    total = used.prompt_tokens + used.completion_tokens
    now = gateway.clock()
    call.limits.settle(call.tokens, total, now)
    record = UsageRecord(
        time=time.time(),
        tenant=call.tenant,
        model=call.model,
        request_id=call.request_id,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        estimated=estimated,
        outcome=ending.outcome,
        status=ending.status,
        duration_s=round(now - call.began, 6),
        time_to_first_byte_s=None if ending.first_byte_s is None else round(ending.first_byte_s, 6),
    )
    gateway.usage.add(record, entry)
    gateway.metrics.ended(
        call.tenant,
        call.model,
        ending.outcome,
        ending.status,
        duration_s=now - call.began,
        prompt=used.prompt_tokens,
        completion=used.completion_tokens,
        first_byte_s=None if ending.streamed else ending.first_byte_s,
    )
    if ending.outcome != "ok" and failed(ending):
        _log_failure(record)
    unmeasured = ending.ran and not call.tokens and not total
    return call.weight if unmeasured else total


def describe(span: Span, call: Call, ending: Ending) -> None:
    """What a trace says of the request."""
    used, _ = tokens_used(call, ending)
    span.note(
        {
            "cotenant.tenant": call.tenant,
            "cotenant.outcome": ending.outcome,
            "gen_ai.request.model": call.model,
            "gen_ai.usage.input_tokens": used.prompt_tokens,
            "gen_ai.usage.output_tokens": used.completion_tokens,
        }
    )
    if ending.outcome != "ok":
        span.failed(ending.outcome)


def failed(ending: Ending) -> bool:
    """Whether an operator may want to know: not the client's doing. Pure."""
    return ending.outcome in BROKEN or ending.status >= 500


def _log_failure(record: UsageRecord) -> None:
    fields = {"event": "request_failed", **{name: getattr(record, name) for name in LOGGED}}
    log.warning("request %s ended with %s", record.request_id, record.outcome, extra={"fields": fields})
