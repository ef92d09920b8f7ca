"""Waiting before another attempt: how long, how often, and when not at all."""

import pytest

from cotenant_cache.backoff import Patience, TryAgainError, nap, retried
from cotenant_cache.errors import FetchStoppedError, HubUnreachableError
from cotenant_cache.pace import Floor, Pace

PATIENCE = Patience(attempts=4, first_s=1.0, longest_s=10.0, longest_asked_s=60.0)


def test_waits_double_up_to_the_longest_and_differ_by_chance() -> None:
    assert [PATIENCE.wait_s(n, None, 1.0) for n in range(1, 7)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert PATIENCE.wait_s(10_000, None, 0.0) == 5.0


def test_who_names_a_time_is_not_asked_before_it() -> None:
    assert PATIENCE.wait_s(1, 7.0, 0.0) == 7.0
    assert PATIENCE.wait_s(1, 7.0, 1.0) == 8.0


def test_a_nap_ends_when_it_is_told_to() -> None:
    slept: list[float] = []
    assert nap(1.2, slept.append, lambda: False)
    assert sum(slept) == pytest.approx(1.2)
    assert not nap(1000.0, slept.append, lambda: len(slept) > 5)


def answers(*errors: HubUnreachableError) -> tuple[list[float], float]:
    """The waits, and when it went well: the sum of them."""
    left, slept = list(errors), list[float]()

    def call() -> float:
        if left:
            raise left.pop(0)
        return sum(slept)

    return slept, retried(call, PATIENCE, sleep=slept.append, random=lambda: 1.0)


def test_a_hub_that_may_answer_later_is_asked_later() -> None:
    busy, named = HubUnreachableError("x", transient=True), HubUnreachableError("x", transient=True, retry_after_s=5)
    assert answers(busy, named)[1] == pytest.approx(1.0 + 6.0)


@pytest.mark.parametrize(
    "errors",
    [
        [HubUnreachableError("no hub at all")],
        [HubUnreachableError("hours", transient=True, retry_after_s=7200)],
        [HubUnreachableError("x", transient=True)] * 4,
    ],
)
def test_no_waiting_where_it_does_not_help(errors: list[HubUnreachableError]) -> None:
    with pytest.raises(HubUnreachableError):
        answers(*errors)


def test_who_was_told_to_stop_does_not_ask_at_all() -> None:
    with pytest.raises(FetchStoppedError):
        retried(lambda: pytest.fail("it was asked"), PATIENCE, sleep=lambda s: None, random=float, stop=lambda: True)


def test_a_rate_is_one_average_for_all_and_saves_up_nothing() -> None:
    now = [0.0]
    pace = Pace(100, lambda: now[0])
    assert pace.spend(50) == 0.5
    assert pace.spend(50) == 1.0
    now[0] = 1000.0
    assert pace.spend(100) == 1.0
    assert Pace(0, lambda: 0.0).spend(10**12) == 0.0


def test_a_connection_that_drips_is_given_up_and_a_slow_one_is_not() -> None:
    floor = Floor(bytes_per_s=100, over_s=10.0)
    for _ in range(100):
        floor.came(100, 1.0)
    floor.came(81, 9.0)
    with pytest.raises(TryAgainError, match="only 90 bytes came in 10 s"):
        floor.came(9, 1.0)
