import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.load_records import Request, answered, answered_whole, failed, never_sent, run_of

from cotenant_loadtests.columns import columns_of
from cotenant_loadtests.results import Timeline
from cotenant_loadtests.timeline import bin_width_s, timeline_of


def timeline(*requests: Request, duration_s: float) -> Timeline:
    output = run_of(requests)
    return timeline_of(columns_of(output.plan, output.records), round(duration_s * 1e6))


@pytest.mark.parametrize(
    ("duration_s", "width_s"), [(2, 0.01), (10, 0.05), (60, 0.5), (120, 0.5), (121, 1), (3600, 15), (14_400, 60)]
)
def test_bins_have_widths_that_read_well(duration_s: float, width_s: float) -> None:
    assert bin_width_s(duration_s) == width_s


@given(st.floats(2.5, 30 * 86_400))
def test_there_are_some_60_to_240_bins(duration_s: float) -> None:
    assert 60 <= duration_s / bin_width_s(duration_s) <= 240


def test_requests_count_where_they_were_scheduled_and_tokens_where_they_came() -> None:
    found = timeline(answered(at_s=0.1, ttft_ms=500, gaps_ms=[500, 500]), failed("reset", at_s=1.2), duration_s=120)
    everyone, blue = found.series
    assert (found.bin_s, len(everyone.scheduled)) == (0.5, 240)
    assert everyone.tenant == "*"
    assert blue.tenant == "blue"
    assert everyone.scheduled[:4] == (1, 0, 1, 0)
    assert everyone.succeeded[:4] == (1, 0, 0, 0)
    assert everyone.failed[:4] == (0, 0, 1, 0)
    assert everyone.completion_tokens[:5] == (0, 1, 1, 1, 0)
    assert everyone.ttft_p99_ms[:3] == (500, None, None)


def test_in_flight_are_those_sent_and_not_ended_at_the_end_of_a_bin() -> None:
    long = answered(at_s=0.4, ttft_ms=1000)
    waits = never_sent("unfinished", at_s=0.1, took_ms=5000)
    cut_off = failed("interrupted", at_s=0.6, took_ms=300)
    found = timeline(long, waits, cut_off, answered(at_s=0.1, ttft_ms=100), duration_s=120).series[0]
    assert found.in_flight[:4] == (1, 1, 0, 0)


def test_interrupted_requests_are_neither_scheduled_nor_failed() -> None:
    found = timeline(failed("interrupted", at_s=0.6), duration_s=120).series[0]
    assert (sum(found.scheduled), sum(found.failed)) == (0, 0)


def test_what_ends_exactly_at_the_end_of_a_bin_is_no_longer_in_flight_and_what_is_sent_then_is() -> None:
    ends = answered(at_s=0.4, ttft_ms=100)
    begins = answered(at_s=1.0, ttft_ms=700)
    at_once = answered(at_s=2.0, ttft_ms=0)
    found = timeline(ends, begins, at_once, duration_s=120).series[0]
    assert found.in_flight[:5] == (0, 1, 1, 0, 0)


@pytest.mark.parametrize(
    ("count", "p50", "p99"), [(1, 1, 1), (2, 1, 2), (99, 50, 99), (100, 50, 99), (101, 51, 100), (200, 100, 198)]
)
def test_percentiles_of_a_bin_are_by_nearest_rank(count: int, p50: float, p99: float) -> None:
    found = timeline(*(answered(at_s=1, ttft_ms=ms) for ms in range(1, count + 1)), duration_s=120).series[0]
    assert (found.ttft_p50_ms[2], found.ttft_p99_ms[2]) == (p50, p99)


@given(st.lists(st.tuples(st.floats(0, 9), st.sampled_from("ab"), st.integers(1, 9)), max_size=40))
def test_series_of_the_tenants_add_up_to_that_of_all(requests: list[tuple[float, str, int]]) -> None:
    some = [answered_whole(at_s=at_s, tenant=tenant, tokens=tokens) for at_s, tenant, tokens in requests]
    everyone, *tenants = timeline(*some, duration_s=10).series
    for field in ("scheduled", "succeeded", "failed", "in_flight", "completion_tokens"):
        assert sum(getattr(everyone, field)) == sum(sum(getattr(tenant, field)) for tenant in tenants)
    assert sum(everyone.scheduled) == len(some)
    assert sum(everyone.completion_tokens) == sum(tokens for _, _, tokens in requests)


def test_what_ends_with_the_run_is_in_its_last_bin() -> None:
    found = timeline(answered_whole(at_s=9, took_ms=1000, tokens=3), duration_s=10).series[0]
    assert found.completion_tokens[-1] == 3


def test_a_run_without_requests_has_one_series_of_noughts() -> None:
    (everyone,) = timeline(duration_s=0).series
    assert everyone.scheduled == (0,)
