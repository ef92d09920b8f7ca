"""Scenarios of load tests, as small as they can be; every field can be given."""

from typing import Any

from cotenant_loadtests.spec import Scenario


def stream(name: str, **fields: Any) -> dict[str, Any]:
    """A stream of chats, some 10 a second; fields that are None are left out."""
    given: dict[str, Any] = {
        "name": name,
        "tenant": "search",
        "model": "m",
        "arrivals": {"process": "poisson", "rate_per_s": 10},
        "prompt": {"tokens": {"distribution": "lognormal", "median": 20, "sigma": 0.5}},
        "output": {"tokens": 8},
    }
    return {field: value for field, value in (given | fields).items() if value is not None}


def scenario(*streams: dict[str, Any], **fields: Any) -> Scenario:
    """Ten seconds."""
    given = {"name": "test", "duration_s": 10, "streams": list(streams or [stream("chat")])}
    return Scenario.model_validate(given | fields)
