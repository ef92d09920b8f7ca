import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_serving.gateway.board import LocalBoard, LocalNumber
from cotenant_serving.gateway.queue import QUANTUM_TOKENS, Heads, Pace, WaitingLine, whose_turn

BIG = QUANTUM_TOKENS
"""A request that is worth a whole visit."""


def new_line(board: LocalBoard | None = None) -> WaitingLine[str]:
    board = board or LocalBoard()
    return WaitingLine(board.number("round"), lambda tenant: board.number(f"level of {tenant}"))


def filled(*items: str, board: LocalBoard | None = None) -> WaitingLine[str]:
    """The first letter of an item is its tenant."""
    line = new_line(board)
    for item in items:
        line.add(item[0], item)
    return line


def many(tenant: str, number: int) -> list[str]:
    return [f"{tenant}{one}" for one in range(number)]


def drain(line: WaitingLine[str], costs: dict[str, int] | None = None) -> list[str]:
    order = []
    while (found := line.next()) is not None:
        tenant, item = found
        line.charge(tenant, (costs or {}).get(tenant, BIG))
        order.append(item)
    return order


def test_one_tenants_requests_keep_their_order():
    assert drain(filled("a1", "a2", "a3")) == ["a1", "a2", "a3"]


def test_tenants_take_turns_however_many_one_of_them_sends():
    assert drain(filled(*many("a", 5), "b0", "b1")) == ["a0", "b0", "a1", "b1", "a2", "a3", "a4"]


def test_turns_are_by_tokens_and_not_by_requests():
    line = filled(*many("a", 2), *many("b", 6))
    assert drain(line, {"a": 3 * BIG, "b": BIG}) == ["a0", "b0", "b1", "b2", "a1", "b3", "b4", "b5"]


def test_a_visit_is_worth_its_tokens_in_small_requests():
    line = filled(*many("a", 8), *many("b", 8))
    order = drain(line, {"a": BIG // 4, "b": BIG // 2})
    assert order == ["a0", "a1", "a2", "a3", "b0", "b1", "a4", "a5", "a6", "a7", *many("b", 8)[2:]]


def test_a_tenant_that_comes_back_has_saved_up_no_claim():
    line = filled("b", *many("a", 100))
    for _ in range(51):
        tenant, _ = line.next() or ("", "")
        line.charge(tenant, BIG)
    for item in many("b", 20):
        line.add("b", item)
    assert [item[0] for item in drain(line)[:6]] == ["b", "a", "b", "a", "b", "a"]


def test_a_pause_forgives_no_debt():
    line = filled(*many("a", 20), "b0")
    line.next()
    line.charge("a", BIG)
    line.next()
    line.charge("b", 5 * BIG)
    line.add("b", "b1")
    assert drain(line)[:6] == ["a1", "a2", "a3", "a4", "b1", "a5"]


def test_what_was_charged_too_much_is_given_back_at_once():
    line = filled(*many("a", 9), *many("b", 9))
    line.next()
    line.charge("a", 4 * BIG)
    line.charge("a", -4 * BIG)
    assert drain(line)[:3] == ["b0", "a1", "b1"]


def test_a_request_that_an_engine_sent_back_goes_first_among_its_tenants():
    line = filled("a1")
    line.add("a", "a0", front=True)
    assert drain(line) == ["a0", "a1"]


def test_one_that_gave_up_is_not_served():
    line = filled("a0", "a1")
    assert line.remove("a", "a0")
    assert not line.remove("a", "a0")
    assert not line.remove("unknown", "x")
    assert (len(line), line.newest("a"), line.newest("b")) == (1, "a1", None)
    assert drain(line) == ["a1"]
    assert (len(line), line.head(), line.next()) == (0, None, None)


def test_two_lines_on_one_board_know_what_the_other_one_served():
    board = LocalBoard()
    mine, other = filled(*many("a", 9), *many("b", 9), board=board), filled(*many("a", 9), board=board)
    for _ in range(3):
        other.next()
        other.charge("a", BIG)
    assert drain(mine)[:5] == ["b0", "b1", "b2", "a0", "b3"]


def test_an_estimate_is_corrected_by_what_requests_of_the_tenant_took():
    queue = new_line().queue("a")
    assert queue.expected(1000) == 1000
    for _ in range(3):
        queue.learn(1000, 20)
    assert queue.expected(1000) == pytest.approx(20)
    for _ in range(30):
        queue.learn(1000, 3000)
    assert queue.expected(500) == pytest.approx(1500, rel=0.1)


sizes = st.lists(st.integers(1, 4 * QUANTUM_TOKENS), min_size=1, max_size=30)


@given(st.dictionaries(st.sampled_from("abcd"), sizes, min_size=1))
def test_while_two_tenants_wait_neither_is_served_more_than_the_bound_beyond_the_other(costs: dict[str, list[int]]):
    line = new_line()
    for tenant, theirs in costs.items():
        for cost in theirs:
            line.add(tenant, f"{cost}")
    left = {tenant: len(theirs) for tenant, theirs in costs.items()}
    served = dict.fromkeys(costs, 0)
    bound = 2 * (QUANTUM_TOKENS + max(max(theirs) for theirs in costs.values()))
    order: dict[str, list[int]] = {tenant: [] for tenant in costs}
    while (found := line.next()) is not None:
        tenant, cost = found[0], int(found[1])
        line.charge(tenant, cost)
        served[tenant] += cost
        left[tenant] -= 1
        order[tenant].append(cost)
        backlogged = [served[one] for one in costs if left[one]]
        assert not backlogged or max(backlogged) - min(backlogged) <= bound
    assert order == costs, "all are served, each tenant's in order"


@given(sizes, st.integers(1, 60))
def test_a_newcomer_waits_for_at_most_one_visit_of_each_other_tenant(costs: list[int], before: int):
    line = new_line()
    for number in range(200):
        line.add("a", f"a{number}")
        line.add("b", f"b{number}")
    for number in range(before):
        tenant, _ = line.next() or ("", "")
        line.charge(tenant, costs[number % len(costs)])
    line.add("c", "c")
    charged = {"a": 0, "b": 0}
    while (found := line.next()) is not None and found[0] != "c":
        cost = costs[charged[found[0]] % len(costs)]
        charged[found[0]] += cost
        line.charge(found[0], cost)
    assert max(charged.values()) <= QUANTUM_TOKENS + max(costs)


def turn(waiting: tuple[int, ...], rounds: tuple[int, ...], since_ms: tuple[int, ...] = (0,) * 9, **fields: int):
    return whose_turn(Heads(waiting, rounds, since_ms), worker=0, **fields)


def test_a_free_slot_goes_to_the_worker_where_the_tenant_waits_whose_turn_it_is():
    assert turn((3, 1, 0), (7, 5, 0)) == 1
    assert turn((3, 1, 0), (5, 5, 0)) == 0, "no wake without need"
    assert turn((3, 1, 0), (6, 5, 0), slack=1) == 0
    assert turn((3, 1, 0), (7, 5, 0), slack=1) == 1
    assert turn((0, 1, 2), (0, 6, 5)) == 2
    assert turn((0, 0), (0, 0)) is None


def test_in_the_same_round_it_goes_to_who_has_clearly_waited_longer():
    assert turn((1, 1, 1), (5, 5, 5), (900, 500, 400)) == 2
    assert turn((1, 1, 0), (5, 5, 0), (500, 490, 0)) == 0
    assert turn((1, 1, 0), (4, 5, 0), (900, 500, 0)) == 0


def test_rounds_and_times_wrap_around():
    last = (1 << 32) - 1
    assert turn((1, 1), (1, last)) == 1
    assert turn((1, 1), (last, 1)) == 0
    assert turn((1, 1), (5, 5), (900, last)) == 1


def test_the_pace_is_that_of_the_last_seconds():
    pace = Pace(LocalNumber())
    assert pace.time_for_s(10, 100.0) is None
    pace.begin(100.0)
    for number in range(40):
        pace.moves(100.0 + number / 4)
        pace.moved()
    assert pace.time_for_s(10, 110.0) == pytest.approx(2.5, rel=0.1)
    for number in range(150):
        pace.moves(110.0 + number / 2)
        pace.moved()
    assert pace.time_for_s(10, 185.0) == pytest.approx(5, rel=0.2)


def test_the_pace_of_what_stands_still_is_slow_and_of_what_has_just_begun_unknown():
    pace = Pace(LocalNumber())
    pace.begin(100.0)
    pace.moved()
    assert pace.time_for_s(10, 100.1) is None
    assert pace.time_for_s(10, 190.0) > 290
    pace.begin(300.0)
    assert pace.time_for_s(10, 301.0) is None, "it stood idle"
