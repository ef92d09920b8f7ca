"""When is a model cold? When its server says so, or after long enough."""

from collections.abc import Callable, Iterator

import pytest

from cotenant_loadtests.coldness import SETTLE_S, check, wait_until_cold, why_warm
from cotenant_loadtests.refusals import RefusedError


class Pauses:
    """Counts seconds instead of waiting; wants to stop after so many pauses."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.waited: list[float] = []
        self.at_s = 500.0
        self.stop_after = stop_after

    def now_s(self) -> float:
        return self.at_s

    def __call__(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.at_s += seconds
        return self.stop_after is not None and len(self.waited) >= self.stop_after


def told(*engines: float | None) -> Callable[[str], float | None]:
    left: Iterator[float | None] = iter(engines)
    return lambda model: next(left)


def test_a_model_without_an_engine_is_cold_at_once() -> None:
    pauses = Pauses()

    assert wait_until_cold("m", told(0), idle_s=None, patience_s=9, pause=pauses, first=True) == "cold"
    assert pauses.waited == []


def test_a_warm_model_is_looked_at_until_its_engine_has_gone() -> None:
    pauses = Pauses()

    assert wait_until_cold("m", told(2, 1, 0), idle_s=None, patience_s=9, pause=pauses, first=True) == "cold"
    assert pauses.waited == [1.0, 1.0]


def test_after_a_wake_what_was_told_before_it_is_not_believed() -> None:
    pauses = Pauses()

    wait_until_cold("m", told(0), idle_s=None, patience_s=9, pause=pauses, first=False)

    assert pauses.waited == [SETTLE_S]


def test_silence_is_no_sign_of_cold() -> None:
    pauses = Pauses()

    assert wait_until_cold("m", told(None, 0), idle_s=None, patience_s=9, pause=pauses, first=True) == "cold"
    assert pauses.waited == [1.0]


def test_a_model_that_stays_warm_is_given_up() -> None:
    pauses = Pauses()

    waited = wait_until_cold(
        "m", lambda model: 1, idle_s=None, patience_s=3, pause=pauses, first=True, now_s=pauses.now_s
    )

    assert waited == "warm"
    assert sum(pauses.waited) == 3


def test_patience_ends_on_the_clock_however_long_the_looks_take() -> None:
    pauses, looks = Pauses(), list[str]()

    def dripping(model: str) -> None:
        looks.append(model)
        pauses.at_s += 5.0

    assert (
        wait_until_cold("m", dripping, idle_s=None, patience_s=60, pause=pauses, first=True, now_s=pauses.now_s)
        == "warm"
    )
    assert pauses.at_s - 500.0 <= 60 + 5 + 1
    assert len(looks) == 11


def test_a_target_that_does_not_tell_is_asked_once_however_many_models_there_are() -> None:
    looks = list[str]()
    with pytest.raises(RefusedError, match="model a: "):
        check(["a", "b", "c"], looks.append, None)
    assert looks == ["a"]


@pytest.mark.parametrize(("first", "idle_s"), [(True, None), (False, None), (True, 5.0)])
def test_a_wish_to_stop_ends_the_wait(first: bool, idle_s: float | None) -> None:
    pauses = Pauses(stop_after=1)

    assert wait_until_cold("m", lambda model: 1, idle_s=idle_s, patience_s=9, pause=pauses, first=first) == "stopped"


def test_a_server_that_does_not_tell_needs_a_time() -> None:
    with pytest.raises(RefusedError, match=r"model b: the target does not tell .* --idle-s"):
        check(["a", "b"], told(0, None), None)
    check(["a"], told(1), None)
    check(["a"], told(), 5.0)


@pytest.mark.parametrize(("engines", "state"), [(1, "warm"), (0, "cold"), (None, "cold")])
def test_time_without_requests_is_no_sign_of_cold_where_the_target_tells(engines: float | None, state: str) -> None:
    pauses = Pauses()

    assert wait_until_cold("m", told(engines), idle_s=1, patience_s=9, pause=pauses, first=True) == state
    assert pauses.waited == [1]


def test_whoever_does_not_get_cold_is_told_which_option_helps() -> None:
    assert "within --patience-s 2 that it has no engine; give it longer" in why_warm(None, 2)
    assert "it still had an engine after --idle-s 1; give it longer, or leave --idle-s out" in why_warm(1, 900)
