"""Which items of the preload list the budget can hold. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cotenant_cache.amounts import bytes_text
from cotenant_cache.plan import Held, Inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An item of the preload list, resolved."""

    source: str
    """As it stands in the list."""
    repo: str
    commit: str
    priority: int = 0
    blobs: Mapping[str, int]
    """digest → bytes, on disk or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    wanted: Wanted
    message: str
    """The arithmetic and the next step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreloadPlan:
    fits: tuple[Wanted, ...] = ()
    """In the order in which they are to be fetched."""
    refused: tuple[Refused, ...] = ()


def plan_preload(wanted: Iterable[Wanted], inventory: Inventory) -> PreloadPlan:
    """Which items the volume can hold all at once, by descending priority, then in the list's order.

    What is leased or pinned beside the list is counted first, everything else on the volume can go. A smaller item
    is taken where a larger one of higher priority had no room.
    """
    items = sorted(wanted, key=lambda item: -item.priority)
    listed = {(item.repo, item.commit) for item in items}
    beside = [held for held in inventory.models if held.key not in listed and (held.leases or held.pinned)]
    room = min(inventory.budget_bytes, inventory.used_bytes + inventory.disk_free_bytes)
    counted: set[tuple[str, str]] = set()
    taken = kept = _distinct_bytes(beside, counted)
    fits, refused = [], []
    for item in items:
        new = {key: size for digest, size in item.blobs.items() if (key := (item.repo, digest)) not in counted}
        if taken + sum(new.values()) <= room:
            fits.append(item)
            counted.update(new)
            taken += sum(new.values())
        else:
            refused.append(Refused(wanted=item, message=_no_preload(item, sum(new.values()), room, taken, kept)))
    return PreloadPlan(fits=tuple(fits), refused=tuple(refused))


def _distinct_bytes(models: Iterable[Held], counted: set[tuple[str, str]]) -> int:
    """Of blobs that are not `counted` yet; they are then."""
    total = 0
    for held in models:
        new = {
            (held.repo, digest): size for digest, size in held.shared.items() if (held.repo, digest) not in counted
        }
        counted.update(new)
        total += held.own_bytes + sum(new.values())
    return total


def _no_preload(item: Wanted, needed: int, room: int, taken: int, kept: int) -> str:
    missing = bytes_text(needed + taken - room, up=True)
    beside = f", {bytes_text(kept)} of them of models that are in use or pinned" if kept else ""
    return (
        f"{item.source}: {bytes_text(needed)} do not fit beside the preload items before it: of "
        f"{bytes_text(room)}, {bytes_text(taken)} are taken{beside}, {missing} are missing; "
        "raise the cache's budget by that, give the item a higher priority, or shorten the preload list"
    )
