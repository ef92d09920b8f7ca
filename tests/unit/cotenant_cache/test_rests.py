"""How long a hub that asked to be left alone is left alone, and by whom."""

from cotenant_cache.rests import MOST_S, Rests

HUB = "https://hub.example"
MINE, OTHER = {"authorization": "Bearer hf_mine"}, {"authorization": "Bearer hf_other"}


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_hub_is_left_alone_as_long_as_it_asked_by_the_token_that_it_asked() -> None:
    rests = Rests(clock := Time())
    rests.note(HUB, MINE, 600.0)
    clock.now += 250.0
    assert rests.left_s(HUB, MINE) == 350.0
    assert rests.left_s(HUB, OTHER) == rests.left_s(HUB, {}) == rests.left_s("https://mirror.example", MINE) == 0.0
    clock.now += 350.0
    assert rests.left_s(HUB, MINE) == 0.0


def test_a_shorter_wish_takes_nothing_from_a_longer_one_and_none_is_none() -> None:
    rests = Rests(Time())
    for seconds in (600.0, 5.0, 0.0, None):
        rests.note(HUB, MINE, seconds)
    assert rests.left_s(HUB, MINE) == 600.0


def test_whatever_a_hub_says_it_is_asked_again_within_an_hour() -> None:
    rests = Rests(Time())
    rests.note(HUB, MINE, 1e12)
    assert rests.left_s(HUB, MINE) == MOST_S == 3600.0


def test_no_token_is_kept_and_what_is_over_is_forgotten() -> None:
    rests = Rests(clock := Time())
    rests.note(HUB, MINE, 600.0)
    assert "hf_mine" not in str(vars(rests))
    clock.now += 600.0
    rests.note(HUB, OTHER, 600.0)
    assert len(rests._until) == 1
