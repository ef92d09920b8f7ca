"""A tenant's limits where several gateways share them: each lets a part through, and the parts are the limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_serving.contract_gateway import Limits
from cotenant_serving.gateway.admission import TenantLimits, part_of
from cotenant_serving.gateway.board import LocalAccount
from cotenant_serving.openai_api import RequestError


def gateways(count: int, now: float = 0.0, **given_: int) -> list[TenantLimits]:
    return [TenantLimits("search", Limits(**given_), LocalAccount(), now, count) for _ in range(count)]


def admitted(gateway: TenantLimits, tokens: int, now: float) -> bool:
    try:
        gateway.admit(tokens, now)
    except RequestError:
        return False
    gateway.settle(tokens, tokens, now)
    return True


def flood(several: list[TenantLimits], begin_s: int, end_s: int) -> int:
    """How many of ten requests a second at each gateway are let through."""
    return sum(admitted(one, 0, begin_s + tenth / 10) for tenth in range((end_s - begin_s) * 10) for one in several)


def test_one_three_and_one_gateway_let_the_limit_through_and_at_first_what_new_ones_bring() -> None:
    limit = Limits(requests_per_minute=60)
    first, *others = gateways(3, requests_per_minute=60)
    first.change(limit, 0.0)
    assert 118 <= flood([first], 0, 60) <= 120, "a bucket, and a minute's refill of it"

    first.change(limit, 60.0, 3)
    assert 97 <= flood([first, *others], 60, 120) <= 100, "a minute's refill, and what two full parts hold"
    assert 57 <= flood([first, *others], 120, 180) <= 60

    first.change(limit, 180.0)
    assert 57 <= flood([first], 180, 240) <= 61


@given(
    limit=st.integers(1, 200),
    count=st.integers(1, 12),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 11)), max_size=80),
)
def test_in_the_long_run_the_parts_are_no_more_than_the_limit(limit: int, count: int, steps) -> None:
    several, now, taken = gateways(count, requests_per_minute=limit), 0.0, 0
    for pause_s, number in steps:
        now += pause_s
        taken += admitted(several[number % count], 0, now)
    assert taken <= max(limit, count) + now * limit / 60 + 0.01 * count


@pytest.mark.parametrize("count", [2, 3, 7, 50])
@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_no_part_is_nothing_and_each_refills_at_its_fraction(limit: int, count: int) -> None:
    one = gateways(count, requests_per_minute=limit)[0]
    assert admitted(one, 0, 0.0)
    while admitted(one, 0, 0.0):
        pass
    of_one_s = 60 * count / limit
    assert sum(admitted(one, 0, tenth * of_one_s / 10) for tenth in range(1, 101)) == 10


@pytest.mark.parametrize(
    ("limit", "count", "part"), [(None, 3, float("inf")), (64, 1, 64), (64, 3, 21), (2, 3, 1), (1, 50, 1)]
)
def test_requests_at_a_time_are_rounded_down_but_never_to_none(limit: int | None, count: int, part: float) -> None:
    assert part_of(limit, count) == part
    one = gateways(count, **({"concurrent_requests": limit} if limit else {}))[0]
    for _ in range(int(min(part, 100))):
        one.admit(0, 0.0)
    if limit:
        with pytest.raises(RequestError, match=rf"{part} concurrent requests( at each of {count} gateways)?;"):
            one.admit(0, 0.0)


def test_a_bucket_keeps_its_level_in_proportion_when_the_number_of_gateways_changes() -> None:
    limit = Limits(tokens_per_minute=900)
    one = gateways(1, tokens_per_minute=900)[0]
    one.admit(600, 0.0)
    one.change(limit, 0.0, 3)
    one.admit(0, 0.0)
    shown = one.headers(0.0)
    assert (shown["x-ratelimit-limit-tokens"], shown["x-ratelimit-remaining-tokens"]) == ("300", "100")
    one.change(limit, 0.0, 1)
    assert one.headers(0.0)["x-ratelimit-remaining-tokens"] == "300"


def test_a_new_limit_and_a_new_number_of_gateways_keep_what_is_left_of_the_whole() -> None:
    one = gateways(1, tokens_per_minute=900)[0]
    one.admit(600, 0.0)
    one.change(Limits(tokens_per_minute=1200), 0.0, 3)
    assert one.headers(0.0)["x-ratelimit-remaining-tokens"] == "100"


def test_what_the_limit_holds_but_no_part_of_it_passes_at_a_full_bucket_and_is_paid_in_full() -> None:
    one = gateways(3, tokens_per_minute=900)[0]
    one.admit(800, 0.0)
    with pytest.raises(RequestError) as caught:
        one.admit(1, 100.0)
    assert caught.value.headers["retry-after"] == "1", "800 tokens come back at 300 a minute"
    assert not admitted(one, 800, 159.0)
    with pytest.raises(RequestError) as caught:
        one.admit(800, 150.0)
    assert caught.value.headers["retry-after"] == "10"
    assert admitted(one, 800, 160.0)
    with pytest.raises(RequestError) as caught:
        one.admit(901, 1000.0)
    assert caught.value.status == 400, "that waits in vain"


def test_who_is_refused_is_told_the_whole_limit_and_who_shares_it() -> None:
    one = gateways(3, requests_per_minute=3)[0]
    one.admit(0, 0.0)
    with pytest.raises(RequestError, match="3 requests per minute, which 3 gateways share; there is room in 60 s"):
        one.admit(0, 0.0)
