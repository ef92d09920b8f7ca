import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.load_records import Request, answered, answered_whole, failed, run_of

from cotenant_loadtests.columns import OUTCOMES, columns_of
from cotenant_loadtests.measures import Measures, measure
from cotenant_loadtests.ranks import nearest_rank
from cotenant_loadtests.record import Outcome
from cotenant_loadtests.spec import Goodput
from cotenant_loadtests.window import Window

TEN_SECONDS = Window(0.0, 10.0)


def measured(*requests: Request, goodput: Goodput | None = None, window: Window = TEN_SECONDS) -> Measures:
    output = run_of(requests)
    columns = columns_of(output.plan, output.records)
    return measure(columns.rows(window.has(columns)), window, goodput)


def test_each_tenant_model_and_pair_has_its_own_figures() -> None:
    found = measured(
        answered(tenant="a", model="x", ttft_ms=10),
        answered(tenant="a", model="y", ttft_ms=20),
        answered(tenant="b", model="x", ttft_ms=30),
    )
    assert [(group.tenant, group.model, group.ttft_ms.max) for group in found.groups] == [
        ("a", "x", 10),
        ("a", "y", 20),
        ("b", "x", 30),
    ]
    assert [(group.tenant, group.model, group.ttft_ms.max) for group in found.tenants] == [
        ("a", "*", 20),
        ("b", "*", 30),
    ]
    assert [(group.tenant, group.model, group.ttft_ms.max) for group in found.models] == [
        ("*", "x", 30),
        ("*", "y", 20),
    ]
    assert (found.total.tenant, found.total.model, found.total.ttft_ms.max) == ("*", "*", 30)


def test_curves_are_kept_of_all_each_tenant_and_each_model_but_not_of_each_pair() -> None:
    found = measured(*(answered(tenant=tenant, model="x", ttft_ms=ms) for tenant in "ab" for ms in (10, 20)))
    assert all(len(group.ttft_ms.curve) > 2 for group in (found.total, *found.tenants, *found.models))
    assert [group.ttft_ms.curve for group in found.groups] == [(), ()]


def test_gaps_of_a_pair_with_more_rows_than_are_read_at_once_are_all_counted() -> None:
    found = measured(*(answered(tenant=f"t{number % 2}", gaps_ms=[10 + number % 7]) for number in range(2_500)))
    assert [group.itl_ms.count for group in found.groups] == [1250, 1250]
    assert (found.total.itl_ms.count, found.total.itl_ms.max) == (2500, 16)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from(OUTCOMES)), max_size=60))
def test_counts_of_the_groups_add_up(kinds: list[tuple[str, str, Outcome]]) -> None:
    found = measured(*(answered(tenant=tenant, model=model, outcome=outcome) for tenant, model, outcome in kinds))
    for parts in (found.groups, found.tenants, found.models):
        for field in ("scheduled", "succeeded", "cancelled", "failed", "good", "completion_tokens"):
            assert sum(getattr(group, field) for group in parts) == getattr(found.total, field)
    assert found.total.scheduled == sum(outcome != "interrupted" for _, _, outcome in kinds)
    assert found.total.succeeded + found.total.failed == found.total.scheduled
    assert sum(found.total.errors.values()) == found.total.failed


@given(st.lists(st.floats(0.001, 60_000), min_size=1, max_size=100))
def test_percentiles_agree_with_exact_sorting(ttfts_ms: list[float]) -> None:
    quantiles = measured(*(answered(ttft_ms=ttft_ms) for ttft_ms in ttfts_ms)).total.ttft_ms
    exact = sorted(round(ttft_ms * 1000) / 1000 for ttft_ms in ttfts_ms)
    for name, percentile in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("p999", 99.9)):
        truth = exact[nearest_rank(percentile, len(exact)) - 1]
        assert getattr(quantiles, name) == pytest.approx(truth, rel=1 / 2048, abs=0.001)
    assert quantiles.max == pytest.approx(exact[-1])
    assert quantiles.mean == pytest.approx(float(np.mean(exact)), abs=0.001)


def test_gaps_are_those_between_events_of_all_streams_together() -> None:
    found = measured(answered(gaps_ms=[10, 20]), answered(gaps_ms=[30]), answered_whole(took_ms=500)).total.itl_ms
    assert (found.count, found.mean, found.max) == (3, 20, 30)


def test_gaps_of_failures_do_not_count_and_those_of_cancelled_answers_do() -> None:
    found = measured(answered(gaps_ms=[10], outcome="cancelled"), answered(gaps_ms=[99], outcome="cut_short"))
    assert (found.total.itl_ms.count, found.total.itl_ms.max) == (1, 10)


def test_failures_count_in_rates_and_not_in_latencies() -> None:
    total = measured(answered(ttft_ms=10), failed("timeout", took_ms=60_000), failed("unfinished")).total
    assert total.success_rate == pytest.approx(1 / 3)
    assert (total.errors, total.ttft_ms.count, total.e2e_ms.max) == ({"timeout": 1, "unfinished": 1}, 1, 10)


def test_rates_are_per_second_of_the_window() -> None:
    requests = [answered(at_s=at, ttft_ms=ttft, gaps_ms=[1]) for at, ttft in ((1, 10), (2, 10), (3, 10), (4, 90))]
    total = measured(*requests, failed("reset", at_s=5), goodput=Goodput(ttft_ms=50), window=Window(0, 5.5)).total
    assert total.offered_per_s == pytest.approx(5 / 5.5)
    assert total.succeeded_per_s == pytest.approx(4 / 5.5)
    assert total.goodput_per_s == pytest.approx(3 / 5.5)
    assert total.completion_tokens_per_s == pytest.approx(8 / 5.5)


def test_tokens_are_those_of_successes() -> None:
    total = measured(answered(tokens=7), answered(tokens=100, outcome="wrong_answer")).total
    assert (total.completion_tokens, total.prompt_tokens) == (7, 8)


def test_nothing_measured_is_a_total_of_noughts() -> None:
    found = measured()
    assert (found.total.scheduled, found.total.success_rate, found.total.ttft_ms.count) == (0, 1.0, 0)
    assert found.groups == found.tenants == found.models == ()


def test_a_stall_shows_in_the_percentiles_as_long_as_requests_waited_for_it() -> None:
    """One request each 10 ms for 60 s; from second 20 on nothing is answered for 3 s: 5 % of the requests wait.

    They wait evenly for 0 to 3 s, so 1 % of all wait for over 2.4 s. A closed loop would have seen one slow request.
    """
    due_s = [number / 100 for number in range(6000)]
    requests = [answered(at_s=at, ttft_ms=10 + (max(0, 23 - at) * 1000 if at >= 20 else 0)) for at in due_s]
    ttft_ms = measured(*requests, window=Window(0, 60)).total.ttft_ms
    assert ttft_ms.p50 == pytest.approx(10, rel=0.001)
    assert ttft_ms.p99 == pytest.approx(2410, abs=15)
    assert ttft_ms.p999 == pytest.approx(2950, abs=15)
    assert ttft_ms.max == pytest.approx(3010)
