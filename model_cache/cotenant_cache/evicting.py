"""Letting models go: a plan first, then the same plan carried out in the transaction in which it was made.

A kill in the middle leaves a ledger that still has the model and a disk that has less of it. The model then is not
whole for anyone who asks, and the next repair puts the ledger right.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from cotenant_cache.belonging import may_go
from cotenant_cache.contract import Eviction, RoomPlan
from cotenant_cache.disk import Volume
from cotenant_cache.errors import CacheFullError, DiskFullError
from cotenant_cache.giving_way import gives_way
from cotenant_cache.ledger_records import Tx
from cotenant_cache.plan import Held, Inventory, plan_eviction, plan_room, why_kept
from cotenant_cache.store import Store, flight_key


def make_room(
    store: Store, tx: Tx, needed_bytes: int, for_: tuple[str, str], priority: int | None = None
) -> RoomPlan:
    """Lets go what the plan names. Raises CacheFullError, DiskFullError with the arithmetic; nothing is gone then."""
    inventory = replace(store.inventory(tx, flight=flight_key(for_[0])), disk_kept_bytes=store.kept_bytes(priority))
    plan = room_plan(store, inventory, needed_bytes, for_, priority)
    if not plan.fits:
        coming = plan.reserved_bytes + needed_bytes
        by_budget = plan.used_bytes + coming > plan.budget_bytes
        by_rule = by_budget or coming <= plan.disk_free_bytes
        raise CacheFullError(plan.refusal) if by_rule else DiskFullError(plan.refusal)
    carry_out(store, tx, plan)
    return plan


def in_the_way(store: Store, tx: Tx, needed_bytes: int, for_: tuple[str, str]) -> tuple[str, ...] | None:
    """Flights of preloads that have to end so that this fits, as few and as unimportant as can be; None: no help."""
    inventory, own = store.inventory(tx), flight_key(for_[0])
    priorities = {
        flight_key(held.repo): -math.inf if held.preload is None else held.preload
        for held in inventory.models
        if held.fetching
    }

    def fits(ended: Sequence[str]) -> bool:
        left = store.inventory(tx, flight=own, ended=ended)
        return room_plan(store, left, needed_bytes, for_).fits

    flights = [key for key in priorities if key != own and gives_way(store.root, key)]
    if not fits(flights):
        return None
    for key in sorted(flights, key=priorities.__getitem__, reverse=True):
        if fits(rest := [other for other in flights if other != key]):
            flights = rest
    return tuple(flights)


def room_plan(
    store: Store, inventory: Inventory, needed_bytes: int, for_: tuple[str, str], priority: int | None = None
) -> RoomPlan:
    """`plan_room` of what we may remove. Whose files they are is asked only where it matters: of what would go."""

    def planned(known: Inventory) -> RoomPlan:
        return plan_room(needed_bytes, known, for_=for_, now=store.clock.now(), priority=priority)

    plan, volume = planned(inventory), store.volume
    models = all(may_go(volume, gone.repo, gone.commit) for gone in plan.evict)
    if plan.fits and models and all(_may_go_loose(volume, blob.repo, blob.digest) for blob in plan.loose):
        return plan
    loose = {key: size for key, size in inventory.loose.items() if _may_go_loose(volume, *key)}
    return planned(
        replace(inventory, models=tuple(_with_owner(volume, held) for held in inventory.models), loose=loose)
    )


def _with_owner(volume: Volume, held: Held) -> Held:
    return held if may_go(volume, held.repo, held.commit) else structs.replace(held, foreign=True)


def _may_go_loose(volume: Volume, repo: str, digest: str) -> bool:
    """What was only begun is always ours."""
    return volume.blob_bytes(repo, digest) is None or may_go(volume, repo)


def carry_out(store: Store, tx: Tx, plan: RoomPlan) -> None:
    if plan.quarantine_bytes:
        store.volume.empty_quarantine()
    for blob in plan.loose:
        store.volume.remove_blob(blob.repo, blob.digest)
        store.volume.remove_partial(blob.repo, blob.digest)
        tx.blob_gone(blob.repo, blob.digest)
    for eviction in plan.evict:
        remove_model(store, tx, eviction.repo, eviction.commit)


def remove_model(store: Store, tx: Tx, repo: str, commit: str) -> None:
    """Its names first, so that no tool sees it half; then the blobs that no other model of the repository names."""
    store.volume.unlink_snapshot(repo, commit)
    for digest in tx.remove_model(repo, commit):
        store.volume.remove_blob(repo, digest)
        store.volume.remove_partial(repo, digest)
        tx.blob_gone(repo, digest)
    store.volume.remove_repo_if_empty(repo)


def plan_for(store: Store, inventory: Inventory, models: Sequence[tuple[str, str]], room_bytes: int) -> RoomPlan:
    """What goes when these models are to go, or that many bytes. A refusal names each model that stays, and why."""
    if not models:
        full = replace(
            inventory,
            budget_bytes=inventory.used_bytes + inventory.reserved_bytes,
            disk_free_bytes=sys.maxsize,
        )
        plan = room_plan(store, full, room_bytes, ("", ""))
        if not plan.fits:
            return _told(inventory, needed_bytes=room_bytes, refusal=_too_little(plan))
        return structs.replace(plan, budget_bytes=inventory.budget_bytes, disk_free_bytes=inventory.disk_free_bytes)
    chosen = [_with_owner(store.volume, held) for held in inventory.models if held.key in set(models)]
    kept = tuple(f"{held.source}: {why}" for held in chosen if (why := why_kept(held)))
    if kept:
        return _told(
            inventory, kept=kept, refusal=f"{'; '.join(kept)}; end what uses it, or unpin it, then evict again"
        )
    return _told(inventory, evict=plan_eviction(chosen, inventory, now=store.clock.now()))


def evict(store: Store, models: Sequence[tuple[str, str]], room_bytes: int, *, yes: bool) -> RoomPlan:
    """Plans, and with `yes` does what it planned, in one transaction."""
    with store.transaction() as tx:
        plan = plan_for(store, store.inventory(tx), models, room_bytes)
        if yes and plan.fits:
            carry_out(store, tx, plan)
    return plan


def _told(
    inventory: Inventory,
    *,
    needed_bytes: int = 0,
    evict: tuple[Eviction, ...] = (),
    kept: tuple[str, ...] = (),
    refusal: str = "",
) -> RoomPlan:
    return RoomPlan(
        needed_bytes=needed_bytes,
        budget_bytes=inventory.budget_bytes,
        used_bytes=inventory.used_bytes,
        reserved_bytes=inventory.reserved_bytes,
        disk_free_bytes=inventory.disk_free_bytes,
        evict=evict,
        kept=kept,
        refusal=refusal,
    )


def _too_little(plan: RoomPlan) -> str:
    stays = "; ".join(plan.kept)
    return f"{plan.needed_bytes} bytes cannot be let go: {stays or 'there is not that much'}; ask for less"
