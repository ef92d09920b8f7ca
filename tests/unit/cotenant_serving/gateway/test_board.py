"""What workers share: one suite for the board of one process and for the one of several."""

import os
from array import array
from collections.abc import Callable, Iterator

import pytest

from cotenant_serving.contract_gateway import Limits
from cotenant_serving.gateway import board as boards
from cotenant_serving.gateway.admission import TenantLimits
from cotenant_serving.gateway.board import NO_LEVELS, Board, LocalBoard, SharedBoard
from cotenant_serving.openai_api import RequestError

WORKERS = 3
Views = Callable[[int], Board]


@pytest.fixture(params=["local", "mutexes", "file locks"])
def view(request: pytest.FixtureRequest) -> Iterator[Views]:
    """The board as each worker sees it. A local one has one only."""
    if request.param == "local":
        local = LocalBoard()
        yield lambda _: local
        return
    first = SharedBoard.create(column=0, columns=WORKERS, mutexes=request.param == "mutexes")
    others = [SharedBoard(os.dup(first.fileno()), column=column, columns=WORKERS) for column in (1, 2)]
    yield [first, *others].__getitem__
    for one in (first, *others):
        one.close()


@pytest.fixture
def shared() -> Iterator[Callable[..., SharedBoard]]:
    """Makes views of one shared board, first to last."""
    made: list[SharedBoard] = []

    def make() -> SharedBoard:
        column = len(made)
        if made:
            made.append(SharedBoard(os.dup(made[0].fileno()), column=column, columns=WORKERS))
        else:
            made.append(SharedBoard.create(column=0, columns=WORKERS))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_number_is_changed_by_everybody_and_stays_when_one_of_them_dies(view: Views):
    view(0).number("level").add(2.5)
    view(1).number("level").add(-0.5)
    view(2).number("level").raise_to(7.0)
    view(2).number("level").raise_to(3.0)
    view(2).number("other").raise_to(9.0)
    if isinstance(board := view(0), SharedBoard):
        board.clear(1)

    assert view(1).number("level").get() == 7.0


def test_a_count_is_the_same_for_everybody_who_names_it(view: Views):
    view(0).count("waiting").add(2)
    view(1).count("waiting").add(3)
    view(2).count("waiting").add(-0)

    assert view(2).count("waiting").total() == sum(view(0).count("waiting").parts()) == 5
    assert view(0).count("running").total() == 0


def test_nobody_takes_more_than_there_is(view: Views):
    taken = [view(turn % WORKERS).count("slots").take(4) for turn in range(7)]

    assert taken == [True] * 4 + [False] * 3
    view(0).count("slots").add(-1)
    assert view(2).count("slots").take(4)


def test_levels_are_those_that_were_stored_last(view: Views):
    assert view(0).account("search").load() == NO_LEVELS
    for turn in range(5):
        account = view(turn % WORKERS).account("search")
        with account.lock:
            account.store((1.0, 2.0, 3.0, float(turn)))

    assert view(1).account("search").load() == (1.0, 2.0, 3.0, 4.0)
    assert view(1).account("ads").load() == NO_LEVELS


def test_workers_admit_exactly_what_the_limits_say(view: Views):
    limits = Limits(requests_per_minute=10, concurrent_requests=7)
    tenants = [TenantLimits("search", limits, view(worker).account("search"), 100.0) for worker in range(WORKERS)]

    def admitted(turns: int, now: float) -> int:
        count = 0
        for turn in range(turns):
            try:
                tenants[turn % WORKERS].admit(1, now)
            except RequestError:
                continue
            count += 1
        return count

    assert admitted(30, 100.0) == 7
    for turn in range(7):
        tenants[turn % WORKERS].settle(1, 1, 100.0)
    assert admitted(30, 100.0) == 3
    assert admitted(30, 106.0) == 1, "one comes back in six seconds, in all"


def test_tokens_are_settled_in_the_bucket_of_all(view: Views):
    tenants = [
        TenantLimits("search", Limits(tokens_per_minute=100), view(worker).account("search"), 0.0)
        for worker in range(WORKERS)
    ]
    tenants[0].admit(90, 0.0)
    with pytest.raises(RequestError, match="tokens per minute"):
        tenants[1].admit(20, 0.0)

    tenants[0].settle(90, 30, 0.0)
    tenants[1].admit(20, 0.0)

    assert tenants[1].headers(0.0)["x-ratelimit-remaining-tokens"] == "50"


def test_a_changed_limit_keeps_the_fill_for_all_though_one_worker_hears_of_it_later(view: Views):
    limits = Limits(requests_per_minute=60)
    first, second = (TenantLimits("search", limits, view(worker).account("search"), 0.0) for worker in (0, 1))
    for _ in range(60):
        first.admit(1, 0.0)

    first.change(Limits(requests_per_minute=6000), 30.0)
    for _ in range(30):
        second.admit(1, 30.0)  # it does not know yet, and must not refill the bucket
    second.change(Limits(requests_per_minute=6000), 30.0)

    with pytest.raises(RequestError):
        second.admit(1, 30.0)


def test_a_workers_counts_are_gone_when_it_is_dead_and_the_buckets_stay(shared):
    first, second = shared(), shared()
    limits = Limits(requests_per_minute=10, concurrent_requests=3)
    lives, dies = (TenantLimits("search", limits, board.account("search"), 0.0) for board in (first, second))
    lives.admit(1, 0.0)
    dies.admit(1, 0.0)
    dies.admit(1, 0.0)
    second.count("waiting").add(4)

    first.clear(1)

    assert (lives.running, first.count("waiting").total()) == (1, 0)
    lives.admit(1, 0.0)
    assert lives.headers(0.0)["x-ratelimit-remaining-requests"] == "6"


def test_counts_of_what_happened_stay_when_their_worker_is_dead_and_its_successor_goes_on(shared):
    first, second = shared(), shared()
    second.count("lost").add(3)
    second.count("waiting").add(4)

    first.clear(1, keep=("lost",))
    second.count("lost").add(1)

    assert (first.count("lost").total(), first.count("waiting").total()) == (4, 0)


def test_a_write_that_was_not_finished_is_as_if_it_had_not_begun(shared):
    board = shared()
    account = board.account("search")
    account.store((1.0,) * 4)
    account.store((2.0,) * 4)
    unused = 4 * (1 - account.valid[0])

    account.copies[unused : unused + 2] = memoryview(array("d", (9.0, 9.0)))  # a kill came here

    assert account.load() == (2.0,) * 4
    account.store((3.0,) * 4)
    account.fill(4.0, 5.0)
    assert account.load() == (3.0, 4.0, 3.0, 5.0)


def test_when_names_run_out_each_worker_counts_for_itself_and_says_so(shared, monkeypatch, caplog):
    monkeypatch.setattr(boards, "ROWS", 2)
    first, second = shared(), shared()
    for board in (first, second):
        assert board.count("a").take(9)
        assert board.account("b").load() == NO_LEVELS

    first.count("c").add(1)
    second.count("c").add(1)

    assert first.count("a").total() == 2
    assert first.count("c").total() == 1
    assert "no room for 'count c'" in caplog.text
    assert TenantLimits("d", Limits(requests_per_minute=1), first.account("d"), 0.0).running == 0
