"""The same scenario at another rate, the same plan with one tenant."""

from typing import Any

import pytest
from tests.builders.load_records import planned, scenario_of, stream

from cotenant_loadtests.planned import Message, Segment
from cotenant_loadtests.variants import at_factor, offered_tokens, only_tenant, with_seed


@pytest.mark.parametrize(
    ("arrivals", "faster"),
    [
        ({"process": "constant", "rate_per_s": 2.0}, {"rate_per_s": 6.0}),
        ({"process": "gamma", "rate_per_s": 2.0, "burstiness": 0.5}, {"rate_per_s": 6.0, "burstiness": 0.5}),
        (
            {"process": "on_off", "rate_per_s": 2.0, "on_s": 1, "off_s": 2, "off_rate_per_s": 1.0},
            {"rate_per_s": 6.0, "on_s": 1.0, "off_rate_per_s": 3.0},
        ),
        ({"process": "ramp", "from_per_s": 1.0, "to_per_s": 2.0}, {"from_per_s": 3.0, "to_per_s": 6.0}),
        ({"process": "steps", "rates_per_s": [1.0, 2.0], "step_s": 3}, {"rates_per_s": (3.0, 6.0), "step_s": 3.0}),
        ({"process": "trace", "file": "t.csv", "format": "azure", "speed": 2.0}, {"speed": 6.0, "share": 1.0}),
    ],
    ids=lambda value: value.get("process", "") if isinstance(value, dict) else "",
)
def test_every_arrival_process_comes_three_times_as_often(arrivals: dict[str, Any], faster: dict[str, Any]) -> None:
    scenario = at_factor(scenario_of(streams=[stream(arrivals=arrivals)]), 3.0)

    found = scenario.streams[0].arrivals.model_dump()
    assert {name: found[name] for name in faster} == faster


def test_another_seed_changes_nothing_else() -> None:
    scenario = scenario_of(seed=7, slo={"success_rate": 0.9})

    moved = with_seed(scenario, 3)

    assert moved.seed == 10
    assert with_seed(moved, -3) == scenario
    assert with_seed(scenario_of(seed=2**63 - 1), 1).seed == 0


def test_one_tenants_plan_has_its_requests_and_conversations_at_the_same_times() -> None:
    plan = [
        planned(id=0, tenant="red", at_s=0.5),
        planned(id=1, tenant="blue", at_s=1.0),
        planned(id=2, tenant="red", at_s=2.0),
        planned(id=3, tenant="blue", after=1, think_s=4.0),
    ]

    kept = only_tenant(plan, "blue")

    assert [(one.id, one.at_s, one.after, one.think_s) for one in kept] == [(0, 1.0, None, 0.0), (1, None, 0, 4.0)]
    assert kept[0].messages == plan[1].messages


def test_a_request_offers_the_tokens_of_its_prompt_and_the_most_of_its_answer() -> None:
    messages = (
        Message(role="user", segments=(Segment(seed=1, tokens=8), Segment(seed=2, tokens=4))),
        Message(role="user", text="three more words"),
    )

    assert offered_tokens(planned(messages=messages, max_tokens=20)) == 35
    assert offered_tokens(planned(messages=())) == 0
