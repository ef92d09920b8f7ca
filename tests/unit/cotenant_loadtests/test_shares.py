from hypothesis import given
from hypothesis import strategies as st

from cotenant_loadtests.planned import Planned
from cotenant_loadtests.shares import shares


def planned(number: int, after: int | None) -> Planned:
    at_s = None if after is not None else float(number)
    return Planned(id=number, at_s=at_s, after=after, stream="s", tenant="t", model="m", api="chat")


@st.composite
def plans(draw: st.DrawFn) -> list[Planned]:
    """Each request is an arrival, or the next turn of some conversation before it."""
    afters: list[int | None] = []
    for number in range(draw(st.integers(0, 30))):
        free = [one for one in range(number) if one not in afters]
        afters.append(draw(st.sampled_from([None, *free])))
    return [planned(number, after) for number, after in enumerate(afters)]


@given(plans(), st.integers(1, 5))
def test_every_request_is_in_one_share_and_conversations_stay_together(plan: list[Planned], processes: int) -> None:
    parts = shares(plan, processes)

    assert sorted(one.id for part in parts for one in part) == [one.id for one in plan]
    assert all(part for part in parts)
    share_of = {one.id: number for number, part in enumerate(parts) for one in part}
    assert all(share_of[one.id] == share_of[one.after] for one in plan if one.after is not None)
    assert all([one.id for one in part] == sorted(one.id for one in part) for part in parts)


@given(plans(), st.integers(1, 5))
def test_shares_have_as_many_arrivals_as_each_other_but_for_one(plan: list[Planned], processes: int) -> None:
    arrivals = [sum(one.after is None for one in part) for part in shares(plan, processes)]

    assert max(arrivals, default=0) - min(arrivals, default=0) <= 1
