"""Which items of a preload list the cache can hold all at once."""

from hypothesis import given
from hypothesis import strategies as st
from tests.builders.cache_inventory import MIB, held, volume

from cotenant_cache.plan_preload import PreloadPlan, Wanted, plan_preload


def want(name: str, mib: int, priority: int = 0, **blobs: int) -> Wanted:
    sizes = {digest: size * MIB for digest, size in blobs.items()} or {f"of {name}": mib * MIB}
    repo, _, commit = name.partition("@")
    return Wanted(source=f"hf://{name}", repo=repo, commit=commit or "1", priority=priority, blobs=sizes)


def names(plan: PreloadPlan) -> tuple[list[str], list[str]]:
    return [item.repo for item in plan.fits], [refused.wanted.repo for refused in plan.refused]


def test_items_are_taken_by_priority_then_in_their_order() -> None:
    items = [want("a", 40, 1), want("b", 40, 5), want("c", 40, 1)]

    assert names(plan_preload(items, volume(budget_mib=100))) == (["b", "a"], ["c"])


def test_a_small_item_takes_the_room_that_a_large_one_before_it_could_not_use() -> None:
    items = [want("large", 200, 9), want("small", 40)]

    assert names(plan_preload(items, volume(budget_mib=100))) == (["small"], ["large"])


def test_commits_that_share_blobs_need_them_once() -> None:
    items = [want("a@1", 0, both=60, one=10), want("a@2", 0, both=60, two=10)]

    assert names(plan_preload(items, volume(budget_mib=80)))[1] == []
    assert names(plan_preload(items, volume(budget_mib=79)))[1] == ["a"]


def test_pins_and_leases_beside_the_list_are_counted_and_what_may_go_is_not() -> None:
    on_disk = (held("pin", 30, pinned=True), held("lease", 30, leases=("e",)), held("may go", 40))

    assert names(plan_preload([want("a", 40)], volume(*on_disk, budget_mib=100))) == (["a"], [])
    assert names(plan_preload([want("a", 41)], volume(*on_disk, budget_mib=100))) == ([], ["a"])


def test_an_item_that_is_here_and_in_use_is_counted_once() -> None:
    here = held("a", 60, leases=("e",))

    assert names(plan_preload([want("a", 60)], volume(here, budget_mib=100))) == (["a"], [])


def test_a_disk_smaller_than_the_budget_is_the_limit() -> None:
    assert names(plan_preload([want("a", 60)], volume(budget_mib=100, disk_free_mib=50))) == ([], ["a"])


def test_a_refusal_has_the_arithmetic_and_the_next_step() -> None:
    (refused,) = plan_preload(
        [want("a", 50, 2), want("b", 60)], volume(held("p", 10, pinned=True), budget_mib=100)
    ).refused

    assert refused.message == (
        "hf://b: 60.0 MiB do not fit beside the preload items before it: of 100.0 MiB, 60.0 MiB are taken, 10.0 MiB "
        "of them of models that are in use or pinned, 20.0 MiB are missing; raise the cache's budget by that, "
        "give the item a higher priority, or shorten the preload list"
    )


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12"), st.integers(0, 60), st.integers(-1, 3))),
    st.integers(0, 200),
)
def test_what_fits_fits_together_and_every_item_is_answered(
    drawn: list[tuple[str, str, int, int]], budget: int
) -> None:
    items = [want(f"{repo}@{commit}", 0, priority, **{f"d{size}": size}) for repo, commit, size, priority in drawn]
    plan = plan_preload(items, volume(budget_mib=budget))
    blobs = {(item.repo, digest): size for item in plan.fits for digest, size in item.blobs.items()}

    assert sum(blobs.values()) <= budget * MIB
    assert len(plan.fits) + len(plan.refused) == len(items)
    assert [item.priority for item in plan.fits] == sorted((item.priority for item in plan.fits), reverse=True)
