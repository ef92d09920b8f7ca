"""`results.json`: what a run measured and whether it may be believed. Versioned; written here, read by the report.

Times are milliseconds where the name ends in `_ms`, else seconds from the start of the run. All latencies count from
the scheduled time of a request, and only requests that were scheduled within the window are measured.
"""

from typing import Any, Literal

import msgspec

RESULTS_SCHEMA = "cotenant.dev/loadtest-results/v1"
Verdict = Literal["passed", "missed", "not_valid"]
Service = Literal["tokens", "answers"]
ALL = "*"
"""As a tenant or a model: all of them together."""
MOST_LATENESS_P99_MS = 5.0
"""Of a valid run."""
SATURATED = 0.95
"""Of a core: in a second with more, a worker has nothing to spare."""


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Of `count` values; percentiles by nearest rank, off by at most 0.05 %.

    `curve`: (percentile from 0 to 100, value) pairs for drawing, even on the scale -log10(1 - percentile / 100) as
    far as `count` can tell, then 100; empty when `count` is 0, and for each tenant × model.
    """

    count: int
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one tenant and model; `*` is all of them."""

    tenant: str
    model: str
    scheduled: int
    """Within the window, without those that were `interrupted`."""
    succeeded: int
    """Whole and correct, or cancelled as planned."""
    cancelled: int
    """Of the succeeded ones."""
    failed: int
    """All others."""
    errors: dict[str, int]
    """Outcome → requests."""
    success_rate: float
    """Of the scheduled ones. 1.0 when none was."""
    good: int
    """Succeeded within `goodput` of the scenario."""
    goodput_per_s: float
    """Good ones per second of the window."""
    offered_per_s: float
    """Scheduled ones per second of the window."""
    succeeded_per_s: float
    prompt_tokens: int
    """Of successes, by the server's usage where it told, else the words that were sent."""
    completion_tokens: int
    """Of successes, by the server's usage where it told, else by our count."""
    completion_tokens_per_s: float
    ttft_ms: Quantiles
    """First event with text, or the end of an answer that is not streamed, from the scheduled time. Of successes."""
    itl_ms: Quantiles
    """Gaps between events with text, of all streamed successes together."""
    tpot_ms: Quantiles
    """(end - first token) / (tokens - 1), per request that was streamed, whole and longer than one token."""
    e2e_ms: Quantiles
    """End of a whole answer, from the scheduled time."""


class ErrorExample(msgspec.Struct, frozen=True, kw_only=True):
    """Failures that are alike: the fifty most frequent kinds, at least one of each outcome."""

    outcome: str
    status: int
    """HTTP; 0: none came."""
    detail: str
    """A word on what went wrong; never a prompt, an answer or a key."""
    tenant: str
    model: str
    count: int
    first_at_s: float
    """When the first such request was scheduled."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant over time: a value for each `Timeline.bin_s`, by scheduled time; None where there was nothing."""

    tenant: str
    scheduled: tuple[int, ...]
    succeeded: tuple[int, ...]
    failed: tuple[int, ...]
    in_flight: tuple[int, ...]
    """Requests sent and not ended at the end of the bin."""
    completion_tokens: tuple[int, ...]
    """By when they came; of all requests, whatever became of them."""
    ttft_p50_ms: tuple[float | None, ...]
    ttft_p99_ms: tuple[float | None, ...]


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run in some 60 to 240 bins, warm-up and cool-down included."""

    bin_s: float
    series: tuple[Series, ...]
    """All tenants together (`*`) first, then each."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an arrival process `steps`: a point of goodput against rate."""

    stream: str
    from_s: float
    to_s: float
    """Within the window: a step outside is left out, one partly outside is cut."""
    rate_per_s: float
    """What was scheduled, which of a Poisson process is not quite its rate."""
    good_per_s: float
    success_rate: float
    ttft_p99_ms: float | None


class ProcessLoad(msgspec.Struct, frozen=True, kw_only=True):
    process: int
    cpu_share: float
    """Of one core, over the window."""
    cpu_share_peak: float
    """The highest over one second."""
    saturated_share: float = 0.0
    """Share of the seconds in which it used more than 0.95 of a core."""
    requests: int
    max_rss_bytes: int


class Validity(msgspec.Struct, frozen=True, kw_only=True):
    """May the numbers be believed? The tool measures itself."""

    valid: bool
    reasons: tuple[str, ...]
    """Why not: each a sentence with its figure and what to do."""
    lateness_ms: Quantiles
    """From scheduled to sent, less the wait for a connection to open; of every request of the run."""
    processes: tuple[ProcessLoad, ...]
    processes_needed: int
    """How many would be enough; the number used where it was enough."""


class SloResult(msgspec.Struct, frozen=True, kw_only=True):
    slo: str
    """As in the scenario: `ttft_p99_ms`."""
    where: str
    """`*`, a tenant, or `tenant/model`."""
    limit: float
    value: float | None
    """None: nothing was measured there, or it is `among_failures`; either is a miss."""
    passed: bool
    among_failures: bool = False
    """A percentile (p50 to p999) that falls among failed requests: here those count, as later than any limit."""


class Fairness(msgspec.Struct, frozen=True, kw_only=True):
    """Service per tenant while several tenants had requests waiting or running.

    Where chat or completions are asked, service is completion tokens, and other requests are left out.
    """

    jain: float | None
    """Jain's index of service ÷ fair part, over tenants backlogged together; None when never two were."""
    backlogged_s: float
    service: Service = "tokens"
    """What is counted: `answers` where no request generates tokens."""
    tokens: dict[str, float]
    """Tenant → service in that time; tokens of all requests, answers of successful ones."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What was read at one moment: name → value."""

    at_s: float
    values: dict[str, float]


class ServerSide(msgspec.Struct, frozen=True, kw_only=True):
    """What the server told during the run; empty where nothing was observed."""

    metrics: tuple[Sample, ...] = ()
    table: tuple[Sample, ...] = ()
    problems: tuple[str, ...] = ()


class Results(msgspec.Struct, frozen=True, kw_only=True):
    schema: str = RESULTS_SCHEMA
    cotenant_version: str
    name: str
    about: str
    started: str
    """ISO 8601, UTC."""
    target: str
    """The address that was loaded."""
    seed: int
    plan_sha256: str
    """Of the plan's requests: equal plans sent equal bytes."""
    scenario: dict[str, Any]
    """As it was run. It has no keys, but all that a stream's `body` says."""
    machine: str
    """That ran the load test."""
    duration_s: float
    """Until the last request had ended."""
    window_from_s: float
    window_to_s: float
    """Requests scheduled from `window_from_s` up to before this are measured."""
    interrupted: bool
    verdict: Verdict
    """`not_valid` beats `missed` beats `passed`."""
    validity: Validity
    slo: tuple[SloResult, ...]
    total: Group
    tenants: tuple[Group, ...]
    models: tuple[Group, ...]
    groups: tuple[Group, ...]
    """Each tenant × model that had requests."""
    errors: tuple[ErrorExample, ...]
    timeline: Timeline
    steps: tuple[Step, ...]
    fairness: Fairness
    server: ServerSide
    extras: dict[str, Any] = {}
    """Of `compare`, `fairness`, `coldstart`, `find-capacity` and `soak`: their own figures, by the command's name."""
