from typing import Any

import pytest
from tests.builders.load_records import Request, answered, failed, run_of, scenario_of, stream

from cotenant_loadtests.columns import columns_of
from cotenant_loadtests.gate import SLOS, check_slo_names, evaluate, sentence, verdict
from cotenant_loadtests.measures import measure
from cotenant_loadtests.results import Fairness, SloResult
from cotenant_loadtests.spec import Goodput
from cotenant_loadtests.window import Window

REQUESTS = [
    answered(tenant="blue", model="team/llama", ttft_ms=10, gaps_ms=[5, 15]),
    answered(tenant="blue", model="echo", ttft_ms=30, gaps_ms=[20]),
    failed("timeout", tenant="red", model="echo"),
    answered(tenant="red", model="echo", ttft_ms=90),
]


def judged(slo: dict[str, Any], requests: list[Request] = REQUESTS, jain: float | None = 0.9) -> list[SloResult]:
    output = run_of(requests)
    found = measure(columns_of(output.plan, output.records), Window(0, 10), Goodput(ttft_ms=50))
    fairness = Fairness(jain=jain, backlogged_s=1.0, tokens={})
    return list(evaluate(slo, found, fairness))


VALUES = [
    ("ttft_mean_ms", 43.333),
    ("ttft_p50_ms", 30.0),  # the second of four: the one that failed is the last
    ("ttft_max_ms", 90.0),
    ("itl_max_ms", 20.0),
    ("tpot_p50_ms", 20.0),
    ("e2e_p50_ms", 50.0),
    ("error_count", 1.0),
    ("success_rate", 0.75),
    ("goodput_rate", 0.5),
    ("goodput_per_s", 0.2),
    ("tokens_per_s", 0.6),
    ("jain", 0.9),
]


@pytest.mark.parametrize(("slo", "value"), VALUES)
def test_each_limit_is_held_against_its_figure(slo: str, value: float) -> None:
    (result,) = judged({slo: value})
    assert result.value == pytest.approx(value, rel=1e-3)
    assert result.where == "*"


@pytest.mark.parametrize("slo", ["success_rate", "goodput_rate", "goodput_per_s", "tokens_per_s", "jain"])
def test_rates_pass_at_or_above_their_limit(slo: str) -> None:
    value = judged({slo: 0})[0].value or 0
    assert [judged({slo: limit})[0].passed for limit in (value * 0.99, value, value * 1.01)] == [True, True, False]


@pytest.mark.parametrize("slo", ["ttft_p50_ms", "itl_mean_ms", "tpot_max_ms", "e2e_p50_ms", "error_count"])
def test_latencies_and_errors_pass_at_or_below_their_limit(slo: str) -> None:
    value = judged({slo: 0})[0].value or 0
    assert [judged({slo: limit})[0].passed for limit in (value * 0.99, value, value * 1.01)] == [False, True, True]


def test_limits_may_be_for_a_tenant_or_its_requests_to_a_model() -> None:
    limits = {"blue": 25, "blue/team/llama": 25, "red/echo": 100}
    assert [(result.where, result.value, result.passed) for result in judged({"ttft_max_ms": limits})] == [
        ("blue", 30, False),
        ("blue/team/llama", 10, True),
        ("red/echo", 90, True),
    ]


NOTHING = [
    ("a tenant without requests", {"success_rate": {"green": 0.9}}, REQUESTS),
    ("a pair without requests", {"error_count": {"red/team/llama": 5}}, REQUESTS),
    ("no request at all", {"success_rate": 0.9}, []),
    ("no success to time", {"ttft_max_ms": 100}, [failed("reset")]),
    ("no gaps", {"itl_p99_ms": 100}, [answered(gaps_ms=[])]),
]


@pytest.mark.parametrize(("slo", "requests"), [row[1:] for row in NOTHING], ids=[row[0] for row in NOTHING])
def test_a_limit_for_which_nothing_was_measured_is_missed(slo: dict[str, Any], requests: list[Request]) -> None:
    (result,) = judged(slo, requests)
    assert (result.value, result.passed) == (None, False)
    assert "nothing was measured" in sentence(result)


def test_jain_is_missed_where_tenants_were_never_backlogged_together() -> None:
    assert judged({"jain": 0.5}, jain=None)[0].passed is False


SHEDDING = [
    *(answered(tenant="ads", ttft_ms=10 + number) for number in range(97)),
    *(failed("overloaded", tenant="ads") for _ in range(3)),
    *(answered(tenant="mail", ttft_ms=10) for _ in range(100)),
]


def test_a_server_that_turns_requests_away_does_not_pass_as_a_quick_one() -> None:
    limits = {"ttft_p95_ms": 200, "ttft_p99_ms": 200, "e2e_p99_ms": {"ads": 9_000, "mail": 9_000}}
    p95, p99, ads, mail = judged(limits, SHEDDING)

    assert (p95.passed, p99.passed, ads.passed, mail.passed) == (True, False, False, True)
    assert (p99.value, p99.among_failures) == (None, True)
    assert sentence(p99) == "ttft_p99_ms: more than 1 % of the requests failed, so at most 200 is not shown"
    assert sentence(ads) == "e2e_p99_ms of ads: more than 1 % of its requests failed, so at most 9000 is not shown"


def test_a_failure_is_later_than_every_answer() -> None:
    """The 90th of a hundred is the 90th of the 97 that succeeded: 10 + 89 ms."""
    (p90,) = judged({"ttft_p90_ms": {"ads": 99}}, SHEDDING)
    assert p90.value == pytest.approx(99, rel=1e-3)
    assert p90.passed


def test_a_percentile_is_among_the_failures_from_the_first_one_too_many() -> None:
    for failures, value in ((1, 10.0), (2, None)):
        requests = [answered(ttft_ms=10)] * (100 - failures) + [failed("reset")] * failures
        (result,) = judged({"ttft_p99_ms": 10}, requests)
        assert result.value == value


def test_gaps_between_tokens_are_taken_to_be_as_many_of_each_failed_request_as_of_an_answer() -> None:
    requests = [answered(gaps_ms=[5] * 40)] * 95 + [failed("reset")] * 5
    inside, outside = judged({"itl_p95_ms": 6, "itl_p99_ms": 6}, requests)
    assert (inside.value, outside.value) == (pytest.approx(5, rel=1e-3), None)


def test_mean_and_max_are_of_the_answers_that_came() -> None:
    mean, most = judged({"ttft_mean_ms": {"mail": 10}, "ttft_max_ms": 107}, SHEDDING)
    assert (mean.value, most.value) == (10.0, 106.0)


def test_every_name_has_a_figure() -> None:
    whole = [request for request in REQUESTS if request[1].success]
    found = judged(dict.fromkeys(SLOS, 0.5), whole)
    assert [result.slo for result in found if result.value is not None] == list(SLOS)


def test_a_missed_limit_is_named_with_its_figure() -> None:
    (missed,) = judged({"ttft_max_ms": {"red": 50}})
    assert sentence(missed) == "ttft_max_ms of red is 90, not at most 50"
    (passed,) = judged({"success_rate": 0.5})
    assert sentence(passed) == "success_rate is 0.75, at least 0.5"


@pytest.mark.parametrize(
    ("valid", "limit", "expected"),
    [(True, 0.5, "passed"), (True, 0.9, "missed"), (False, 0.5, "not_valid"), (False, 0.9, "not_valid")],
)
def test_not_valid_is_neither_passed_nor_missed(valid: bool, limit: float, expected: str) -> None:
    assert verdict(valid, judged({"success_rate": limit})) == expected


def problems(**fields: Any) -> list[str]:
    streams = [
        stream(tenant=["search", "batch"], model="team/llama"),
        stream(name="many", tenant="crawl", model={"names": ["echo-{01..20}"]}),
    ]
    return check_slo_names(scenario_of(streams=streams, **fields))


def test_every_documented_name_is_taken() -> None:
    assert problems(slo=dict.fromkeys(SLOS, 0.5)) == []


def test_places_that_streams_send_to_are_taken() -> None:
    places = {"search": 1, "batch": 1, "search/team/llama": 1, "crawl/echo-01": 1, "crawl/echo-20": 1}
    assert problems(slo={"ttft_p99_ms": places}) == []


WRONG = [
    ({"ttft_p98_ms": 1}, "slo.ttft_p98_ms: there is no such figure; did you mean ttft_p9"),
    ({"ttft": 1}, "slo.ttft: there is no such figure"),
    ({"p99": {"search": 1}}, "slo.p99: there is no such figure"),
    ({"success_rat": 1}, "did you mean success_rate"),
    ({"ttft_p99_ms": {"serach": 1}}, "slo.ttft_p99_ms.serach: no stream sends such requests; did you mean search"),
    ({"ttft_p99_ms": {"crawl/echo-21": 1}}, "slo.ttft_p99_ms.crawl/echo-21: no stream sends such requests"),
    ({"ttft_p99_ms": {"search/echo-01": 1}}, "slo.ttft_p99_ms.search/echo-01: no stream sends such requests"),
    ({"ttft_p99_ms": {"search/team/lama": 1}}, "did you mean search/team/llama?"),
    ({"ttft_p99_ms": {"team/llama": 1}}, "no stream sends such requests; known: batch, crawl, search"),
    ({"ttft_p99_ms": {}}, "slo.ttft_p99_ms: has no limit"),
    ({"jain": {"search": 0.9}}, "slo.jain: has a value per tenant"),
    ({"success_rate": 99}, "slo.success_rate: 99 is above 1; it is a share, so 99 % is 0.99"),
    ({"goodput_rate": {"search": 95}}, "slo.goodput_rate.search: 95 is above 1"),
]


@pytest.mark.parametrize(("slo", "problem"), WRONG, ids=[str(row[0]) for row in WRONG])
def test_limits_that_could_never_be_checked_are_named(slo: dict[str, Any], problem: str) -> None:
    (found,) = problems(slo=slo)
    assert problem in found


def test_names_that_cannot_be_expanded_are_not_reported_a_second_time() -> None:
    assert check_slo_names(scenario_of(streams=[stream(model="echo-{1..")], slo={"ttft_p99_ms": {"blue": 9}})) == []


def test_thousands_of_tenants_and_models_are_checked_without_listing_their_pairs() -> None:
    streams = [stream(tenant="t{0001..3000}", model="m{0001..3000}")]
    assert check_slo_names(scenario_of(streams=streams, slo={"ttft_p99_ms": {"t2999/m0003": 9, "t0001": 5}})) == []
