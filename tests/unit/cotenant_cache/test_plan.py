"""What goes from a weight cache for bytes that are to come, and what never does."""

import itertools
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st
from tests.builders.cache_inventory import MIB, NOW, held, inventories, volume

from cotenant_cache.contract import RoomPlan
from cotenant_cache.plan import DAY_S, Held, Inventory, eviction_cost, plan_eviction, plan_room

NEW = ("org/new", "1")


def room(needed_mib: int, inventory: Inventory, *, priority: int | None = None) -> RoomPlan:
    return plan_room(needed_mib * MIB, inventory, for_=NEW, now=NOW, priority=priority)


def going(plan: RoomPlan) -> list[str]:
    assert plan.fits, plan.refusal
    return [eviction.repo for eviction in plan.evict]


def worth(name: str, own_mib: int, **fields: object) -> Held:
    """Used once just now, and a minute to fetch, unless said otherwise."""
    return held(name, own_mib, **{"uses": 1.0, "used_at": NOW, "refetch_s": 60.0, **fields})


def test_nothing_goes_while_there_is_room() -> None:
    plan = room(10, volume(worth("a", 80), budget_mib=100, reserved_bytes=10 * MIB))

    assert plan.fits
    assert (plan.evict, plan.loose, plan.quarantine_bytes) == ((), (), 0)


def test_bytes_promised_to_other_fetches_count_as_taken() -> None:
    assert going(room(10, volume(worth("a", 80), budget_mib=100, reserved_bytes=11 * MIB))) == ["a"]


def test_the_quarantine_goes_first_then_loose_blobs_then_models() -> None:
    full = volume(
        worth("a", 60),
        budget_mib=100,
        blob_bytes=80 * MIB,
        quarantined_bytes=20 * MIB,
        loose={("b", "d1"): 15 * MIB, ("b", "d2"): 5 * MIB},
    )

    least, more, most = room(20, full), room(30, full), room(41, full)

    assert (least.quarantine_bytes, least.loose, least.evict) == (20 * MIB, (), ())
    assert [blob.digest for blob in more.loose] == ["d1"]
    assert more.evict == ()
    assert [blob.digest for blob in most.loose] == ["d1", "d2"]
    assert going(most) == ["a"]


def test_cost_is_bytes_times_refetch_time_over_the_seconds_between_uses() -> None:
    model = held("a", uses=3.0, used_at=NOW, refetch_s=50.0, own_bytes=1000)

    assert eviction_cost(model, 0, NOW) == 1000 * 50 * 3 / DAY_S
    assert eviction_cost(model, 400, NOW) == 600 * 50 * 3 / DAY_S


def test_a_use_counts_half_a_day_later() -> None:
    model = worth("a", 10)

    assert eviction_cost(model, 0, NOW + DAY_S) == eviction_cost(model, 0, NOW) / 2
    assert eviction_cost(model, 0, NOW + 3000 * DAY_S) == 0


def test_a_clock_that_went_back_ages_nothing() -> None:
    assert eviction_cost(worth("a", 10), 0, NOW - 9e9) == eviction_cost(worth("a", 10), 0, NOW)


def test_what_is_used_less_goes_before_what_is_as_large() -> None:
    full = volume(worth("often", 40, uses=5.0), worth("seldom", 40), budget_mib=80)

    assert going(room(10, full)) == ["seldom"]


def test_what_is_quick_to_fetch_again_goes_before_what_is_slow() -> None:
    full = volume(worth("slow", 40, refetch_s=500.0), worth("quick", 40), budget_mib=80)

    assert going(room(10, full)) == ["quick"]


def test_of_models_never_used_the_one_touched_longest_ago_goes() -> None:
    full = volume(held("new", 40, used_at=NOW), held("old", 40, used_at=NOW - 5), budget_mib=80)

    assert going(room(10, full)) == ["old"]


def test_a_cheap_one_stays_when_a_later_one_makes_room_alone() -> None:
    full = volume(worth("small", 5), worth("large", 75), budget_mib=80)

    assert going(room(30, full)) == ["large"]


def test_preloaded_models_go_after_all_others_and_the_lowest_priority_first() -> None:
    full = volume(
        worth("high", 20, preload=9, uses=0.0),
        worth("low", 20, preload=1, uses=50.0),
        worth("other", 20, uses=99.0),
        budget_mib=60,
    )

    assert going(room(20, full)) == ["other"]
    assert going(room(40, full)) == ["other", "low"]
    assert going(room(60, full)) == ["other", "low", "high"]


def test_a_preload_item_drives_out_only_items_of_lower_priority() -> None:
    full = volume(
        worth("high", 20, preload=9), worth("same", 20, preload=5), worth("low", 20, preload=1), budget_mib=60
    )

    plan = room(40, full, priority=5)

    assert going(room(20, full, priority=5)) == ["low"]
    assert not plan.fits
    assert "hf://same@1: preload with priority 5 (20.0 MiB)" in plan.refusal


def test_leases_pins_and_other_fetches_stay_and_the_plan_says_why() -> None:
    full = volume(
        held("leased", 20, leases=("a", "b")),
        held("pinned", 20, pinned=True),
        held("coming", 20, fetching=True),
        held("free", 20),
        budget_mib=80,
    )

    plan = room(20, full)

    assert going(plan) == ["free"]
    assert plan.kept == (
        "hf://leased@1: in use by 2 leases (20.0 MiB)",
        "hf://pinned@1: pinned (20.0 MiB)",
        "hf://coming@1: being fetched (20.0 MiB)",
    )


def test_what_is_here_of_the_model_itself_stays() -> None:
    full = volume(held("org/new", 40), held("other", 40, uses=9.0, refetch_s=9.0), budget_mib=80)

    assert going(room(10, full)) == ["other"]
    assert not room(50, full).fits


def test_a_blob_that_a_staying_commit_names_frees_nothing() -> None:
    both = {"d": 30 * MIB}
    full = volume(held("a@1", 10, shared=both), held("a@2", 10, shared=both, leases=("x",)), budget_mib=50)

    plan = room(10, full)

    assert [(eviction.commit, eviction.frees_bytes) for eviction in plan.evict] == [("1", 10 * MIB)]
    assert "10.0 MiB can be let go" in room(11, full).refusal


def test_the_last_commit_to_go_frees_what_all_of_them_share() -> None:
    both = {"d": 30 * MIB}
    full = volume(held("a@1", 10, shared=both), held("a@2", 10, shared=both), budget_mib=50)

    plan = room(45, full)

    assert [eviction.frees_bytes for eviction in plan.evict] == [10 * MIB, 40 * MIB]


def test_blobs_of_the_same_name_in_two_repositories_are_not_shared() -> None:
    full = volume(held("a", shared={"d": 30 * MIB}), held("b", shared={"d": 30 * MIB}), budget_mib=60)

    assert going(room(10, full)) == ["a"]


def test_a_fetch_that_was_cut_off_makes_room_and_one_that_goes_on_does_not() -> None:
    begun = {"d": 30 * MIB}

    assert going(room(10, volume(held("a", partials=begun), budget_mib=30))) == ["a"]
    assert not room(10, volume(held("a", partials=begun, fetching=True), budget_mib=30)).fits


def test_a_disk_filled_by_others_makes_models_go_although_the_budget_has_room() -> None:
    assert going(room(10, volume(held("a", 20), budget_mib=1000, disk_free_mib=5))) == ["a"]


def test_a_disk_that_is_too_full_is_refused_by_its_own_numbers() -> None:
    plan = room(100, volume(held("a", 20), budget_mib=1000, disk_free_mib=5, reserved_bytes=2 * MIB))

    assert plan.evict == ()
    assert plan.refusal == (
        "hf://org/new@1: 100.0 MiB more do not fit: the disk has 5.0 MiB free of which 2.0 MiB are promised to other "
        "fetches, at most 20.0 MiB can be let go, 77.0 MiB are missing; "
        "make 77.0 MiB free on the disk that holds the cache"
    )


def test_a_refusal_has_the_arithmetic_what_stays_and_the_next_step() -> None:
    full = volume(held("org/a", 50, leases=("engine",)), held("org/b", 30), budget_mib=100, reserved_bytes=10 * MIB)

    plan = room(60, full)

    assert plan.evict == ()
    assert plan.refusal == (
        "hf://org/new@1: 60.0 MiB more do not fit: of the budget of 100.0 MiB, 80.0 MiB are in use and 10.0 MiB "
        "promised to other fetches, at most 30.0 MiB can be let go, 20.0 MiB are missing; what stays: "
        "hf://org/a@1: in use by 1 lease (50.0 MiB); stop or unpin some of that, or "
        "raise the budget to 120.0 MiB or more"
    )


def test_a_refusal_of_hundreds_that_stay_names_three() -> None:
    full = volume(*(held(f"m{n}", 1, pinned=True) for n in range(300)), budget_mib=300)

    plan = room(1, full)

    assert plan.refusal.count("pinned") == 3
    assert "and 297 more" in plan.refusal
    assert len(plan.kept) == 51


def test_a_budget_made_smaller_lets_models_go_without_anything_new() -> None:
    assert going(room(0, volume(held("a", 20), held("b", 20), budget_mib=25))) == ["a"]


def test_naming_models_says_what_exactly_they_free() -> None:
    both = {"d": 30 * MIB}
    first, second = held("a@1", 10, shared=both), held("a@2", 10, shared=both)
    full = volume(first, second, budget_mib=90)

    assert [eviction.frees_bytes for eviction in plan_eviction([first], full, now=NOW)] == [10 * MIB]
    assert sum(eviction.frees_bytes for eviction in plan_eviction([first, second], full, now=NOW)) == 50 * MIB


def on_disk_after(inventory: Inventory, plan: RoomPlan, *, without: int = -1) -> Inventory:
    """The volume once the plan is carried out, counted from its models, not from the plan's sums.

    `without`: all but this one of the evictions.
    """
    gone = {(one.repo, one.commit) for number, one in enumerate(plan.evict) if number != without}
    stays = [model for model in inventory.models if model.key not in gone]
    loose = {(blob.repo, blob.digest) for blob in plan.loose}

    def counted(models: tuple[Held, ...] | list[Held]) -> int:
        blobs = {
            (m.repo, digest): size for m in models for part in (m.shared, m.partials) for digest, size in part.items()
        }
        return sum(model.own_bytes for model in models) + sum(blobs.values())

    freed = counted(inventory.models) - counted(stays) + sum(inventory.loose[key] for key in loose)
    return replace(
        inventory,
        blob_bytes=inventory.blob_bytes - freed,
        quarantined_bytes=inventory.quarantined_bytes - plan.quarantine_bytes,
        disk_free_bytes=inventory.disk_free_bytes + freed + plan.quarantine_bytes,
    )


def fits(needed: int, inventory: Inventory) -> bool:
    coming = needed + inventory.reserved_bytes
    return inventory.used_bytes + coming <= inventory.budget_bytes and (
        coming <= inventory.disk_free_bytes or not needed
    )


asks = st.tuples(st.integers(0, 200), st.sampled_from([("x", "1"), ("new", "1")]), st.sampled_from([None, 0, 1, 9]))


@given(inventories(), asks)
def test_after_a_plan_it_fits_and_after_a_refusal_all_is_as_it_was(
    inventory: Inventory, ask: tuple[int, tuple[str, str], int | None]
) -> None:
    needed, for_, priority = ask
    plan = plan_room(needed, inventory, for_=for_, now=NOW, priority=priority)

    if plan.fits:
        assert fits(needed, on_disk_after(inventory, plan))
    else:
        assert (plan.evict, plan.loose, plan.quarantine_bytes) == ((), (), 0)


@given(inventories(), asks)
def test_what_is_protected_never_goes(inventory: Inventory, ask: tuple[int, tuple[str, str], int | None]) -> None:
    needed, for_, priority = ask
    gone = {
        (one.repo, one.commit) for one in plan_room(needed, inventory, for_=for_, now=NOW, priority=priority).evict
    }

    for model in inventory.models:
        if model.leases or model.pinned or model.fetching or model.key == for_:
            assert model.key not in gone
        if model.preload is not None and priority is not None and model.preload >= priority:
            assert model.key not in gone


@given(inventories(), asks)
def test_no_eviction_is_needless(inventory: Inventory, ask: tuple[int, tuple[str, str], int | None]) -> None:
    needed, for_, priority = ask
    plan = plan_room(needed, inventory, for_=for_, now=NOW, priority=priority)

    for number in range(len(plan.evict)):
        assert not fits(needed, on_disk_after(inventory, plan, without=number))


@given(inventories(), asks)
def test_it_refuses_only_what_no_choice_of_models_could_make_fit(
    inventory: Inventory, ask: tuple[int, tuple[str, str], int | None]
) -> None:
    needed, for_, priority = ask
    plan = plan_room(needed, inventory, for_=for_, now=NOW, priority=priority)
    assume(not plan.fits)
    may_go = [
        model
        for model in inventory.models
        if not (model.leases or model.pinned or model.fetching or model.key == for_)
        and (model.preload is None or priority is None or model.preload < priority)
    ]
    everything = RoomPlan(
        needed_bytes=needed,
        budget_bytes=0,
        used_bytes=0,
        reserved_bytes=0,
        disk_free_bytes=0,
        quarantine_bytes=inventory.quarantined_bytes,
        evict=plan_eviction(may_go, inventory, now=NOW),
    )
    freed_loose = sum(inventory.loose.values())
    after = on_disk_after(inventory, everything)

    assert not fits(
        needed,
        replace(
            after, blob_bytes=after.blob_bytes - freed_loose, disk_free_bytes=after.disk_free_bytes + freed_loose
        ),
    )


@given(inventories(), asks)
def test_what_it_says_is_freed_is_what_is_freed(
    inventory: Inventory, ask: tuple[int, tuple[str, str], int | None]
) -> None:
    needed, for_, priority = ask
    plan = plan_room(needed, inventory, for_=for_, now=NOW, priority=priority)
    said = sum(one.frees_bytes for one in plan.evict) + sum(blob.size_bytes for blob in plan.loose)

    assert inventory.used_bytes - on_disk_after(inventory, plan).used_bytes == said + plan.quarantine_bytes


@given(inventories(), asks)
def test_preloaded_models_go_in_ascending_priority_after_the_others(
    inventory: Inventory, ask: tuple[int, tuple[str, str], int | None]
) -> None:
    needed, for_, priority = ask
    plan = plan_room(needed, inventory, for_=for_, now=NOW, priority=priority)
    by_key = {model.key: model for model in inventory.models}
    ranks = [by_key[one.repo, one.commit].preload for one in plan.evict]

    assert all(
        (-1 if first is None else first) <= (-1 if second is None else second)
        for first, second in itertools.pairwise(ranks)
    )
