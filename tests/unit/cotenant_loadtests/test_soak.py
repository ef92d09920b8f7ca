"""Segments for hours, in a memory that does not grow with requests, and the drift over them."""

from collections.abc import Iterator

import pytest
from tests.builders.load_findings import slowing, soaked
from tests.builders.load_records import scenario_of
from tests.builders.load_results import group, quantiles, results

from cotenant_loadtests.extras import Drift, Soak
from cotenant_loadtests.observed import KNOWN
from cotenant_loadtests.observing import metrics_url
from cotenant_loadtests.results import Results, Sample, ServerSide
from cotenant_loadtests.run_output import Failed
from cotenant_loadtests.soak import RSS, server_rss_bytes, verdict_of
from cotenant_loadtests.soak_command import observing_memory
from cotenant_loadtests.spec import Scenario


def drift(found: Soak, metric: str) -> Drift:
    return next(one for one in found.drifts if one.metric == metric)


def test_a_server_that_gets_slower_is_found_with_its_slope_per_hour() -> None:
    found, _ = soaked(0.5, slowing(1.0))

    slower = drift(found, "ttft_p50_ms")
    assert slower.trend == "rises"
    assert slower.per_hour == pytest.approx(60, rel=0.05)
    assert slower.interval is not None
    assert slower.interval.low <= 60 <= slower.interval.high
    assert drift(found, "ttft_p99_ms").per_hour == pytest.approx(120, rel=0.05)


def test_of_a_steady_server_no_drift_is_shown() -> None:
    found, _ = soaked(0.5, slowing(0.0))

    assert drift(found, "ttft_p50_ms").trend == "none_shown"
    assert drift(found, "tool_rss_bytes").trend == "none_shown"


def test_a_leak_of_server_and_tool_is_seen() -> None:
    def of(number: int) -> Results:
        sample = Sample(at_s=1.0, values={'process_resident_memory_bytes{pid="1"}': 1e6 * number})
        return results(server=ServerSide(metrics=(sample,)))

    found, _ = soaked(0.5, of, rss_bytes=lambda number: 2_000_000 * number)

    assert drift(found, "server_rss_bytes").trend == "rises"
    assert drift(found, "server_rss_bytes").per_hour == pytest.approx(60e6)
    assert drift(found, "tool_rss_bytes").per_hour == pytest.approx(120e6)


def test_what_the_server_does_not_tell_was_not_measured() -> None:
    assert drift(soaked(0.5, slowing(0.0))[0], "server_rss_bytes").trend == "not_measured"
    assert (
        server_rss_bytes(ServerSide(metrics=(Sample(at_s=1.0, values={"process_resident_memory_bytes_x": 1.0}),)))
        is None
    )


def test_memory_is_that_of_all_processes_in_the_last_sample_that_tells_it() -> None:
    told = {
        'process_resident_memory_bytes{pid="1"}': 3.0,
        'process_resident_memory_bytes{pid="2"}': 4.0,
        "other": 9.0,
    }
    samples = (Sample(at_s=1.0, values=told), Sample(at_s=2.0, values={"other": 1.0}))

    assert server_rss_bytes(ServerSide(metrics=samples)) == 7.0


def test_memory_of_a_cotenant_gateway_is_what_it_says_of_its_processes_together() -> None:
    told = {"cotenant_gateway_resident_memory_bytes": 5.0, 'process_resident_memory_bytes{pid="1"}': 3.0}

    assert server_rss_bytes(ServerSide(metrics=(Sample(at_s=1.0, values=told),))) == 5.0


@pytest.mark.parametrize(
    ("observe", "metrics"),
    [
        ({}, RSS),
        ({"metrics": ["vllm:"]}, ("vllm:", *RSS)),
        ({"metrics": [RSS[1]], "table": True}, (RSS[1], RSS[0])),
        ({"table": True}, ()),
        ({"metrics_url": "http://127.0.0.1:1/metrics"}, ()),
    ],
)
def test_the_servers_memory_is_asked_for_whatever_a_scenario_observes(
    observe: dict[str, object], metrics: tuple[str, ...]
) -> None:
    found = observing_memory(scenario_of(observe=observe))

    assert found.observe.metrics == metrics
    assert metrics_url(found.observe, found.target) is not None
    assert Scenario.model_validate(found.model_dump()) == found
    assert metrics or set(RSS) <= set(KNOWN)


def test_segments_begin_while_there_is_time_for_them() -> None:
    assert len(soaked(0.1, slowing(0))[0].segments) == 6
    assert len(soaked(0.1, slowing(0), pause_s=30)[0].segments) == 4
    assert len(soaked(0.001, slowing(0))[0].segments) == 1


def test_few_segments_have_a_slope_without_a_claim() -> None:
    few = drift(soaked(0.05, slowing(1.0))[0], "ttft_p50_ms")

    assert (few.trend, few.interval) == ("too_few_segments", None)
    assert few.per_hour is not None


def test_an_early_stop_reports_the_whole_segments() -> None:
    def of(number: int) -> Results:
        return results(name=str(number), interrupted=number == 7)

    found, shown = soaked(1.0, of)

    assert (len(found.segments), found.interrupted, found.hours) == (7, True, 1.0)
    assert found.ran_s == 8 * 60
    assert shown.name == "6"


def test_a_stop_in_the_first_segment_shows_that() -> None:
    found, shown = soaked(1.0, lambda number: results(name="cut", interrupted=True))

    assert (found.segments, shown.name, verdict_of(found)) == ((), "cut", "not_valid")


def test_a_segment_that_is_not_valid_is_kept_out_of_the_drift_of_latency() -> None:
    def of(number: int) -> Results:
        return results("not_valid", total=group(ttft_ms=quantiles(9_000.0))) if number == 5 else slowing(0.0)(number)

    found, _ = soaked(0.5, of)

    assert found.segments[5].why_not_valid == ("too late.",)
    assert drift(found, "ttft_p50_ms").trend == "none_shown"
    assert verdict_of(found) == "passed"


def test_a_segment_that_fails_costs_its_time_and_nothing_else() -> None:
    def of(number: int) -> Results | Failed:
        return Failed("worker 0 died") if number in (3, 4) else slowing(0.0)(number)

    found, shown = soaked(0.5, of)

    assert len(found.segments) == 30
    lost = found.segments[3]
    assert (lost.verdict, lost.why_not_valid, lost.requests) == ("not_valid", ("worker 0 died",), 0)
    assert (lost.from_s, lost.to_s) == (180, 240)
    assert drift(found, "ttft_p50_ms").trend == "none_shown"
    assert verdict_of(found) == "passed"
    assert shown.total.scheduled > 0


def test_many_segments_that_are_not_valid_make_the_whole_not_valid() -> None:
    verdicts: Iterator[bool] = iter([True, True, *[False] * 8])

    found, _ = soaked(1 / 6, lambda number: results("not_valid" if next(verdicts) else "passed"))

    assert len(found.segments) == 10
    assert verdict_of(found) == "not_valid"


def test_one_missed_slo_in_hours_is_a_miss_and_is_named() -> None:
    found, _ = soaked(0.5, lambda number: results("missed" if number == 3 else "passed"))

    assert verdict_of(found) == "missed"
    assert [slo.slo for slo in found.segments[3].missed] == ["ttft_p99_ms"]
