"""What one transaction of the ledger reads and writes: models, blobs, promised bytes, leases, pins, preload."""

import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from cotenant_cache.contract import CachedModel, ModelFile
from cotenant_cache.ledger_format import REFRESH
from cotenant_cache.plan import DAY_S, Held, Inventory

Key = tuple[str, str]
"""(repo, commit)"""
_GUESSED_S_PER_BYTE = 1 / 100e6
"""Of fetching, as long as nothing was fetched yet."""
_FILES = msgspec.json.Decoder(tuple[ModelFile, ...])


class DamagedError(sqlite3.DatabaseError):
    """Sound for SQLite, and yet no ledger."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class Disk(Protocol):
    """What an inventory must know of the disk."""

    @property
    def free_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    repo: str
    digest: str
    size_bytes: int
    """On disk when present, else as announced."""
    present: bool
    verified_at: float
    """0: never."""
    fetch_s: float
    """0: not fetched by us."""
    named: bool
    """By a model of the ledger."""

    @property
    def verified(self) -> bool:
        return self.present and self.verified_at > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    id: str
    holder: str
    repo: str
    commit: str
    name: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerModel:
    repo: str
    commit: str
    files: tuple[ModelFile, ...]
    present: frozenset[str]
    """Digests of its blobs that are on disk."""
    found: bool
    """Its listing is what was on the disk, put there by another tool, and may lack files; no hub was asked."""
    pinned: bool
    preload: int | None
    used_at: float
    uses: float

    @property
    def missing(self) -> tuple[ModelFile, ...]:
        return tuple(file for file in self.files if file.digest not in self.present)

    @property
    def whole(self) -> bool:
        """Every blob is on disk; whether the snapshot has its links only the disk knows."""
        return not self.missing


@dataclass
class Kept:
    """What this process has in the ledger and the disk does not know: leases and promised bytes."""

    leases: dict[str, tuple[str, str, str, float]] = field(default_factory=dict)
    """id → repo, commit, name, since"""
    reservations: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """flight → repo, commit, bytes"""

    def copy(self) -> "Kept":
        return Kept(dict(self.leases), dict(self.reservations))

    def write_to(self, connection: sqlite3.Connection, holder: str) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO leases(id, holder, repo, commit_id, name, since) VALUES (?, ?, ?, ?, ?, ?)",
            [(id_, holder, *lease) for id_, lease in self.leases.items()],
        )
        connection.executemany(
            "INSERT OR REPLACE INTO reservations(flight, holder, repo, commit_id, bytes) VALUES (?, ?, ?, ?, ?)",
            [(flight, holder, *promise) for flight, promise in self.reservations.items()],
        )


class Tx:
    """Valid inside `Ledger.transaction()` only.

    `alive` are ids of holders that live, asked for inside the same transaction (of `holders()`): one that enters
    later has nothing in the ledger yet. The own holder counts as alive. None: all count.
    """

    def __init__(self, connection: sqlite3.Connection, holder: str, clock: Callable[[], float], kept: Kept) -> None:
        self._run = connection.execute
        self._run_many = connection.executemany
        self._holder, self._clock = holder, clock
        self.kept = kept
        self.was_reconciled = False

    def reconciled(self) -> None:
        """The ledger now has what the disk has; ends `Ledger.rebuilt`."""
        self._run("UPDATE meta SET value = 1 WHERE name = 'reconciled'")
        self.was_reconciled = True

    def settle(self) -> None:
        """Sums are kept up to date by who writes, so that reading writes nothing, also on a disk that is full."""
        self._run(REFRESH)

    # models

    def put_model(self, repo: str, commit: str, files: Sequence[ModelFile], *, found: bool = False) -> None:
        """Its listing. Blobs that the ledger does not know count as not on disk. `found`: as in LedgerModel."""
        listing = msgspec.json.encode(sorted(files, key=lambda file: file.name))
        known = self._run(
            "SELECT id, files, found FROM models WHERE repo = ? AND commit_id = ?", (repo, commit)
        ).fetchone()
        if known and (bytes(known[1]), bool(known[2])) == (listing, found):
            return
        if known:
            self._run("DELETE FROM parts WHERE model = ?", known[:1])
        self._run(
            "INSERT INTO models(repo, commit_id, files, file_count, found) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO "
            "UPDATE SET files = excluded.files, file_count = excluded.file_count, found = excluded.found",
            (repo, commit, listing, len(files), found),
        )
        self._name_blobs(repo, commit, {file.digest: file.size_bytes for file in files})
        self._forget_nameless(repo)

    def _name_blobs(self, repo: str, commit: str, sizes: Mapping[str, int]) -> None:
        self._run_many(
            "INSERT INTO blobs(repo, digest, size_bytes) VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
            "SET size_bytes = iif(present, size_bytes, excluded.size_bytes)",
            [(repo, digest, size) for digest, size in sizes.items()],
        )
        self._run_many(
            "INSERT INTO parts(model, blob) SELECT m.id, b.id FROM models m, blobs b "
            "WHERE m.repo = ?1 AND m.commit_id = ?2 AND b.repo = ?1 AND b.digest = ?3",
            [(repo, commit, digest) for digest in sizes],
        )

    def model(self, repo: str, commit: str) -> LedgerModel | None:
        return next(iter(self._listings("WHERE m.repo = ? AND m.commit_id = ?", (repo, commit))), None)

    def listings(self, repo: str | None = None) -> tuple[LedgerModel, ...]:
        """Models with their files, of one repository or all; slower than `models`."""
        return self._listings(*(("", ()) if repo is None else ("WHERE m.repo = ?", (repo,))))

    def _listings(self, where: str, values: tuple[str, ...]) -> tuple[LedgerModel, ...]:
        rows = self._run(
            "SELECT m.id, m.repo, m.commit_id, m.files, m.found, m.used_at, m.uses, p.repo IS NOT NULL, l.priority "  # noqa: S608
            "FROM models m LEFT JOIN pins p USING (repo, commit_id) LEFT JOIN preload l USING (repo, commit_id) "
            f"{where} ORDER BY m.repo, m.commit_id",
            values,
        ).fetchall()
        return tuple(
            LedgerModel(
                repo=repo,
                commit=commit,
                files=_decoded(files),
                present=self._present(id_),
                found=bool(found),
                used_at=used_at,
                uses=uses,
                pinned=bool(pinned),
                preload=preload,
            )
            for id_, repo, commit, files, found, used_at, uses, pinned, preload in rows
        )

    def _present(self, model: int) -> frozenset[str]:
        rows = self._run(
            "SELECT b.digest FROM parts JOIN blobs b ON b.id = blob WHERE model = ? AND b.present", (model,)
        )
        return frozenset(digest for (digest,) in rows)

    def models(self, alive: Collection[str] | None = None) -> tuple[CachedModel, ...]:
        """All, by name, without `revisions`, which only the disk knows."""
        leases = self._leases_by_model(alive)
        pins, preload = self._pins(), self._preload()
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

    def remove_model(self, repo: str, commit: str) -> tuple[str, ...]:
        """→ digests that no model names any more: of these, blobs and partials may go. Its pin stays known."""
        row = self._run("SELECT id FROM models WHERE repo = ? AND commit_id = ?", (repo, commit)).fetchone()
        if row is None:
            return ()
        blobs = [blob for (blob,) in self._run("SELECT blob FROM parts WHERE model = ?", row)]
        self._run("DELETE FROM parts WHERE model = ?", row)
        self._run("DELETE FROM models WHERE id = ?", row)
        free = [
            digest
            for blob in blobs
            for (digest,) in self._run("SELECT digest FROM blobs WHERE id = ? AND namers = 0", (blob,))
        ]
        self._forget_nameless(repo)
        return tuple(free)

    def touch(self, repo: str, commit: str) -> None:
        """One more use, now."""
        row = self._run(
            "SELECT uses, used_at FROM models WHERE repo = ? AND commit_id = ?", (repo, commit)
        ).fetchone()
        if row is None:
            return
        now = self._clock()
        uses = row[0] * 0.5 ** (max(0.0, now - row[1]) / DAY_S) + 1
        self._run(
            "UPDATE models SET uses = ?, used_at = ? WHERE repo = ? AND commit_id = ?", (uses, now, repo, commit)
        )

    def pin(self, repo: str, commit: str) -> None:
        self._run("INSERT OR IGNORE INTO pins(repo, commit_id) VALUES (?, ?)", (repo, commit))

    def unpin(self, repo: str, commit: str) -> None:
        self._run("DELETE FROM pins WHERE repo = ? AND commit_id = ?", (repo, commit))

    def set_preload(self, items: Iterable[tuple[str, str, int]]) -> None:
        """(repo, commit, priority) of the whole list; of two for one model the higher priority counts."""
        self._run("DELETE FROM preload")
        self._run_many(
            "INSERT INTO preload(repo, commit_id, priority) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET priority = max(priority, excluded.priority)",
            list(items),
        )

    def naming(self, repo: str, digest: str) -> tuple[str, ...]:
        """Commits of the models that name a blob."""
        rows = self._run(
            "SELECT m.commit_id FROM blobs b JOIN parts p ON p.blob = b.id JOIN models m ON m.id = p.model "
            "WHERE b.repo = ? AND b.digest = ? ORDER BY m.commit_id",
            (repo, digest),
        )
        return tuple(commit for (commit,) in rows)

    # blobs

    def blob_published(
        self, repo: str, digest: str, size_bytes: int, *, verified: bool, fetch_s: float = 0.0
    ) -> None:
        """It is on disk. `verified`: against its digest, just now."""
        self._run(
            "INSERT INTO blobs(repo, digest, size_bytes, present, verified_at, fetch_s) VALUES (?, ?, ?, 1, ?, ?) "
            "ON CONFLICT DO UPDATE SET size_bytes = excluded.size_bytes, present = 1, "
            "verified_at = excluded.verified_at, fetch_s = iif(excluded.fetch_s > 0, excluded.fetch_s, fetch_s)",
            (repo, digest, size_bytes, self._clock() if verified else 0.0, fetch_s),
        )

    def blob_verified(self, repo: str, digest: str) -> None:
        self._run("UPDATE blobs SET verified_at = ? WHERE repo = ? AND digest = ?", (self._clock(), repo, digest))

    def blob_gone(self, repo: str, digest: str) -> None:
        self._run("UPDATE blobs SET present = 0, verified_at = 0 WHERE repo = ? AND digest = ?", (repo, digest))
        self._run("DELETE FROM blobs WHERE repo = ? AND digest = ? AND namers = 0", (repo, digest))

    def _forget_nameless(self, repo: str) -> None:
        self._run("DELETE FROM blobs WHERE repo = ? AND namers = 0 AND NOT present", (repo,))

    def blobs(self, repo: str | None = None) -> tuple[Blob, ...]:
        where, values = ("", ()) if repo is None else ("WHERE repo = ?", (repo,))
        return self._blobs(f"{where} ORDER BY repo, digest", values)

    def blobs_to_verify(self) -> tuple[Blob, ...]:
        """On disk, the longest unverified first."""
        return self._blobs("WHERE present = 1 ORDER BY verified_at", ())

    def _blobs(self, where: str, values: tuple[Any, ...]) -> tuple[Blob, ...]:
        rows = self._run(
            f"SELECT repo, digest, size_bytes, present, verified_at, fetch_s, namers FROM blobs {where}",  # noqa: S608
            values,
        )
        return tuple(
            Blob(
                repo=repo,
                digest=digest,
                size_bytes=size,
                present=bool(present),
                verified_at=verified_at,
                fetch_s=fetch_s,
                named=namers > 0,
            )
            for repo, digest, size, present, verified_at, fetch_s, namers in rows
        )

    # promised bytes

    def reserve(self, flight: str, size_bytes: int, *, for_: Key = ("", "")) -> None:
        """Promises bytes that are not on disk yet to a fetch; replaces what was promised it.

        `for_` is the (repo, commit) that counts as being fetched then, and is not evicted.
        """
        self._run(
            "INSERT OR REPLACE INTO reservations(flight, holder, repo, commit_id, bytes) VALUES (?, ?, ?, ?, ?)",
            (flight, self._holder, *for_, size_bytes),
        )
        self.kept.reservations[flight] = (*for_, size_bytes)

    def shrink_reservation(self, flight: str, written_bytes: int) -> None:
        """So many bytes of it are on disk now."""
        self._run("UPDATE reservations SET bytes = max(0, bytes - ?) WHERE flight = ?", (written_bytes, flight))
        if kept := self.kept.reservations.get(flight):
            self.kept.reservations[flight] = (*kept[:2], max(0, kept[2] - written_bytes))

    def release(self, flight: str) -> None:
        self._run("DELETE FROM reservations WHERE flight = ?", (flight,))
        self.kept.reservations.pop(flight, None)

    def reserved_others(self, alive: Collection[str] | None = None, *, flight: str = "") -> int:
        """Bytes promised to all fetches but this one, whose holders live."""
        return sum(size for *_, size in self._promised(alive, flight))

    def fetching(self, alive: Collection[str] | None = None, *, flight: str = "") -> frozenset[str]:
        """Repositories of all fetches but this one, whose holders live."""
        return frozenset(repo for repo, *_ in self._promised(alive, flight))

    def _promised(self, alive: Collection[str] | None, flight: str) -> list[tuple[str, str, int]]:
        rows = self._run("SELECT holder, repo, commit_id, bytes FROM reservations WHERE flight <> ?", (flight,))
        return [(repo, commit, size) for holder, repo, commit, size in rows if self._lives(holder, alive)]

    # leases

    def lease(self, repo: str, commit: str, name: str) -> str:
        """→ its id. It holds until `unlease`, or until its holder is dead and somebody looks."""
        id_, now = secrets.token_hex(8), self._clock()
        self._run(
            "INSERT INTO leases(id, holder, repo, commit_id, name, since) VALUES (?, ?, ?, ?, ?, ?)",
            (id_, self._holder, repo, commit, name, now),
        )
        self.kept.leases[id_] = (repo, commit, name, now)
        return id_

    def unlease(self, lease_id: str) -> None:
        """Nothing happens when it is gone already."""
        self._run("DELETE FROM leases WHERE id = ?", (lease_id,))
        self.kept.leases.pop(lease_id, None)

    def leases(self, alive: Collection[str] | None = None) -> tuple[Lease, ...]:
        rows = self._run("SELECT id, holder, repo, commit_id, name, since FROM leases ORDER BY since, id")
        return tuple(
            Lease(id=id_, holder=holder, repo=repo, commit=commit, name=name, since=since)
            for id_, holder, repo, commit, name, since in rows
            if self._lives(holder, alive)
        )

    def holders(self) -> frozenset[str]:
        """Ids of all who have leases or promised bytes."""
        rows = self._run("SELECT holder FROM leases UNION SELECT holder FROM reservations")
        return frozenset(holder for (holder,) in rows)

    def forget_dead(self, alive: Collection[str]) -> int:
        """Leases and promised bytes of holders that are not alive go. → how many."""
        dead = [(holder,) for holder in self.holders() if not self._lives(holder, alive)]
        gone = 0
        for table in ("leases", "reservations"):
            gone += max(0, self._run_many(f"DELETE FROM {table} WHERE holder = ?", dead).rowcount)  # noqa: S608
        return gone

    def _lives(self, holder: str, alive: Collection[str] | None) -> bool:
        return alive is None or holder == self._holder or holder in alive

    def _leases_by_model(self, alive: Collection[str] | None) -> Mapping[Key, list[str]]:
        found: dict[Key, list[str]] = defaultdict(list)
        for lease in self.leases(alive):
            found[lease.repo, lease.commit].append(lease.name)
        return found

    def _pins(self) -> frozenset[Key]:
        return frozenset(self._run("SELECT repo, commit_id FROM pins"))

    def _preload(self) -> Mapping[Key, int]:
        rows = self._run("SELECT repo, commit_id, priority FROM preload")
        return {(repo, commit): priority for repo, commit, priority in rows}

    # sums over all

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
    ) -> Inventory:
        """For `plan_room`. `partials`: (repo, digest) → bytes, of those in `partial_bytes` that may be let go when
        no live fetch is at their model. `flight` is the own fetch, whose promised bytes do not count.
        """
        sums = self._sums()
        shared, loose = self._shared(), self._loose()
        begun = self._partials(partials or {}, loose)
        fetching = {(repo, commit) for repo, commit, _ in self._promised(alive, "")}
        leases, pins, preload = self._leases_by_model(alive), self._pins(), self._preload()
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
            reserved_bytes=self.reserved_others(alive, flight=flight),
            partial_bytes=partial_bytes,
            quarantined_bytes=quarantined_bytes,
            loose=loose,
            disk_free_bytes=disk.free_bytes,
        )

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
        fetched, took_s = self._run("SELECT sum(fetched_bytes), sum(fetch_s) FROM models").fetchone()
        rows = self._run(
            "SELECT id, repo, commit_id, file_count, complete, used_at, uses, size_bytes, present_bytes, "  # noqa: S608
            f"own_bytes, verified_at, fetch_s + (size_bytes - fetched_bytes) * ? FROM models ORDER BY {order}",
            (took_s / fetched if fetched and took_s else _GUESSED_S_PER_BYTE,),
        )
        return [_Sums(*row) for row in rows]


def _decoded(listing: bytes) -> tuple[ModelFile, ...]:
    try:
        return _FILES.decode(listing)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        raise DamagedError("a listing is no listing") from None


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
