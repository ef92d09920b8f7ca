import random
from collections import Counter

from tests.builders.gateway import model_row, row

from cotenant_serving.contract_gateway import Table
from cotenant_serving.gateway.board import LocalCount
from cotenant_serving.gateway.table import Known, combine, left, merge, pick


def instances(known: Known) -> set[str]:
    return {one.instance for rows in combine([known]).engines.values() for one in rows}


def test_a_conductor_that_just_restarted_empties_nothing():
    known = merge(None, Table(epoch="a", sequence=9, engines=(row("i1"), row("i2", port=8801))))

    restarted = merge(known, Table(epoch="b", sequence=0))

    assert instances(restarted) == {"i1", "i2"}
    assert combine([restarted]).listed == frozenset()
    assert restarted.latest.epoch == "b"


def test_an_instance_that_is_gone_leaves_even_when_only_an_older_table_named_it():
    known = merge(None, Table(epoch="a", sequence=1, engines=(row("i1"), row("i2", port=8801))))
    known = merge(known, Table(epoch="b", sequence=0))
    known = merge(known, Table(epoch="b", sequence=1, engines=(row("i2", port=8801),), gone=("i1",)))
    assert instances(known) == {"i2"}


def test_another_instance_at_the_same_address_replaces_the_row():
    known = merge(None, Table(epoch="a", sequence=1, engines=(row("i1", port=8800),)))
    known = merge(known, Table(epoch="a", sequence=2, engines=(row("i2", port=8800),)))
    assert instances(known) == {"i2"}


def test_an_older_table_of_the_same_epoch_changes_nothing():
    known = merge(None, Table(epoch="a", sequence=5, engines=(row("i1"),)))
    assert merge(known, Table(epoch="a", sequence=4)) is known


def test_a_row_takes_the_newest_numbers():
    known = merge(None, Table(epoch="a", sequence=1, engines=(row("i1", slots=1),)))
    known = merge(known, Table(epoch="a", sequence=2, engines=(row("i1", slots=8),)))
    assert combine([known]).engines["search/echo"][0].slots == 8


def test_two_conductors_are_one_table_and_the_more_hopeful_speaks_for_a_model():
    old = merge(None, Table(epoch="a", sequence=1, engines=(row("i1"),), models=(model_row("failed"),)))
    new = merge(None, Table(epoch="b", sequence=1, engines=(row("i2"),), models=(model_row("waking"),)))
    for view in (combine([old, new]), combine([new, old])):
        assert {one.instance for one in view.engines["search/echo"]} == {"i1", "i2"}
        assert view.models["search/echo"].state == "waking"


class Asked:
    """An engine with so many slots taken."""

    def __init__(self, name: str, slots: int, taken: int = 0, rests_until: float = 0.0) -> None:
        self.name, self.slots, self.rests_until = name, slots, rests_until
        self.taken = LocalCount()
        self.taken.add(taken)


def picked(*engines: Asked, times: int = 1, now: float = 10.0) -> Counter[str]:
    rng = random.Random(1)
    found = [pick(engines, now, rng) for _ in range(times)]
    return Counter(one.name if one else "none" for one in found)


def test_full_resting_and_absent_engines_are_not_picked():
    full, resting, free = Asked("full", 1, 1), Asked("resting", 2, rests_until=11.0), Asked("free", 2, 1)
    assert picked(full, free, resting, times=20) == {"free": 20}
    assert picked(full, resting) == {"none": 1}
    assert picked(full, resting, Asked("full too", 4, 4), times=20) == {"none": 20}
    assert picked(full, resting, now=11.0) == {"resting": 1}
    assert picked() == {"none": 1}


def test_one_free_engine_among_many_is_found():
    engines = [Asked(f"full {number}", 2, 2) for number in range(30)]
    assert picked(*engines[:7], Asked("free", 2, 1), *engines[7:], times=50) == {"free": 50}


def test_of_two_engines_the_one_with_the_smaller_part_of_its_slots_taken_is_picked():
    assert picked(Asked("small", 2, 1), Asked("large", 10, 3), times=20) == {"large": 20}


def test_idle_engines_share_the_load():
    for number in (2, 3, 8):
        chosen = picked(*(Asked(f"i{one}", 4) for one in range(number)), times=100 * number)
        assert min(chosen[f"i{one}"] for one in range(number)) > 50


def test_a_conductor_that_is_left_names_nobody_and_its_engines_stay_until_another_table_of_it_comes():
    latest = Table(epoch="a", sequence=1, engines=(row("i1"), row("i2")), models=(model_row(),))
    gone = left(Known(latest=latest, kept=(row("i0"),)))
    view = combine([gone])
    assert {one.instance for one in view.engines["search/echo"]} == {"i0", "i1", "i2"}
    assert (view.listed, view.models) == (frozenset(), {})

    again = combine([merge(gone, Table(epoch="a", sequence=1, engines=(row("i1"),)))])
    assert again.listed == {"i1"}
    assert len(again.engines["search/echo"]) == 3
