import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_serving.contract_gateway import Limits
from cotenant_serving.gateway.admission import TOLERANCE_S, TenantLimits, duration, estimated_tokens
from cotenant_serving.gateway.board import LocalAccount
from cotenant_serving.openai_api import RequestError


def limits(now: float = 0.0, **given_: int) -> TenantLimits:
    return TenantLimits("search", Limits(**given_), LocalAccount(), now)


def refused(tenant: TenantLimits, tokens: int, now: float) -> RequestError:
    with pytest.raises(RequestError) as caught:
        tenant.admit(tokens, now)
    return caught.value


def remaining(tenant: TenantLimits, kind: str, now: float) -> int:
    return int(tenant.headers(now)[f"x-ratelimit-remaining-{kind}"])


def test_a_bucket_starts_full_with_one_minutes_worth_and_refills_evenly():
    tenant = limits(now=100.0, tokens_per_minute=60)
    tenant.admit(60, 100.0)

    assert remaining(tenant, "tokens", 100.0) == 0
    assert remaining(tenant, "tokens", 110.0) == 10
    assert refused(tenant, 20, 110.0).headers["retry-after"] == "10"
    assert remaining(tenant, "tokens", 1000.0) == 60


def test_a_clock_that_steps_back_takes_nothing_away():
    tenant = limits(now=100.0, tokens_per_minute=60)
    tenant.admit(30, 100.0)
    tenant.admit(0, 90.0)
    assert remaining(tenant, "tokens", 101.0) == 31


def test_a_clock_that_was_read_a_moment_before_the_lock_refuses_nobody():
    tenant = limits(now=100.0, requests_per_minute=6)
    for _ in range(5):
        tenant.admit(1, 100.0004)

    tenant.admit(1, 100.0)

    assert refused(tenant, 1, 100.0).status == 429


@pytest.mark.parametrize("per_minute", [1, 7, 60, 999, 1001, 60_000])
def test_a_burst_gets_the_limit_and_not_one_more_however_long_the_machine_has_run(per_minute: int):
    now = 12_345_678.9  # nearly five months
    tenant = limits(now=now, requests_per_minute=per_minute, tokens_per_minute=3 * per_minute)
    for _ in range(per_minute):
        tenant.admit(3, now)

    assert refused(tenant, 3, now).status == 429
    assert remaining(tenant, "requests", now) == remaining(tenant, "tokens", now) == 0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50)), max_size=50))
def test_no_sequence_of_requests_gets_more_than_capacity_plus_rate(steps):
    tenant, now, taken = limits(tokens_per_minute=100), 0.0, 0
    for pause_s, amount in steps:
        now += pause_s
        with contextlib.suppress(RequestError):
            tenant.admit(amount, now)
            taken += amount
    assert taken <= 100 + (now + TOLERANCE_S) * 100 / 60 + 1e-6


def test_the_estimate_counts_the_body_and_what_may_be_generated():
    assert estimated_tokens(400, 50) == 150
    assert estimated_tokens(400, None) == 100 + 256


def test_the_limit_that_is_reached_is_named_with_the_time_to_wait():
    tenant = limits(requests_per_minute=2)
    tenant.admit(1, 0.0)
    tenant.admit(1, 0.0)

    problem = refused(tenant, 1, 0.0)

    assert (problem.status, problem.type, problem.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert "2 requests per minute" in problem.message
    assert problem.headers["retry-after"] == "30"
    tenant.admit(1, 30.0)


def test_a_refused_request_takes_nothing_from_any_bucket():
    tenant = limits(requests_per_minute=10, tokens_per_minute=100)
    tenant.admit(90, 0.0)
    assert refused(tenant, 50, 0.0).status == 429
    assert tenant.headers(0.0)["x-ratelimit-remaining-requests"] == "9"
    assert tenant.running == 1


def test_concurrent_requests_are_freed_by_settling():
    tenant = limits(concurrent_requests=1)
    tenant.admit(10, 0.0)
    assert "1 concurrent requests" in refused(tenant, 10, 0.0).message
    tenant.settle(10, 10, 0.0)
    tenant.admit(10, 0.0)


def test_settling_gives_back_what_was_not_used_and_charges_what_was_used_beyond():
    tenant = limits(tokens_per_minute=100)
    tenant.admit(80, 0.0)
    tenant.settle(80, 30, 0.0)
    assert tenant.headers(0.0)["x-ratelimit-remaining-tokens"] == "70"

    tenant.admit(10, 0.0)
    tenant.settle(10, 260, 0.0)
    assert tenant.headers(0.0)["x-ratelimit-remaining-tokens"] == "0"
    # 190 below zero, and 10 are wanted: 200 tokens at 100 a minute.
    assert refused(tenant, 10, 0.0).headers["retry-after"] == "120"


def test_a_request_that_costs_no_tokens_is_not_kept_out_by_a_debt_of_tokens():
    tenant = limits(tokens_per_minute=100, requests_per_minute=2)
    tenant.admit(100, 0.0)
    tenant.settle(100, 300, 0.0)

    tenant.admit(0, 0.0)

    assert "2 requests per minute" in refused(tenant, 0, 0.0).message


def test_a_request_dearer_than_the_whole_bucket_is_a_bad_request_because_waiting_never_helps():
    problem = refused(limits(tokens_per_minute=100), 101, 0.0)
    assert problem.status == 400
    assert "101 tokens" in problem.message
    assert "100 tokens per minute" in problem.message


def test_a_changed_limit_keeps_the_fill():
    tenant = limits(tokens_per_minute=100)
    tenant.admit(90, 0.0)
    tenant.change(Limits(tokens_per_minute=1000), 0.0)
    assert tenant.headers(0.0)["x-ratelimit-remaining-tokens"] == "10"
    tenant.change(Limits(tokens_per_minute=5), 0.0)
    assert tenant.headers(0.0)["x-ratelimit-remaining-tokens"] == "5"
    tenant.change(Limits(), 0.0)
    assert (tenant.headers(0.0), tenant.fields(0.0)) == ({}, b"")
    tenant.admit(10**9, 0.0)
    tenant.change(Limits(tokens_per_minute=5), 0.0)
    assert tenant.headers(0.0)["x-ratelimit-remaining-tokens"] == "5"


def test_header_lines_say_of_each_limit_what_it_is_what_remains_and_when_it_is_whole_again():
    tenant = limits(requests_per_minute=60, tokens_per_minute=1000, concurrent_requests=9)
    tenant.admit(100, 0.0)

    assert tenant.fields(0.0) == (
        b"x-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 59\r\nx-ratelimit-reset-requests: 1s\r\n"
        b"x-ratelimit-limit-tokens: 1000\r\nx-ratelimit-remaining-tokens: 900\r\nx-ratelimit-reset-tokens: 6s\r\n"
    )
    assert list(tenant.headers(0.25).values()) == ["60", "59", "750ms", "1000", "904", "5.75s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.012, "12ms"),
        (1, "1s"),
        (1.05, "1.05s"),
        (1.5, "1.5s"),
        (10.001, "10.001s"),
        (59.9999, "1m0s"),
        (60, "1m0s"),
        (83.25, "1m23.25s"),
    ],
)
def test_durations_read_as_go_prints_them(seconds, text):
    assert duration(round(seconds * 1000)).decode() == text
