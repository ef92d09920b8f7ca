"""What goes for bytes that are to come. Pure.

What can go, in this order: the quarantine, blobs that no model names, models by cost, preloaded models by ascending
priority. What is leased, pinned or being fetched never goes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct, structs

from cotenant_cache.amounts import bytes_text
from cotenant_cache.contract import Eviction, LooseBlob, RoomPlan

DAY_S = 86_400.0
"""Half-life of a use."""
_NAMED = 3
"""Of what stays, in a refusal's text."""
_LISTED = 50
"""Of what stays, in a plan."""


class Held(Struct, frozen=True, kw_only=True):
    """A model of the ledger, with what of it is on disk."""

    repo: str
    commit: str
    size_bytes: int
    own_bytes: int = 0
    """On disk, of blobs that no other model names."""
    shared: Mapping[str, int] = {}
    """On disk, of blobs that other models of the repository name as well: digest → bytes."""
    partials: Mapping[str, int] = {}
    """Begun and cut off: digest → bytes so far."""
    whole: bool = True
    used_at: float = 0.0
    uses: float = 0.0
    """As of `used_at`, older ones counting half as much for each day."""
    refetch_s: float = 0.0
    pinned: bool = False
    preload: int | None = None
    """Its priority on the preload list; None: not on it."""
    leases: tuple[str, ...] = ()
    fetching: bool = False
    """A live instance is fetching it."""
    foreign: bool = False
    """Put there by another user; we may not remove it."""

    @property
    def source(self) -> str:
        return f"hf://{self.repo}@{self.commit}"

    @property
    def shared_bytes(self) -> int:
        return sum(self.shared.values())

    @property
    def present_bytes(self) -> int:
        return self.own_bytes + sum(self.shared.values()) + sum(self.partials.values())

    @property
    def key(self) -> tuple[str, str]:
        return self.repo, self.commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The volume at one moment. Bytes that are on disk are in exactly one of blobs, partials and quarantine."""

    budget_bytes: int
    models: tuple[Held, ...] = ()
    blob_bytes: int = 0
    """Of all blobs, each once, loose ones too."""
    reserved_bytes: int = 0
    """Promised to other fetches and not written yet."""
    partial_bytes: int = 0
    quarantined_bytes: int = 0
    loose: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(repo, digest) → bytes, of blobs and partials that no known model names."""
    disk_free_bytes: int
    disk_kept_bytes: int = 0
    """Of these, left free for whatever else is on the disk."""

    @property
    def used_bytes(self) -> int:
        return self.blob_bytes + self.partial_bytes + self.quarantined_bytes


def recent_uses(held: Held, now: float) -> float:
    """Uses, each counting half as much for every day since. A clock that went back lets nothing age."""
    return held.uses * float(0.5 ** (max(0.0, now - held.used_at) / DAY_S))


def eviction_cost(held: Held, shared_bytes: int, now: float) -> float:
    """bytes × refetch time ÷ recent use, the last as seconds between uses: what is used twice as often costs twice.

    Bytes are those that go: `shared_bytes` of it stay with other models. In byte-seconds of fetching a second.
    """
    return (held.present_bytes - shared_bytes) * held.refetch_s * recent_uses(held, now) / DAY_S


def plan_room(
    needed_bytes: int,
    inventory: Inventory,
    *,
    for_: tuple[str, str],
    now: float,
    priority: int | None = None,
) -> RoomPlan:
    """What goes so that `needed_bytes` more fit both budget and disk, or why they do not; then nothing goes.

    `for_` is the (repo, commit) that they are for. `priority`: only preloaded models below it may go; None: any.
    No eviction of the plan is more than needed: without any one of them it would not fit.
    """
    short = _short(needed_bytes, inventory)
    plan = RoomPlan(
        needed_bytes=needed_bytes,
        budget_bytes=inventory.budget_bytes,
        used_bytes=inventory.used_bytes,
        reserved_bytes=inventory.reserved_bytes,
        disk_free_bytes=inventory.disk_free_bytes,
        disk_kept_bytes=inventory.disk_kept_bytes,
    )
    if max(short) <= 0:
        return plan
    staying = _staying(inventory.models, for_, priority)
    kept = _told(staying, _LISTED)
    loose = _loose(inventory, max(short) - inventory.quarantined_bytes)
    freed = inventory.quarantined_bytes + sum(blob.size_bytes for blob in loose)
    candidates = [held for held in inventory.models if held.key not in staying]
    chosen = _chosen(candidates, inventory.models, max(short) - freed, now)
    going = _evictions(chosen, inventory.models, now)
    freed += sum(eviction.frees_bytes for eviction in going)
    if freed < max(short):
        return structs.replace(
            plan, kept=kept, refusal=_refusal(plan, f"hf://{for_[0]}@{for_[1]}", short, freed, staying)
        )
    return structs.replace(plan, kept=kept, quarantine_bytes=inventory.quarantined_bytes, loose=loose, evict=going)


def plan_eviction(chosen: Iterable[Held], inventory: Inventory, *, now: float) -> tuple[Eviction, ...]:
    """What exactly these free, and what they cost, in this order."""
    return _evictions(tuple(chosen), inventory.models, now)


def why_kept(held: Held, *, priority: int | None = None) -> str:
    """Why it may not go: `in use by 2 leases`; empty: it may. Preloaded ones may for a higher `priority`, or None."""
    if held.leases:
        return f"in use by {len(held.leases)} lease{'s' if len(held.leases) > 1 else ''}"
    if held.pinned:
        return "pinned"
    if held.fetching:
        return "being fetched"
    if held.foreign:
        return "belongs to another user, who alone may remove it"
    if held.preload is not None and priority is not None and held.preload >= priority:
        return f"preload with priority {held.preload}"
    return ""


def _short(needed: int, inventory: Inventory) -> tuple[int, int]:
    """Bytes that lack, of the budget and of the disk; not above 0: it fits."""
    coming, on_disk = inventory.reserved_bytes + needed, inventory.disk_free_bytes - inventory.disk_kept_bytes
    return inventory.used_bytes + coming - inventory.budget_bytes, coming - on_disk if needed else 0


def _staying(models: Iterable[Held], for_: tuple[str, str], priority: int | None) -> dict[tuple[str, str], str]:
    """(repo, commit) → the line that says why it stays."""
    found = {}
    for held in models:
        why = why_kept(held, priority=priority)
        if why and held.key != for_:
            found[held.key] = f"{held.source}: {why} ({bytes_text(held.present_bytes)})"
    found[for_] = ""
    return found


def _told(staying: Mapping[tuple[str, str], str], most: int) -> tuple[str, ...]:
    lines = tuple(line for line in staying.values() if line)
    return lines if len(lines) <= most else (*lines[:most], f"and {len(lines) - most} more")


def _loose(inventory: Inventory, short: int) -> tuple[LooseBlob, ...]:
    """The largest first, so that few go."""
    found: list[LooseBlob] = []
    for (repo, digest), size in sorted(inventory.loose.items(), key=lambda item: (-item[1], item[0])):
        if short <= 0:
            break
        found.append(LooseBlob(repo=repo, digest=digest, size_bytes=size))
        short -= size
    return tuple(found)


class _Namers:
    """How many staying models name each blob of which that matters, while models go and come back."""

    def __init__(self, models: Iterable[Held]) -> None:
        self._models: dict[str, list[Held]] = defaultdict(list)
        self._counts: dict[str, Counter[str]] = {}
        for held in models:
            if held.shared or held.partials:
                self._models[held.repo].append(held)

    def go(self, held: Held) -> int:
        """Bytes that this frees."""
        freed, blobs = held.own_bytes, _counted(held)
        if blobs:
            count = self._of(held.repo)
            count.subtract(blobs.keys())
            freed += sum(size for digest, size in blobs.items() if not count[digest])
        return freed

    def come_back(self, held: Held) -> int:
        """Bytes that this takes again."""
        taken, blobs = held.own_bytes, _counted(held)
        if blobs:
            count = self._of(held.repo)
            taken += sum(size for digest, size in blobs.items() if not count[digest])
            count.update(blobs.keys())
        return taken

    def _of(self, repo: str) -> Counter[str]:
        if repo not in self._counts:
            self._counts[repo] = Counter(digest for held in self._models[repo] for digest in _counted(held))
        return self._counts[repo]


def _counted(held: Held) -> Mapping[str, int]:
    if not held.partials:
        return held.shared
    both = dict(held.shared)
    for digest, size in held.partials.items():
        both[digest] = both.get(digest, 0) + size
    return both


def _chosen(candidates: Sequence[Held], models: Iterable[Held], short: int, now: float) -> tuple[Held, ...]:
    """The cheapest until it fits, without those that a later, larger one made needless. All of them: it does not."""
    if short <= 0:
        return ()
    namers = _Namers(models)
    going: list[Held] = []
    for held in sorted(candidates, key=lambda held: _order(held, now)):
        if short <= 0:
            break
        short -= namers.go(held)
        going.append(held)
    kept = set()
    for held in reversed(going):
        back = namers.come_back(held)
        if short + back <= 0:
            short += back
            kept.add(held.key)
        else:
            namers.go(held)
    return tuple(held for held in going if held.key not in kept)


def _order(held: Held, now: float) -> tuple[float, float, float, str, str]:
    """Of two that cost the same (never used: nothing), the one whose last use is longer ago goes first."""
    preload = float("-inf") if held.preload is None else held.preload
    return preload, eviction_cost(held, held.shared_bytes, now), held.used_at, held.repo, held.commit


def _evictions(going: Sequence[Held], models: Iterable[Held], now: float) -> tuple[Eviction, ...]:
    if not going:
        return ()
    namers = _Namers(models)
    found = []
    for held in going:
        freed = namers.go(held)
        cost = eviction_cost(held, held.present_bytes - freed, now)
        found.append(
            Eviction(repo=held.repo, commit=held.commit, frees_bytes=freed, refetch_s=held.refetch_s, cost=cost)
        )
    return tuple(found)


def _refusal(
    plan: RoomPlan, source: str, short: tuple[int, int], freed: int, staying: Mapping[tuple[str, str], str]
) -> str:
    """One sentence of arithmetic, what stays, and the next step."""
    budget_short, disk_short = short
    by_disk = disk_short > budget_short
    missing = bytes_text(max(short) - freed, up=True)
    if by_disk:
        have = f"the disk has {bytes_text(plan.disk_free_bytes)} free{_promised(plan, ' of which ', ' are promised')}"
        step = f"make {missing} free on the disk that holds the cache"
        if plan.disk_kept_bytes:
            have += f", {bytes_text(plan.disk_kept_bytes, up=True)} have to stay free because no budget is set"
            step += ", or set a budget (spec.cache.size of the GPUPool), which then is the bound"
    else:
        have = (
            f"of the budget of {bytes_text(plan.budget_bytes)}, {bytes_text(plan.used_bytes)} are in use"
            f"{_promised(plan, ' and ', ' promised')}"
        )
        step = f"raise the budget to {bytes_text(plan.budget_bytes + budget_short - freed, up=True)} or more"
    what = f"{bytes_text(plan.needed_bytes)} more do" if plan.needed_bytes else "what is on the volume does"
    stays = "; ".join(_told(staying, _NAMED))
    return (
        f"{source}: {what} not fit: {have}, at most {bytes_text(freed)} can be let go, {missing} are missing; "
        f"{f'what stays: {stays}; stop or unpin some of that, or ' if stays else ''}{step}"
    )


def _promised(plan: RoomPlan, before: str, after: str) -> str:
    """To other fetches, when there are such."""
    if not plan.reserved_bytes:
        return ""
    return f"{before}{bytes_text(plan.reserved_bytes)}{after} to other fetches"
