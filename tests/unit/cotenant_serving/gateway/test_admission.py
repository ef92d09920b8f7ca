import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_serving.contract import Limits
from cotenant_serving.gateway.admission import Bucket, TenantLimits, duration, estimated_tokens
from cotenant_serving.gateway.board import LocalAccount
from cotenant_serving.openai_api import RequestError


def limits(now: float = 0.0, **given_: int) -> TenantLimits:
    return TenantLimits("search", Limits(**given_), LocalAccount(), now)


def refused(tenant: TenantLimits, tokens: int, now: float) -> RequestError:
    with pytest.raises(RequestError) as caught:
        tenant.admit(tokens, now)
    return caught.value


def test_a_bucket_starts_full_with_one_minutes_worth_and_refills_evenly():
    bucket = Bucket(60, now=100.0)
    bucket.take(60, 100.0)

    assert bucket.level(100.0) == 0
    assert bucket.level(110.0) == pytest.approx(10)
    assert bucket.wait_s(20, 110.0) == pytest.approx(10)
    assert bucket.level(1000.0) == 60


def test_a_clock_that_steps_back_takes_nothing_away():
    bucket = Bucket(60, now=100.0)
    bucket.take(30, 100.0)
    assert bucket.level(90.0) == 30
    assert bucket.level(101.0) == pytest.approx(31)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50)), max_size=50))
def test_no_sequence_of_requests_gets_more_than_capacity_plus_rate(steps):
    bucket, now, taken = Bucket(100, now=0.0), 0.0, 0
    for pause_s, amount in steps:
        now += pause_s
        if bucket.wait_s(amount, now) == 0:
            bucket.take(amount, now)
            taken += amount
    assert taken <= 100 + now * 100 / 60 + 1e-6


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
    assert tenant.headers(0.0) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.012, "12ms"), (1, "1s"), (1.5, "1.5s"), (59.9999, "1m0s"), (60, "1m0s"), (83.25, "1m23.25s")],
)
def test_durations_read_as_go_prints_them(seconds, text):
    assert duration(seconds) == text
