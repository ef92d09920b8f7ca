import random
from collections import Counter

from cotenant_serving.gateway.queue import WaitingLine, whose_turn


def drain(line: WaitingLine[str], cost: int = 10) -> list[str]:
    order = []
    while (item := line.next()) is not None:
        line.charge(item[0], cost)
        order.append(item)
    return order


def test_one_tenants_requests_keep_their_order():
    line: WaitingLine[str] = WaitingLine()
    for item in ("a1", "a2", "a3"):
        line.add("a", item)
    assert drain(line) == ["a1", "a2", "a3"]


def test_tenants_take_turns_however_many_one_of_them_sends():
    line: WaitingLine[str] = WaitingLine()
    for number in range(5):
        line.add("a", f"a{number}")
    line.add("b", "b0")
    line.add("b", "b1")
    assert drain(line) == ["a0", "b0", "a1", "b1", "a2", "a3", "a4"]


def test_turns_are_by_tokens_and_not_by_requests():
    line: WaitingLine[str] = WaitingLine()
    for number in range(4):
        line.add("a", f"a{number}")
        line.add("b", f"b{number}")
    order = []
    while (item := line.next()) is not None:
        line.charge(item[0], 30 if item[0] == "a" else 10)
        order.append(item)
    assert order[:5] == ["a0", "b0", "b1", "b2", "a1"]


def test_a_tenant_that_comes_back_has_saved_up_no_claim():
    line: WaitingLine[str] = WaitingLine()
    for number in range(100):
        line.add("a", f"a{number}")
    for _ in range(50):
        line.next()
        line.charge("a", 10)
    for number in range(20):
        line.add("b", f"b{number}")
    assert [item[0] for item in drain(line)[:6]] == ["a", "b", "a", "b", "a", "b"]


def test_a_request_that_an_engine_sent_back_goes_first_among_its_tenants():
    line: WaitingLine[str] = WaitingLine()
    line.add("a", "a1")
    line.add("a", "a0", front=True)
    assert drain(line) == ["a0", "a1"]


def test_one_that_gave_up_is_not_served():
    line: WaitingLine[str] = WaitingLine()
    line.add("a", "a0")
    line.add("a", "a1")
    line.remove("a", "a0")
    line.remove("a", "a0")
    line.remove("unknown", "x")
    assert len(line) == 1
    assert drain(line) == ["a1"]
    assert len(line) == 0


def test_a_free_slot_goes_to_a_worker_in_proportion_to_how_many_tenants_wait_there():
    rng = random.Random(1)
    turns = Counter(whose_turn((0, 30, 0, 10), rng) for _ in range(4000))
    assert turns.keys() == {1, 3}
    assert 0.7 < turns[1] / 4000 < 0.8
    assert whose_turn((0, 0), rng) is None
    assert whose_turn((), rng) is None
