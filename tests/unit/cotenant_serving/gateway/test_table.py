import random
from collections import Counter

from tests.builders.gateway import model_row, row

from cotenant_serving.contract import Table
from cotenant_serving.gateway.table import Known, combine, merge, pick


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


def test_full_unavailable_and_absent_engines_are_not_picked():
    rng = random.Random(1)
    rows = (row("i1", slots=1), row("i2", slots=2), row("i3", slots=2))
    in_flight = {"i1": 1, "i2": 1}
    assert pick(rows, lambda name: in_flight.get(name, 0), {"i3"}, rng).instance == "i2"
    in_flight["i2"] = 2
    assert pick(rows, lambda name: in_flight.get(name, 0), {"i3"}, rng) is None
    assert pick((), lambda _: 0, (), rng) is None


def test_an_engine_that_others_fill_is_only_asked_when_no_other_is_free():
    rng = random.Random(1)
    full, free = row("i1", slots=2, running=2), row("i2", slots=2)
    assert {pick((full, free), lambda _: 0, (), rng).instance for _ in range(20)} == {"i2"}
    assert pick((full,), lambda _: 0, (), rng) is full


def test_of_two_engines_the_one_with_the_smaller_part_of_its_slots_taken_is_picked():
    rng = random.Random(1)
    rows = (row("small", slots=2), row("large", slots=10))
    in_flight = {"small": 1, "large": 3}
    assert {pick(rows, in_flight.__getitem__, (), rng).instance for _ in range(20)} == {"large"}


def test_idle_engines_share_the_load():
    rng = random.Random(1)
    rows = tuple(row(f"i{number}", slots=4) for number in range(4))
    chosen = Counter(pick(rows, lambda _: 0, (), rng).instance for _ in range(400))
    assert min(chosen.values()) > 50
