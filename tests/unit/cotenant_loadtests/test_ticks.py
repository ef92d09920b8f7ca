import msgspec
import pytest

from cotenant_loadtests.orders import TenantTick, Tick
from cotenant_loadtests.ranks import at_percentile
from cotenant_loadtests.ticks import load_of, progress_of


def tick(
    at_s: float, cpu_s: float = 0.0, *, rss: int = 0, lateness: tuple[int, ...] = (), **tenants: TenantTick
) -> Tick:
    return Tick(at_s=at_s, tenants=tenants, lateness_us=lateness, cpu_s=cpu_s, rss_bytes=rss, bytes_in=0, bytes_out=0)


def test_counts_are_the_sums_of_all_workers_and_samples_those_of_the_last_second() -> None:
    old = tick(4, ads=TenantTick(sent=9, failed=2, ttft_us=(9000,)))
    one = tick(5, ads=TenantTick(sent=10, failed=3, ttft_us=(1000, 3000)), search=TenantTick(sent=1, in_flight=1))
    two = tick(5, lateness=(50, 4000), ads=TenantTick(sent=5, succeeded=4, tokens=7, ttft_us=(2000,)))

    progress = progress_of(5.0, [one, two], [one, two])

    assert old not in [one, two]
    assert progress.at_s == 5.0
    assert progress.sent == {"ads": 15, "search": 1}
    assert progress.failed == {"ads": 3, "search": 0}
    assert (progress.succeeded["ads"], progress.in_flight["search"], progress.tokens["ads"]) == (4, 1, 7)
    assert progress.ttft_p50_ms == {"ads": 2.0}
    assert progress.lateness_p99_ms == 4.0


def test_errors_of_all_workers_are_added_by_their_outcome() -> None:
    ticks = [
        msgspec.structs.replace(tick(1), errors={"reset": 2, "timeout": 1}),
        msgspec.structs.replace(tick(1), errors={"reset": 3}),
    ]

    assert progress_of(1.0, ticks, ticks).errors == {"reset": 5, "timeout": 1}


@pytest.mark.parametrize(
    ("values", "percentile", "expected"),
    [([], 50, 0), ([7], 99, 7), ([3, 1, 2], 50, 2), ([1, 2, 3, 4], 50, 2), (list(range(1, 101)), 99, 99)],
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    values: list[int], percentile: float, expected: float
) -> None:
    assert at_percentile(values, percentile) == expected


def test_the_load_is_that_of_the_window_with_its_peak_and_its_saturated_seconds() -> None:
    ticks = [tick(1, 0.9), tick(2, 1.0, rss=5), tick(3, 1.5, rss=9), tick(4, 2.5, rss=7), tick(5, 3.5)]

    load = load_of(3, ticks, (1.0, 4.0), requests=12)

    assert (load.process, load.requests, load.max_rss_bytes) == (3, 12, 9)
    assert load.cpu_share == pytest.approx((2.5 - 0.9) / 3)
    assert load.cpu_share_peak == pytest.approx(1.0)
    assert load.saturated_share == pytest.approx(1 / 3)


def test_a_run_shorter_than_its_warm_up_has_the_load_of_all_of_it() -> None:
    assert load_of(0, [tick(1, 0.5)], (10.0, 60.0), requests=0).cpu_share == 0.5


def test_a_last_tick_soon_after_another_is_no_second_at_a_whole_core() -> None:
    assert load_of(0, [tick(1.0, 0.1), tick(1.001, 0.11)], (0, 60), requests=0).cpu_share_peak == pytest.approx(0.1)


def test_a_worker_that_never_told_has_no_load() -> None:
    load = load_of(0, [], (0, 60), requests=0)

    assert (load.cpu_share, load.cpu_share_peak, load.saturated_share, load.max_rss_bytes) == (0, 0, 0, 0)
