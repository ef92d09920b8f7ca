"""The same scenario at another rate or with another seed, and the same plan with one tenant only; pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cotenant_loadtests.planned import Planned
from cotenant_loadtests.spec import Scenario, StreamSpec
from cotenant_loadtests.spec_values import Arrivals, OnOff, Ramp, Steps, Trace


def with_seed(scenario: Scenario, number: int) -> Scenario:
    """The `number`-th seed after the scenario's own: other requests of the same kind."""
    return scenario.model_copy(update={"seed": (scenario.seed + number) % 2**63})


def at_factor(scenario: Scenario, factor: float) -> Scenario:
    """Every arrival process `factor` times as often; a trace so many times as fast."""
    return scenario.model_copy(update={"streams": tuple(_faster(stream, factor) for stream in scenario.streams)})


def _faster(stream: StreamSpec, factor: float) -> StreamSpec:
    arrivals = stream.arrivals
    return stream.model_copy(update={"arrivals": arrivals.model_copy(update=_rates(arrivals, factor))})


def _rates(arrivals: Arrivals, factor: float) -> dict[str, Any]:
    match arrivals:
        case OnOff():
            return {
                "rate_per_s": arrivals.rate_per_s * factor,
                "off_rate_per_s": arrivals.off_rate_per_s * factor,
            }
        case Ramp():
            return {"from_per_s": arrivals.from_per_s * factor, "to_per_s": arrivals.to_per_s * factor}
        case Steps():
            return {"rates_per_s": tuple(rate * factor for rate in arrivals.rates_per_s)}
        case Trace():
            return {"speed": arrivals.speed * factor}
        case _:
            return {"rate_per_s": arrivals.rate_per_s * factor}


def only_tenant(plan: Sequence[Planned], tenant: str) -> list[Planned]:
    """The tenant's requests, as they stand in the plan, numbered anew. A conversation is one tenant's."""
    kept = [request for request in plan if request.tenant == tenant]
    places = {request.id: place for place, request in enumerate(kept)}
    return [
        msgspec.structs.replace(
            request,
            id=places[request.id],
            after=None if request.after is None else places[request.after],
        )
        for request in kept
    ]


def offered_tokens(request: Planned) -> int:
    """Of its prompt (the segments; words where it has a text), and the most that its answer may have."""
    prompt = sum(
        sum(segment.tokens for segment in message.segments) + len((message.text or "").split())
        for message in request.messages
    )
    return prompt + (request.max_tokens or 0)
