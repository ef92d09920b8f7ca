"""Answers under way are given up, the largest first, when they take too much memory."""

import tracemalloc
from collections.abc import Iterator

from tests.builders.loadtest_worker import chat

from cotenant_loadtests.answers import WholeAnswer
from cotenant_loadtests.exchange import Exchange, TenantCount
from cotenant_loadtests.unfinished import Unfinished

PLANNED = chat(0, streamed=False)


def under_way(*sizes: int) -> list[Exchange]:
    exchanges = [
        Exchange(PLANNED, b"", scheduled_ns=0, tenant=TenantCount(), expected=None) for _ in range(len(sizes) + 1)
    ]  # the last has no answer yet
    for exchange, size in zip(exchanges, sizes, strict=False):
        exchange.answer = WholeAnswer(PLANNED, None)
        exchange.answer.take(b"x" * size, 0)
    return exchanges


def test_the_largest_are_given_up_until_the_others_fit() -> None:
    exchanges = under_way(30, 60, 20, 50)
    assert Unfinished(100).too_much(160, exchanges) == [exchanges[1]]
    assert Unfinished(49).too_much(160, exchanges) == [exchanges[1], exchanges[3], exchanges[0]]
    assert Unfinished(160).too_much(160, exchanges) == []


class Looks(list[Exchange]):
    """Counts how often somebody looks at all."""

    count = 0

    def __iter__(self) -> Iterator[Exchange]:
        self.count += 1
        return super().__iter__()


def test_they_are_counted_only_when_enough_has_come_since() -> None:
    unfinished, exchanges = Unfinished(100), Looks(under_way(40))
    for bytes_in in range(0, 500, 10):
        assert unfinished.too_much(bytes_in, exchanges) == []
    assert exchanges.count == 6  # at 110, 180, 250, 320, 390 and 460 bytes


def test_an_answer_in_tiny_pieces_takes_no_more_memory_than_its_bytes() -> None:
    answer = WholeAnswer(PLANNED, None)
    body = b"ab" * 100_000
    tracemalloc.start()
    for place in range(0, len(body), 2):
        answer.take(body[place : place + 2], 0)
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.held_bytes == len(body)
    assert held_bytes < 2 * len(body)
