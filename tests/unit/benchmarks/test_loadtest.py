"""What `bench-loadtest` makes of the figures of the generators."""

import pytest
from benchmarks import loadtest, loadtest_tools
from benchmarks.answered import Answered, Window, tokens_between, window_of
from benchmarks.loadtest import Round, best, most, ratios
from benchmarks.loadtest_tools import Step
from benchmarks.watching import interpolate

from cotenant_loadtests.ranks import at_percentile
from cotenant_loadtests.spec import Scenario


def answers(
    count: int, *, late_ms: float | None = 0.0, ttft_ms: float = 10.0, every_s: float = 0.1
) -> list[Answered]:
    """A stream of 100 tokens in one second, each 0.1 s."""
    return [
        Answered(
            due_s=None if late_ms is None else number * every_s - late_ms / 1000,
            sent_s=number * every_s,
            first_s=number * every_s + ttft_ms / 1000,
            last_s=number * every_s + ttft_ms / 1000 + 1,
            tokens=100,
        )
        for number in range(count)
    ]


def step(tokens_per_s: float, late_ms: float = 1.0, *, cpu_s: float = 0.5, asked: float = 1) -> Step:
    window = Window(
        0.0, 1.0, requests=tokens_per_s / 100, tokens=tokens_per_s, lateness_p99_ms=late_ms, ttft_p99_ms=9
    )
    return Step(asked, window, cpu_s, server_share=0.5)


def test_tokens_count_where_they_came() -> None:
    one = answers(1)
    assert tokens_between(one, 0.0, 2.0) == pytest.approx(100)
    assert tokens_between(one, 0.51, 2.0) == pytest.approx(50)
    assert tokens_between(one, 5.0, 6.0) == 0


def test_a_whole_answer_counts_when_it_came() -> None:
    whole = [Answered(0.0, 0.0, 1.0, 1.0, tokens=16)]
    assert tokens_between(whole, 0.5, 1.5) == 16
    assert tokens_between(whole, 1.5, 2.5) == 0


def test_the_window_begins_after_the_warm_up_and_ends_with_the_last_request() -> None:
    window = window_of(answers(61), warmup_s=2.0, true_ttft_ms=10)
    assert (window.from_s, window.to_s) == pytest.approx((2.0, 6.0))
    assert window.tokens_per_s == pytest.approx(1000, rel=0.01)
    assert window.requests_per_s == pytest.approx(10, rel=0.03)


def test_lateness_is_from_due_to_sent() -> None:
    assert window_of(answers(61, late_ms=3), 2.0, true_ttft_ms=10).lateness_p99_ms == pytest.approx(3)


def test_a_closed_loop_is_late_when_it_sees_the_first_token_late() -> None:
    window = window_of(answers(61, late_ms=None, ttft_ms=12.5), 2.0, true_ttft_ms=10)
    assert window.lateness_p99_ms == pytest.approx(2.5)


def test_a_window_with_hardly_an_answer_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="only 9 answers"):
        window_of(answers(30), warmup_s=2.0, true_ttft_ms=10)
    with pytest.raises(RuntimeError, match="only 0 answers"):
        window_of([], warmup_s=2.0, true_ttft_ms=10)


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_one_of_the_values(percent: float, value: float) -> None:
    assert at_percentile(list(range(100, 0, -1)), percent) == value


def test_cpu_between_two_samples_is_interpolated() -> None:
    at, total = [10.0, 11.0, 13.0], [1.0, 2.0, 6.0]
    assert [interpolate(at, total, when) for when in (9.0, 10.5, 11.0, 12.0, 20.0)] == [1.0, 1.5, 2.0, 4.0, 6.0]


def test_the_best_step_is_the_one_with_the_most_tokens_that_was_not_late() -> None:
    steps = [step(1000), step(4000, 4.9), step(3000), step(9000, 5.1)]
    assert best(steps).window.tokens == 4000
    assert most(steps).window.tokens == 9000


def test_a_tool_that_is_always_late_is_taken_where_it_was_least_late() -> None:
    assert best([step(1000, 8.0), step(2000, 7.0), step(3000, 20.0)]).window.tokens == 2000


def test_ratios_are_of_one_round_and_the_median_over_rounds() -> None:
    def one(fast: float) -> Round:
        return Round(
            harness=[step(fast * 1000, cpu_s=0.5), step(fast * 50_000, cpu_s=0.5)],
            again=step(fast * 1000, cpu_s=0.5),
            guidellm=[step(5000), step(8000, 80)],
            locust=[step(10_000), step(25_000, 30)],
            unary=[step(100_000, cpu_s=0.05), step(90_000, cpu_s=0.09)],
            locust_unary=step(100_000, cpu_s=0.1),
            by_processes=[step(5000, cpu_s=0.05), step(10_000, cpu_s=0.1), step(20_000, cpu_s=0.21)],
        )

    found = ratios([one(1), one(2), one(3)], many_rss_bytes=150_000_000)
    assert found == pytest.approx(
        {
            "tokens_vs_guidellm": 20,
            "tokens_vs_locust": 10,
            "tokens_vs_locust_however_late": 4,
            "chunk_us": 5,
            "chunk_vs_guidellm": 0.05,
            "chunk_vs_locust": 0.1,
            "unary_us": 50,
            "unary_vs_locust": 0.5,
            "streams_5000_mb": 150,
            "chunk_4_processes_vs_1": 1.05,
            "control": 1,
        }
    )


def test_guidellms_answers_are_read_with_their_schedule() -> None:
    timings = {
        "targeted_start": 1.0,
        "request_start": 1.1,
        "first_token_iteration": 1.2,
        "last_token_iteration": 2.2,
        "request_end": 2.3,
    }
    requests = {"errored": [], "successful": [{"info": {"timings": timings}, "output_tokens": 100}]}
    assert loadtest_tools.guidellm_answers({"requests": requests}) == [Answered(1.0, 1.1, 1.2, 2.2, 100)]
    with pytest.raises(RuntimeError, match="1 errors"):
        loadtest_tools.guidellm_answers({"requests": requests | {"errored": [{}]}})


def test_what_the_harness_is_asked_for_is_a_scenario() -> None:
    load = loadtest_tools.Load(loadtest.TOKENS, streamed=True, step_s=5)
    Scenario.model_validate(loadtest_tools.scenario("http://127.0.0.1:1", load, 800, processes=4))
