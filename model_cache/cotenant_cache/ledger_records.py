"""What one transaction of the ledger reads and writes, and sums over all of it."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from cotenant_cache.contract import CachedModel
from cotenant_cache.ledger_claims import FETCHING, ClaimRows
from cotenant_cache.ledger_format import REFRESH
from cotenant_cache.ledger_models import ModelRows
from cotenant_cache.plan import Held, Inventory

_GUESSED_S_PER_BYTE = 1 / 100e6
"""Of fetching, as long as too little was fetched to tell."""
_TELLING_BYTES = 2**20
"""Small files take the time of a request, whatever their bytes."""


class Disk(Protocol):
    """What an inventory must know of the disk."""

    @property
    def free_bytes(self) -> int: ...


class Tx(ModelRows, ClaimRows):
    """Valid inside `Ledger.transaction()` only.

    `alive` are ids of holders that live, asked for inside the same transaction (of `holders()`): one that enters
    later has nothing in the ledger yet. The own holder counts as alive. None: all count.
    """

    was_reconciled = False

    def reconciled(self) -> None:
        """The ledger now has what the disk has; ends `Ledger.rebuilt`."""
        self._run("UPDATE meta SET value = 1 WHERE name = 'reconciled'")
        self.was_reconciled = True

    def settle(self) -> None:
        """Sums are kept up to date by who writes, so that reading writes nothing, also on a disk that is full."""
        self._run(REFRESH)

    def models(self, alive: Collection[str] | None = None) -> tuple[CachedModel, ...]:
        """All, by name, without `revisions`, which only the disk knows."""
        leases = self._leases_by_model(alive)
        pins, preload = self._pins(), self._preload(alive)
        return tuple(
            CachedModel(
                repo=row.repo,
                commit=row.commit,
                size_bytes=row.size_bytes,
                present_bytes=row.present_bytes,
                files=row.files,
                verified=row.present_bytes > 0 and row.verified_at > 0,
                verified_at=row.verified_at,
                used_at=row.used_at,
                pinned=(row.repo, row.commit) in pins,
                preload=(row.repo, row.commit) in preload,
                leases=len(leases.get((row.repo, row.commit), ())),
                refetch_s=row.refetch_s,
            )
            for row in self._sums("repo, commit_id")
        )

    def inventory(
        self,
        budget_bytes: int,
        disk: Disk,
        partial_bytes: int,
        quarantined_bytes: int,
        alive: Collection[str] | None = None,
        *,
        partials: Mapping[tuple[str, str], int] | None = None,
        flight: str = "",
        ended: Collection[str] = (),
    ) -> Inventory:
        """For `plan_room`. `partials`: (repo, digest) → bytes, of those in `partial_bytes` that may be let go when
        no live fetch is at their model. `flight` is the own fetch, whose promised bytes do not count; `ended` are
        flights that are taken for over.

        What nobody names is not loose in a repository that another one fetches: perhaps the ledger was lost, and has
        yet to hear whose it is.

        What live fetches have written is on the disk and also still promised to them, so that they need not say so
        after each block: it counts once, as bytes on the disk.
        """
        sums = self._sums()
        shared, loose = self._shared(), self._loose()
        begun = self._partials(partials or {}, loose)
        fetching = {(repo, commit) for repo, commit, _ in self._promised(alive, ended)}
        over = {(repo, commit) for repo, commit, _ in self._promised(alive)} - fetching
        leases, pins, preload = self._leases_by_model(alive), self._pins(), self._preload(alive)
        for key in over:
            leases[key] = [name for name in leases.get(key, ()) if name != FETCHING]
        elsewhere = {repo for repo, *_ in self._promised(alive, {flight, *ended})}
        nothing: Mapping[str, int] = {}
        held = tuple(
            Held(
                repo=row.repo,
                commit=row.commit,
                size_bytes=row.size_bytes,
                own_bytes=row.own_bytes,
                shared=shared.get(row.id, nothing),
                partials=begun.get(row.id, nothing),
                whole=bool(row.whole),
                used_at=row.used_at,
                uses=row.uses,
                refetch_s=row.refetch_s,
                pinned=(key := (row.repo, row.commit)) in pins,
                preload=preload.get(key),
                leases=tuple(leases.get(key, ())),
                fetching=key in fetching,
            )
            for row in sums
        )
        return Inventory(
            budget_bytes=budget_bytes,
            models=held,
            blob_bytes=self.blob_bytes(),
            reserved_bytes=self._to_come(alive, {flight, *ended}, partials or {}),
            partial_bytes=partial_bytes,
            quarantined_bytes=quarantined_bytes,
            loose={key: size for key, size in loose.items() if key[0] not in elsewhere},
            disk_free_bytes=disk.free_bytes,
        )

    def _to_come(
        self, alive: Collection[str] | None, but: Collection[str], partials: Mapping[tuple[str, str], int]
    ) -> int:
        """Promised to all fetches but these and not written yet; what one has written is no room of another's."""
        return sum(
            max(0, size - self._written(repo, commit, partials)) for repo, commit, size in self._promised(alive, but)
        )

    def _written(self, repo: str, commit: str, partials: Mapping[tuple[str, str], int]) -> int:
        """Of the files that a fetch of this commit was promised room for. Partials of other commits were not."""
        lacking = self._run(
            "SELECT b.digest, b.size_bytes FROM models m JOIN parts p ON p.model = m.id "
            "JOIN blobs b ON b.id = p.blob "
            "WHERE m.repo = ? AND m.commit_id = ? AND NOT (b.present AND b.verified_at > 0)",
            (repo, commit),
        )
        return sum(min(size, partials.get((repo, digest), 0)) for digest, size in lacking)

    def blob_bytes(self) -> int:
        """On disk, each blob once."""
        return int(self._run("SELECT coalesce(sum(size_bytes), 0) FROM blobs WHERE present = 1").fetchone()[0])

    def counts(self) -> tuple[int, int]:
        """Models, and blobs on disk."""
        return (
            int(self._run("SELECT count(*) FROM models").fetchone()[0]),
            int(self._run("SELECT count(*) FROM blobs WHERE present = 1").fetchone()[0]),
        )

    def _shared(self) -> Mapping[int, Mapping[str, int]]:
        """Model's row → blobs on disk that others name as well."""
        found: dict[int, dict[str, int]] = defaultdict(dict)
        for model, digest, size in self._run(
            "SELECT p.model, b.digest, b.size_bytes FROM blobs b JOIN parts p ON p.blob = b.id "
            "WHERE b.present = 1 AND b.namers > 1"
        ):
            found[model][digest] = size
        return found

    def _loose(self) -> dict[tuple[str, str], int]:
        rows = self._run("SELECT repo, digest, size_bytes FROM blobs WHERE present = 1 AND namers = 0")
        return {(repo, digest): size for repo, digest, size in rows}

    def _partials(
        self, partials: Mapping[tuple[str, str], int], loose: dict[tuple[str, str], int]
    ) -> Mapping[int, Mapping[str, int]]:
        """Model's row → what was begun of it; what belongs to no model joins `loose`."""
        found: dict[int, dict[str, int]] = defaultdict(dict)
        for (repo, digest), size in partials.items():
            models = self._run(
                "SELECT p.model FROM blobs b JOIN parts p ON p.blob = b.id WHERE b.repo = ? AND b.digest = ?",
                (repo, digest),
            ).fetchall()
            for (model,) in models:
                found[model][digest] = size
            if not models:
                loose[repo, digest] = loose.get((repo, digest), 0) + size
        return found

    def _sums(self, order: str = "id") -> "list[_Sums]":
        """Per model, over its blobs."""
        self.settle()  # after writes of this transaction
        fetched, took_s = self._run("SELECT coalesce(sum(fetched_bytes), 0), sum(fetch_s) FROM models").fetchone()
        rows = self._run(
            "SELECT id, repo, commit_id, file_count, complete, used_at, uses, size_bytes, present_bytes, "  # noqa: S608
            f"own_bytes, verified_at, fetch_s + (size_bytes - fetched_bytes) * ? FROM models ORDER BY {order}",
            (took_s / fetched if fetched >= _TELLING_BYTES and took_s else _GUESSED_S_PER_BYTE,),
        )
        return [_Sums(*row) for row in rows]


class _Sums(msgspec.Struct):
    """A row of `Tx._sums`."""

    id: int
    repo: str
    commit: str
    files: int
    whole: int
    used_at: float
    uses: float
    size_bytes: int
    present_bytes: int
    own_bytes: int
    verified_at: float
    refetch_s: float
