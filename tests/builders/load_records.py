"""Load-test runs made by hand: plans with their records, scenarios, and what `run_plan` would have given.

run_of([answered(at_s=1.0, ttft_ms=20, gaps_ms=[10, 10]), failed("timeout", at_s=2.0, took_ms=60_000)])
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec

from cotenant_loadtests.planned import Message, Planned, Segment
from cotenant_loadtests.record import NEVER, Outcome, Record, encode_times
from cotenant_loadtests.results import ProcessLoad, ServerSide
from cotenant_loadtests.run_output import RunOutput
from cotenant_loadtests.spec import Scenario

Request = tuple[Planned, Record]


def answered(
    *,
    at_s: float = 0.0,
    ttft_ms: float = 10.0,
    gaps_ms: Sequence[float] = (),
    tail_ms: float = 0.0,
    late_ms: float = 0.0,
    outcome: Outcome = "ok",
    tokens: int | None = None,
    **fields: Any,
) -> Request:
    """Streamed: an event with text after `ttft_ms`, then one after each gap, the end `tail_ms` later.

    `tokens`: what the server's usage says; None: it says as many as there were events. `fields`: of Planned.
    """
    scheduled_us = round(at_s * 1e6)
    first_us = scheduled_us + round(ttft_ms * 1000)
    times_us = list(accumulate((round(gap * 1000) for gap in gaps_ms), initial=first_us))
    plan = planned(at_s=at_s, **{"streamed": True, **fields})
    record = Record(
        id=plan.id,
        process=0,
        outcome=outcome,
        status=200,
        scheduled_us=scheduled_us,
        sent_us=scheduled_us + round(late_ms * 1000),
        first_byte_us=first_us,
        first_token_us=first_us,
        end_us=times_us[-1] + round(tail_ms * 1000),
        token_times=encode_times(times_us),
        events=len(times_us),
        prompt_tokens=8,
        completion_tokens=len(times_us) if tokens is None else tokens,
    )
    return plan, record


def answered_whole(*, at_s: float = 0.0, took_ms: float = 10.0, tokens: int = 5, **fields: Any) -> Request:
    """Not streamed."""
    scheduled_us = round(at_s * 1e6)
    end_us = scheduled_us + round(took_ms * 1000)
    record = Record(
        id=0,
        process=0,
        outcome="ok",
        status=200,
        scheduled_us=scheduled_us,
        sent_us=scheduled_us,
        first_byte_us=end_us,
        first_token_us=end_us,
        end_us=end_us,
        events=1,
        prompt_tokens=8,
        completion_tokens=tokens,
    )
    return planned(at_s=at_s, **{"streamed": False, **fields}), record


def failed(
    outcome: Outcome, *, at_s: float = 0.0, took_ms: float = 10.0, status: int = 0, detail: str = "", **fields: Any
) -> Request:
    """Sent on time, and without a token."""
    scheduled_us = round(at_s * 1e6)
    record = Record(
        id=0,
        process=0,
        outcome=outcome,
        status=status,
        scheduled_us=scheduled_us,
        sent_us=scheduled_us,
        end_us=scheduled_us + round(took_ms * 1000),
        detail=detail,
    )
    return planned(at_s=at_s, **{"streamed": True, **fields}), record


def planned(**fields: Any) -> Planned:
    after = fields.get("after")
    fields = {
        "id": 0,
        "stream": "talk",
        "tenant": "blue",
        "model": "echo",
        "api": "chat",
        "messages": (Message(role="user", segments=(Segment(seed=1, tokens=8),)),),
        **({"at_s": 0.0} if after is None else {}),
        **fields,
    }
    return Planned(**(fields if after is None else {**fields, "at_s": None}))


def run_of(requests: Sequence[Request], *, duration_s: float | None = None, **fields: Any) -> RunOutput:
    """Numbers the requests in the given order. `duration_s`: default, until the last had ended."""
    plan = [msgspec.structs.replace(one, id=number) for number, (one, _) in enumerate(requests)]
    records = [msgspec.structs.replace(record, id=number) for number, (_, record) in enumerate(requests)]
    ended_us = max((max(record.end_us, record.scheduled_us) for record in records), default=0)
    given = {
        "plan": plan,
        "records": records,
        "processes": (process_load(requests=len(records)),),
        "server": ServerSide(),
        "started_unix_s": 1_700_000_000.0,
        "duration_s": ended_us / 1e6 if duration_s is None else duration_s,
        "interrupted": any(record.outcome == "interrupted" for record in records),
        **fields,
    }
    return RunOutput(**given)


def process_load(**fields: Any) -> ProcessLoad:
    idle = {"process": 0, "cpu_share": 0.1, "cpu_share_peak": 0.2, "requests": 1, "max_rss_bytes": 50_000_000}
    return ProcessLoad(**{**idle, **fields})


def scenario_of(**fields: Any) -> Scenario:
    """One stream, `talk`, of tenant `blue` to model `echo`, for 10 seconds."""
    return Scenario.model_validate({"name": "by-hand", "duration_s": 10.0, "streams": [stream()], **fields})


def stream(**fields: Any) -> dict[str, Any]:
    return {
        "name": "talk",
        "tenant": "blue",
        "model": "echo",
        "arrivals": {"process": "poisson", "rate_per_s": 1.0},
        "prompt": {"tokens": 8},
        "output": {"tokens": 8},
        **fields,
    }


def never_sent(
    outcome: Outcome = "unfinished", *, at_s: float = 0.0, took_ms: float = 10.0, **fields: Any
) -> Request:
    plan, record = failed(outcome, at_s=at_s, took_ms=took_ms, **fields)
    return plan, msgspec.structs.replace(record, sent_us=NEVER)
