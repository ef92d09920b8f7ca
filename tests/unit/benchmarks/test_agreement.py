"""When `bench-agreement` says that two tools agree."""

from typing import Any

import pytest
from benchmarks.agreement import FIGURES, PERCENTS, Interval, apart, interval, of_guidellm, of_harness, table, worst


def values(ttft_ms: float, others_ms: float = 100.0) -> dict[str, float]:
    keys = [f"{figure.name} p{percent}" for figure in FIGURES for percent in PERCENTS]
    return {key: ttft_ms if "TTFT" in key else others_ms for key in keys} | {"lateness p99": 0.5}


def request(number: int, *, late_s: float = 0.0) -> dict[str, Any]:
    """As in GuideLLM's JSON; one each 0.1 s, 40 tokens 20 ms apart."""
    return {
        "request_start_time": 0.1 * number,
        "request_latency": 0.83,
        "request_scheduled_latency": 0.83 + late_s,
        "request_dispatch_delay": late_s,
        "time_to_first_token_ms": 50.0,
        "inter_token_latency_ms": 20.0,
        "time_per_output_token_ms": 20.75,
    }


@pytest.mark.parametrize(
    ("one", "other", "ms"),
    [((50, 52), (51, 60), 0), ((50, 52), (54, 60), 2), ((54, 60), (50, 52), 2), ((50, 60), (51, 52), 0)],
)
def test_intervals_are_apart_by_their_nearest_ends(
    one: tuple[float, float], other: tuple[float, float], ms: float
) -> None:
    assert apart(Interval(*one), Interval(*other)) == ms


def test_an_interval_spans_its_rounds() -> None:
    assert interval([{"a": 3.0}, {"a": 1.0}, {"a": 2.0}], "a") == Interval(1.0, 3.0)


def test_the_table_says_which_figures_agree() -> None:
    ours, theirs = [values(50.0), values(51.0)], [values(53.5), values(54.0)]
    lines = [line for line in table(ours, theirs).splitlines() if line.startswith("| TTFT |")]
    assert all(line.endswith("| 50.0 – 51.0 | 53.5 – 54.0 | 2.5 ms apart |") for line in lines)
    assert "| E2E, both from the schedule | p50 | 830.0 | 100.0 – 100.0 | 100.0 – 100.0 | agree |" in table(
        ours, theirs
    )
    assert worst(ours, theirs, 50) == {
        "ttft_ms_p50_apart_ms": 2.5,
        "tpot_ms_p50_apart_ms": 0,
        "e2e_ms_p50_apart_ms": 0,
    }


def test_guidellms_figures_are_read_with_and_without_its_own_delay() -> None:
    found = of_guidellm({"requests": {"successful": [request(n, late_s=0.004) for n in range(60)]}})
    assert found["TTFT p99"] == 50.0
    assert found["TTFT, both from the schedule p99"] == pytest.approx(54)
    assert found["E2E, both from the schedule p50"] == pytest.approx(834)
    assert found["lateness p99"] == pytest.approx(4)


def test_guidellms_warm_up_is_left_out() -> None:
    requests = [request(n, late_s=1.0 if n < 20 else 0.0) for n in range(60)]
    assert of_guidellm({"requests": {"successful": requests}})["lateness p99"] == 0


def test_time_per_output_token_with_the_first_is_e2e_by_tokens() -> None:
    quantiles = {"p50": 830.0, "p99": 832.0}
    total = dict.fromkeys(("ttft_ms", "tpot_ms", "e2e_ms"), quantiles)
    found = of_harness({"total": total, "validity": {"lateness_ms": {"p99": 0.2}}})
    assert found["E2E / tokens; GuideLLM: time per output token p50"] == pytest.approx(20.75)
    assert found["E2E; GuideLLM: request latency p50"] == 830.0
    assert found["lateness p99"] == 0.2
