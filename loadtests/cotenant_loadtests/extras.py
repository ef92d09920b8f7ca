"""`extras` of results.json: what each command beside `run` found, under the command's name. Written by that command
with `msgspec.to_builtins`, read by the report with `msgspec.convert`.

The rest of such a results.json is one of the command's runs as `run` would write it; each class says which.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from cotenant_loadtests.results import Quantiles, Results, SloResult, Verdict

Difference = Literal["higher", "lower", "none_shown", "too_few_rounds", "not_measured"]
KeptOrNot = Literal["kept", "missed", "not_valid", "beyond_limits"]
SearchEnd = Literal["found", "all_kept", "tool_saturated", "limits", "none_kept", "not_valid", "interrupted"]
Trend = Literal["rises", "falls", "none_shown", "too_few_segments", "not_measured"]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Of 95 % confidence: of a slope by itself; of a ratio for all figures of the comparison together."""

    low: float
    high: float


# compare


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of A and of B. `difference` says how B is to A: `none_shown` where the interval has 1 in it."""

    metric: str
    """As SLOs are called: `ttft_p99_ms`."""
    lower_is_better: bool
    a: float | None
    """Median of the rounds; None: not measured in each of them."""
    b: float | None
    ratio: float | None
    """Of the rounds' b / a, the geometric mean; None also where an a is 0."""
    interval: Interval | None
    """Of the ratio, by Student's t; None where there are too few rounds for one."""
    difference: Difference
    rounds_a: tuple[float | None, ...]
    rounds_b: tuple[float | None, ...]


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """A `--fail-if`: it fails where the whole interval is beyond the limit."""

    text: str
    failed: bool


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`compare`. The results beside it are those of B's last round."""

    a: str
    b: str
    rounds: int
    """How many were whole: of each, one run of A and one of B."""
    order: tuple[str, ...]
    """`ab` or `ba` for each round."""
    metrics: tuple[Compared, ...]
    not_valid: tuple[str, ...]
    """Of each run that is not valid: which, and why. Any makes the comparison not valid."""
    conditions: tuple[Condition, ...] = ()


# find-capacity


class RateTried(msgspec.Struct, frozen=True, kw_only=True):
    rate_per_s: float
    """Nominal, of all streams together."""
    factor: float
    """By which the scenario's arrival rates were multiplied."""
    verdict: KeptOrNot
    repeats: tuple[Verdict, ...]
    offered_per_s: tuple[float, ...]
    """What was scheduled in each repeat's window."""
    goodput_per_s: tuple[float, ...]
    ttft_p99_ms: tuple[float | None, ...]
    success_rate: tuple[float, ...]
    missed: tuple[SloResult, ...]
    """SLOs of the first repeat that missed."""
    why: str
    """Of `not_valid` and `beyond_limits`: the reason."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """`find-capacity`. The results beside it: the last run at the largest rate that was kept, else the last run."""

    ended: SearchEnd
    """`found`: `kept_per_s` kept the SLOs and `missed_per_s`, at most `within` above it, did not. `all_kept`: even
    the highest rate asked for. `tool_saturated`, `limits`: rates above `kept_per_s` could not be tried."""
    kept_per_s: float | None
    """The largest rate that kept the SLOs."""
    missed_per_s: float | None
    """The smallest rate above it that did not."""
    missed: tuple[SloResult, ...]
    """The SLOs that were missed there."""
    scenario_per_s: float
    """The rate of the scenario as it stands: factor 1."""
    within: float
    """How close the search goes, as a share of the rate."""
    sentence: str
    tried: tuple[RateTried, ...]
    """In the order they were tried."""


# fairness


class TenantService(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str
    light: bool
    offered_tokens: int
    """Of prompts and the most of answers, by the plan."""
    offered_share: float
    completion_tokens: tuple[int, ...]
    """Served, for each `bin_s` of the run together."""


class LightTenant(msgspec.Struct, frozen=True, kw_only=True):
    """What a light tenant felt beside the others, and in the same requests alone."""

    tenant: str
    requests: int
    together_ttft_p50_ms: float | None
    together_ttft_p99_ms: float | None
    alone_ttft_p50_ms: float | None
    alone_ttft_p99_ms: float | None
    ratio_p50: float | None
    """Together / alone; 1 is undisturbed."""
    ratio_p99: float | None
    together_success_rate: float
    alone_success_rate: float


class FairnessFound(msgspec.Struct, frozen=True, kw_only=True):
    """`fairness`. The results beside it are those of the run together."""

    jain: float | None
    """Over tenants that were backlogged together; None when never two were."""
    backlogged_s: float
    bin_s: float
    tenants: tuple[TenantService, ...]
    light: tuple[LightTenant, ...]
    not_valid: tuple[str, ...]


# coldstart


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a wake, in milliseconds from the instant that the request was due."""

    name: str
    from_ms: float
    to_ms: float


class Wake(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str
    model: str
    at_unix_s: float
    outcome: str
    status: int
    first_token_ms: float | None
    """Zero → first token; None where none came."""
    phases: tuple[Phase, ...]
    """In order; a waterfall."""
    detail: str = ""


class ModelWakes(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    wakes: int
    failed: int
    first_token_ms: Quantiles
    phases: tuple[Phase, ...]
    """Medians of the lengths, one after the other."""


class ColdStarts(msgspec.Struct, frozen=True, kw_only=True):
    """`coldstart`. The results beside it have all the wakes as requests, one after the other without the waits."""

    cold_by: Literal["engines", "idle"]
    """How it was known that the model was cold: the server said that it had no engine, or only time had passed."""
    idle_s: float | None
    """How long nothing was sent before each wake, where only that was known."""
    phases_by: Literal["server", "client"]
    models: tuple[ModelWakes, ...]
    wakes: tuple[Wake, ...]
    not_valid: tuple[str, ...]


# soak


class SoakSegment(msgspec.Struct, frozen=True, kw_only=True):
    """One pass through the scenario, with random numbers of its own."""

    from_s: float
    to_s: float
    requests: int
    failed: int
    success_rate: float
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    e2e_p99_ms: float | None
    completion_tokens_per_s: float
    server_rss_bytes: float | None
    """The last `cotenant_gateway_resident_memory_bytes`, else `process_resident_memory_bytes`, that it told."""
    tool_rss_bytes: int
    """Of all the tool's processes."""
    verdict: Verdict
    missed: tuple[SloResult, ...]
    why_not_valid: tuple[str, ...]


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """The slope of a figure over the valid segments. `trend` is `none_shown` where the interval has 0 in it."""

    metric: str
    per_hour: float | None
    interval: Interval | None
    begin: float | None
    """Where the fitted line begins."""
    trend: Trend


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """`soak`. The results beside it are those of the last segment."""

    hours: float
    """As asked for."""
    ran_s: float
    segments: tuple[SoakSegment, ...]
    drifts: tuple[Drift, ...]
    interrupted: bool


Found = Comparison | Capacity | FairnessFound | ColdStarts | Soak


def reasons(runs: Mapping[str, Results]) -> list[str]:
    """A sentence for each run, by what it is called, that is not valid."""
    return [
        f"{name}: {' '.join(results.validity.reasons)}"
        for name, results in runs.items()
        if not results.validity.valid
    ]


def concluded(
    results: Results,
    command: str,
    found: Found,
    *,
    verdict: Verdict,
    interrupted: bool,
    not_valid: Sequence[str] = (),
) -> Results:
    """What a command writes: its figures beside the results of one of its runs, and the verdict on all of it."""
    reasons = tuple(dict.fromkeys((*not_valid, *results.validity.reasons)))
    validity = msgspec.structs.replace(results.validity, valid=False, reasons=reasons)
    return msgspec.structs.replace(
        results,
        verdict=verdict,
        interrupted=interrupted,
        validity=validity if verdict == "not_valid" else results.validity,
        extras={**results.extras, command: msgspec.to_builtins(found)},
    )
