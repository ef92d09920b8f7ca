"""Bytes of the disk that have to stay free: they are no room, and the refusal says so."""

from tests.builders.cache_inventory import MIB, held, volume

from cotenant_cache.plan import plan_room

NEW = ("org/new", "0" * 40)
NO_BUDGET_MIB = 2**30


def test_what_has_to_stay_free_is_no_room_and_models_go_for_it() -> None:
    there = volume(held("a", 30), budget_mib=NO_BUDGET_MIB, disk_free_mib=100)
    kept = volume(held("a", 30), budget_mib=NO_BUDGET_MIB, disk_free_mib=100, disk_kept_bytes=60 * MIB)
    assert plan_room(50 * MIB, there, for_=NEW, now=0.0).evict == ()
    plan = plan_room(50 * MIB, kept, for_=NEW, now=0.0)
    assert plan.fits
    assert [gone.frees_bytes for gone in plan.evict] == [30 * MIB]
    assert plan.disk_kept_bytes == 60 * MIB
    assert plan_room(40 * MIB, kept, for_=NEW, now=0.0).evict == (), "it just fits"


def test_a_refusal_names_what_has_to_stay_free_and_both_ways_out() -> None:
    kept = volume(held("a", 30), budget_mib=NO_BUDGET_MIB, disk_free_mib=100, disk_kept_bytes=60 * MIB)
    said = plan_room(90 * MIB, kept, for_=NEW, now=0.0).refusal
    assert "90.0 MiB more do not fit: the disk has 100.0 MiB free, 60.0 MiB have to stay free" in said
    assert "at most 30.0 MiB can be let go, 20.0 MiB are missing" in said
    assert "make 20.0 MiB free on the disk that holds the cache, or set a budget (spec.cache.size" in said


def test_nothing_goes_for_it_when_nothing_is_to_come() -> None:
    kept = volume(held("a", 30), budget_mib=NO_BUDGET_MIB, disk_free_mib=10, disk_kept_bytes=60 * MIB)
    plan = plan_room(0, kept, for_=NEW, now=0.0)
    assert plan.fits
    assert plan.evict == ()
