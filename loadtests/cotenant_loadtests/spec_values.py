"""Values that a scenario is made of: who, how many tokens, when. Read by `spec.py`; pure."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field


class Strict(BaseModel):
    """Unknown fields are refused; values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


MOST = 1e9
"""Of any number; more is a slip, and no sum of such numbers overflows."""


def _bounded(value: float) -> float:
    if value > MOST:
        raise ValueError(f"must be at most {MOST:,.0f}")
    return value


Positive = Annotated[float, Field(gt=0), AfterValidator(_bounded)]
AtLeastZero = Annotated[float, Field(ge=0), AfterValidator(_bounded)]


# How many: tokens, turns, seconds


class Fixed(Strict):
    """Always the same. A number alone says it too."""

    distribution: Literal["fixed"] = "fixed"
    value: AtLeastZero


class Lognormal(Strict):
    """exp(N(ln median, sigma²)), cut to [min, max]."""

    distribution: Literal["lognormal"]
    median: Positive
    sigma: AtLeastZero
    min: AtLeastZero = 1
    max: Positive = 1_000_000


class Exponential(Strict):
    """Memoryless, with this mean before it is cut to [min, max]: think times."""

    distribution: Literal["exponential"]
    mean: Positive
    min: AtLeastZero = 0
    max: Positive = 1_000_000


class Uniform(Strict):
    """Each value from `min` to `max` is as likely; both included where whole numbers are drawn."""

    distribution: Literal["uniform"]
    min: AtLeastZero
    max: AtLeastZero


class FromTrace(Strict):
    """The length that the trace has for the request; needs `arrivals: {process: trace}`."""

    distribution: Literal["trace"] = "trace"


def _shorthand(value: Any) -> Any:
    """`200` is `{distribution: fixed, value: 200}`; `trace` is `{distribution: trace}`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"distribution": "fixed", "value": value}
    if value == "trace":
        return {"distribution": "trace"}
    return value


Amount = Annotated[
    Fixed | Lognormal | Exponential | Uniform | FromTrace,
    Discriminator("distribution"),
]
Amounts = Annotated[Amount, BeforeValidator(_shorthand)]
"""A number, `trace`, or a mapping with `distribution`."""


# Who: tenants and models


class Names(Strict):
    """One of several, drawn anew for each request (for each conversation, where there are any)."""

    names: Annotated[tuple[str, ...], Field(min_length=1)]
    """`echo-{01..20}` stands for twenty names."""
    zipf: AtLeastZero = 0.0
    """Popularity: the k-th name is drawn in proportion to 1/k^zipf; 0 is equally often."""


def _name(value: Any) -> Any:
    if isinstance(value, str):
        return {"names": [value]}
    return {"names": value} if isinstance(value, list | tuple) else value


Choice = Annotated[Names, BeforeValidator(_name)]
"""A name, a list of names, or `{names: […], zipf: 1.1}`."""


# When: arrival processes. Rates are requests per second (conversations per second, where there are any)


class Constant(Strict):
    """Equally spaced."""

    process: Literal["constant"]
    rate_per_s: Positive


class Poisson(Strict):
    """Independent of each other, as of many users: exponential gaps."""

    process: Literal["poisson"]
    rate_per_s: Positive


class Gamma(Strict):
    """Gaps are Gamma distributed with shape `burstiness`: 1 is Poisson, less comes in bursts (CV² = 1/burstiness)."""

    process: Literal["gamma"]
    rate_per_s: Positive
    burstiness: Positive


class OnOff(Strict):
    """Poisson with `rate_per_s` for `on_s`, then with `off_rate_per_s` for `off_s`, in turn; begins on."""

    process: Literal["on_off"]
    rate_per_s: Positive
    on_s: Positive
    off_s: Positive
    off_rate_per_s: AtLeastZero = 0.0


class Ramp(Strict):
    """Poisson whose rate goes evenly from `from_per_s` to `to_per_s` over the stream's time."""

    process: Literal["ramp"]
    from_per_s: AtLeastZero
    to_per_s: Positive


class Steps(Strict):
    """Poisson at each of the rates in turn, `step_s` each: goodput against rate."""

    process: Literal["steps"]
    rates_per_s: Annotated[tuple[Positive, ...], Field(min_length=1)]
    step_s: Positive
    stop_below: Annotated[float, Field(ge=0, le=1)] | None = None
    """End the run after the first step of which a smaller share of requests was good; absent: never."""


class Trace(Strict):
    """Requests when the trace has them, `speed` times as fast."""

    process: Literal["trace"]
    """`trace`."""
    file: str
    """Beside the scenario. Or the name of one that comes with cotenant: `azure-llm-2023-conv-excerpt.csv`."""
    format: Literal["azure", "mooncake", "csv"]
    """Azure LLM inference traces (CSV), Mooncake's JSON lines, or any CSV."""
    speed: Positive = 1.0
    """So many times as fast as it was."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Keep this share of the requests, each with the same chance."""
    skip_s: AtLeastZero = 0.0
    """Begin so far into the trace, in its own seconds."""
    columns: Mapping[Literal["time_s", "prompt_tokens", "output_tokens"], str] | None = None
    """For `csv`: how these columns are called there."""


Arrivals = Annotated[Constant | Poisson | Gamma | OnOff | Ramp | Steps | Trace, Discriminator("process")]
