"""Equal scenarios make equal plans and send equal bytes: checksums that hold in every Python version and process.

When they change, plans of older versions are no longer repeated: say so in CHANGELOG.md.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.builders.scenarios import scenario, stream

from cotenant_loadtests.bodies import render, request_path
from cotenant_loadtests.plan_file import plan_sha256, read_plan, write_plan
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.workload import make_plan

LENGTHS = {"distribution": "lognormal", "median": 60, "sigma": 0.8, "max": 900}
EXPONENTIAL = {"distribution": "exponential", "mean": 40}
PLAN_SHA256 = "47553110d651217d877854238bf9608b008679f627bde8aa0b1754af7298d754"
BYTES_SHA256 = "81af408b399bf37fc31992de4053d20aa164212c1d396354ca71f9d37ecfa576"


def everything() -> list[dict[str, Any]]:
    """A stream for every arrival process, API and distribution."""
    return [
        stream("constant", arrivals={"process": "constant", "rate_per_s": 3}, prompt={"tokens": LENGTHS}),
        stream("poisson", api="completions", tenant=["a", "b"], model={"names": ["m-{01..20}"], "zipf": 1.1}),
        stream("gamma", arrivals={"process": "gamma", "rate_per_s": 4, "burstiness": 0.3}, streamed=False),
        stream("on-off", arrivals={"process": "on_off", "rate_per_s": 9, "on_s": 1, "off_s": 2}, body={"top_p": 0.9}),
        stream("ramp", arrivals={"process": "ramp", "from_per_s": 0, "to_per_s": 9}, cancel_after_tokens=3),
        stream("steps", arrivals={"process": "steps", "rates_per_s": [2, 5], "step_s": 3}, check="echo"),
        stream(
            "trace",
            arrivals={"process": "trace", "file": "azure-llm-2023-conv-excerpt.csv", "format": "azure", "share": 0.5},
            prompt={"tokens": "trace"},
            output={"tokens": "trace"},
        ),
        stream(
            "talk",
            conversation={"turns": {"distribution": "uniform", "min": 1, "max": 4}, "think_s": LENGTHS},
            prompt={"tokens": LENGTHS, "shared_prefix": {"tokens": EXPONENTIAL, "groups": 3}},
        ),
        stream("embed", api="embeddings", prompt={"tokens": 5, "inputs": 3}, output=None),
        stream(
            "oip",
            api="oip",
            prompt=None,
            output=None,
            inputs=[
                {"name": kind.lower(), "datatype": kind, "shape": [2, 5]}
                for kind in ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64")
            ],
        ),
    ]


@pytest.fixture(scope="module")
def plan() -> list[Planned]:
    return make_plan(scenario(*everything(), seed=7), Path("/nonexistent"))


def bytes_sha256(requests: list[Planned]) -> str:
    digest = sha256()
    for request in requests:
        digest.update(request_path(request).encode() + b"\n" + render(request) + b"\n")
    return digest.hexdigest()


def test_the_plan_is_the_one_it_has_always_been(plan: list[Planned]) -> None:
    assert {request.stream for request in plan} == {given["name"] for given in everything()}
    assert plan_sha256(plan) == PLAN_SHA256


def test_its_bytes_are_those_it_has_always_sent(plan: list[Planned]) -> None:
    assert bytes_sha256(plan) == BYTES_SHA256


def test_a_plan_from_a_file_sends_the_same_bytes(plan: list[Planned], tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.jsonl", scenario(), plan)
    assert bytes_sha256(read_plan(tmp_path / "plan.jsonl")[1]) == BYTES_SHA256
