"""Floods on real dispatchers in virtual time: who is served how much, who waits how long, who is refused."""

import random
from collections import defaultdict
from collections.abc import Callable

import pytest
from tests.builders.contended_model import HOLD_S, TOKENS_PER_S, Crowd, Mix

from cotenant_serving.gateway.queue import HANDOVER_SLACK, QUANTUM_TOKENS, QueueLimits

WARM_UP_S = 40.0
RUN_S = 240.0


def exact(least: int, most: int) -> Mix:
    def draw(rng: random.Random) -> tuple[int, int]:
        tokens = rng.randint(least, most)
        return tokens, tokens

    return draw


def estimated(estimate: int, least: int, most: int) -> Mix:
    return lambda rng: (estimate, rng.randint(least, most))


def mostly_short(rng: random.Random) -> tuple[int, int]:
    """One of ten answers is long, and nobody can tell which."""
    return 256, rng.randint(800, 1200) if rng.random() < 0.1 else rng.randint(20, 120)


MIXES = {
    "alike": (exact(50, 350), exact(50, 350)),
    "the flood's are short": (exact(10, 40), exact(400, 600)),
    "the flood's are long": (exact(400, 600), exact(10, 40)),
    "the flood's claim far too much": (estimated(4000, 50, 350), exact(50, 350)),
    "the flood's claim far too little": (estimated(20, 50, 350), exact(50, 350)),
    "the other's claim far too much": (exact(50, 350), estimated(4000, 50, 350)),
    "lengths that nobody can tell": (mostly_short, mostly_short),
}


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("mix", MIXES)
def test_a_flood_and_a_steady_backlog_are_served_the_same_number_of_tokens(
    mix: str, workers: int, full_size: Callable[[int], int]
):
    for seed in range(full_size(10)):
        crowd = Crowd(workers=workers, slots=4, seed=seed)
        greedy, steady = MIXES[mix]
        crowd.backlog("steady", 12, steady)
        crowd.flood("greedy", 100, greedy)
        crowd.run(RUN_S)

        served = crowd.served(WARM_UP_S, RUN_S)
        assert 0.9 < served["greedy"] / served["steady"] < 1.1, f"seed {seed}: {served}"
        assert sum(served.values()) > 0.97 * 4 * TOKENS_PER_S * (RUN_S - WARM_UP_S), f"seed {seed}: slots stood idle"
        assert crowd.left_over == {}


@pytest.mark.parametrize("workers", [1, 4])
def test_a_third_tenants_occasional_requests_wait_at_most_one_turn(workers: int):
    crowd = Crowd(workers=workers, slots=4, seed=3)
    crowd.backlog("steady", 12, exact(50, 350))
    crowd.flood("greedy", 100, exact(50, 350))
    crowd.flood("light", 0.1, exact(50, 100))
    crowd.run(RUN_S)

    light = [one for one in crowd.ended if one.tenant == "light"]
    assert len(light) > 8
    turn = QUANTUM_TOKENS + 350 + (0 if workers == 1 else HANDOVER_SLACK * QUANTUM_TOKENS)
    for mine in light:
        meanwhile: dict[str, int] = defaultdict(int)
        for other in crowd.ended:
            if mine.came < other.began < mine.began and other.tenant != "light":
                meanwhile[other.tenant] += other.tokens
        assert max(meanwhile.values(), default=0) <= turn, f"{meanwhile} began before it"
    assert not [one for one in crowd.refused if one.tenant == "light"]


def test_a_flood_leaves_room_for_others_when_all_places_are_taken():
    crowd = Crowd(workers=1, slots=4, seed=4, limits=QueueLimits(total=100, per_tenant=90))
    for tenant in ("one", "two"):
        crowd.flood(tenant, 50, exact(50, 350))
    crowd.backlog("steady", 8, exact(50, 350))
    crowd.run(100)

    assert {one.code for one in crowd.refused} == {"queue_full", "overloaded"}
    assert {one.tenant for one in crowd.refused} == {"one", "two"}
    assert any(one.came < one.at for one in crowd.refused), "some made way after they had waited"
    assert crowd.left_over == {}


@pytest.mark.parametrize("workers", [1, 4])
def test_retry_after_is_when_those_that_wait_will_be_gone(workers: int):
    crowd = Crowd(workers=workers, slots=4, seed=5, limits=QueueLimits(per_tenant=60))
    crowd.backlog("steady", 12, exact(50, 350))
    crowd.flood("greedy", 5, exact(50, 350))
    crowd.run(RUN_S)

    told = [one for one in crowd.refused if WARM_UP_S < one.at < RUN_S - 100][::10]
    assert len(told) > 30
    for one in told:
        waiting = [it for it in crowd.ended if it.tenant == "greedy" and it.came < one.at < it.began]
        gone_s = max(it.began for it in waiting) - one.at
        assert 0.5 < one.retry_after_s / gone_s < 2, f"told {one.retry_after_s} s, gone after {gone_s:.0f} s"


def test_nobody_waits_longer_than_it_may_and_who_could_only_wait_in_vain_is_refused_at_once():
    crowd = Crowd(workers=1, slots=2, seed=6)
    crowd.flood("greedy", 2, exact(200, 400))
    crowd.run(600)

    longest_s = max(one.began - one.came for one in crowd.ended)
    assert 60 < longest_s < HOLD_S
    assert {one.code for one in crowd.refused} <= {"queue_full", "no_capacity"}
    assert max(one.at - one.came for one in crowd.refused) <= HOLD_S + 0.001
    late = [one for one in crowd.refused if one.came > 300]
    in_vain = [one for one in late if one.at > one.came]
    assert len(in_vain) < 0.4 * len(late)
