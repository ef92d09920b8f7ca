"""Rows of the ledger that instances have while they live: promised bytes, leases, preload lists. And pins."""

import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

Key = tuple[str, str]
"""(repo, commit)"""
FETCHING = "fetching"
"""Name of the lease that keeps what was fetched of a model until the rest is here."""
_OF_HOLDERS = ("leases", "reservations", "preload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    id: str
    holder: str
    repo: str
    commit: str
    name: str
    since: float


@dataclass
class Kept:
    """What this process has in the ledger and the disk does not know: leases, promised bytes, its preload list."""

    leases: dict[str, tuple[str, str, str, float]] = field(default_factory=dict)
    """id → repo, commit, name, since"""
    reservations: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """flight → repo, commit, bytes"""

    preload: Mapping[Key, int] = field(default_factory=dict)
    """Model → priority"""

    def copy(self) -> "Kept":
        return Kept(dict(self.leases), dict(self.reservations), dict(self.preload))

    def encoded(self) -> bytes:
        preload = tuple((*model, priority) for model, priority in self.preload.items())
        return msgspec.json.encode(_Written(self.leases, self.reservations, preload))

    @classmethod
    def decoded(cls, written: bytes) -> "Kept":
        """Of nothing: nothing. Raises msgspec.MsgspecError, UnicodeDecodeError."""
        said = _WRITTEN.decode(written) if written else _Written()
        preload = {(repo, commit): priority for repo, commit, priority in said.preload}
        return cls(said.leases, said.reservations, preload)

    def write_to(self, run_many: Callable[[str, list[Any]], object], holder: str) -> None:
        run_many(
            "INSERT OR REPLACE INTO leases(id, holder, repo, commit_id, name, since) VALUES (?, ?, ?, ?, ?, ?)",
            [(id_, holder, *lease) for id_, lease in self.leases.items()],
        )
        run_many(
            "INSERT OR REPLACE INTO reservations(flight, holder, repo, commit_id, bytes) VALUES (?, ?, ?, ?, ?)",
            [(flight, holder, *promise) for flight, promise in self.reservations.items()],
        )
        run_many(
            "INSERT OR REPLACE INTO preload(holder, repo, commit_id, priority) VALUES (?, ?, ?, ?)",
            [(holder, *model, priority) for model, priority in self.preload.items()],
        )


class _Written(msgspec.Struct):
    """`Kept`, as an instance has it in its holder's file. What a later version adds is passed over."""

    leases: dict[str, tuple[str, str, str, float]] = {}
    reservations: dict[str, tuple[str, str, int]] = {}
    preload: tuple[tuple[str, str, int], ...] = ()


_WRITTEN = msgspec.json.Decoder(_Written)


class Rows:
    """Of one transaction. See `ledger_records.Tx`."""

    def __init__(self, connection: sqlite3.Connection, holder: str, clock: Callable[[], float], kept: Kept) -> None:
        self._run = connection.execute
        self._run_many = connection.executemany
        self._holder, self._clock = holder, clock
        self.kept = kept
        self.was_reconciled = False


class ClaimRows(Rows):
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
        """Late perhaps: what another holder was promised since stays."""
        self._run("DELETE FROM reservations WHERE flight = ? AND holder = ?", (flight, self._holder))
        self.kept.reservations.pop(flight, None)

    def reserved_others(self, alive: Collection[str] | None = None, *, flight: str = "") -> int:
        """Bytes promised to all fetches but this one, whose holders live."""
        return sum(size for *_, size in self._promised(alive, {flight}))

    def fetching(self, alive: Collection[str] | None = None) -> frozenset[str]:
        """Repositories of all fetches whose holders live."""
        return frozenset(repo for repo, *_ in self._promised(alive))

    def cut_off(self, alive: Collection[str]) -> frozenset[Key]:
        """What those fetched whose holders live no more, as far as nobody has forgotten it."""
        rows = self._run("SELECT holder, repo, commit_id FROM reservations")
        return frozenset((repo, commit) for holder, repo, commit in rows if not self._lives(holder, alive))

    def _promised(self, alive: Collection[str] | None, but: Collection[str] = ()) -> list[tuple[str, str, int]]:
        """Repository, commit and bytes of each fetch but these flights."""
        rows = self._run("SELECT flight, holder, repo, commit_id, bytes FROM reservations")
        return [
            (repo, commit, size)
            for flight, holder, repo, commit, size in rows
            if flight not in but and self._lives(holder, alive)
        ]

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

    # pins and preload

    def pin(self, repo: str, commit: str) -> None:
        self._run("INSERT OR IGNORE INTO pins(repo, commit_id) VALUES (?, ?)", (repo, commit))

    def unpin(self, repo: str, commit: str) -> None:
        self._run("DELETE FROM pins WHERE repo = ? AND commit_id = ?", (repo, commit))

    def set_preload(self, items: Iterable[tuple[str, str, int]], coming: Collection[str] = ()) -> None:
        """(repo, commit, priority) of this instance's whole list; of two for one model the higher priority counts.

        `coming`: repositories of which the list does not know the commit yet; what was added of them stays.
        """
        best = {key: priority for key, priority in self.kept.preload.items() if key[0] in coming}
        for repo, commit, priority in items:
            best[repo, commit] = max(priority, best.get((repo, commit), priority))
        self._run("DELETE FROM preload WHERE holder = ?", (self._holder,))
        self._run_many(
            "INSERT INTO preload(holder, repo, commit_id, priority) VALUES (?, ?, ?, ?)",
            [(self._holder, *model, priority) for model, priority in best.items()],
        )
        self.kept.preload = best

    def add_preload(self, repo: str, commit: str, priority: int) -> None:
        """One more of this instance's list, until `set_preload` replaces that."""
        best = max(priority, self.kept.preload.get((repo, commit), priority))
        self._run(
            "INSERT OR REPLACE INTO preload(holder, repo, commit_id, priority) VALUES (?, ?, ?, ?)",
            (self._holder, repo, commit, best),
        )
        self.kept.preload = {**self.kept.preload, (repo, commit): best}

    def _pins(self) -> frozenset[Key]:
        return frozenset(self._run("SELECT repo, commit_id FROM pins"))

    def _preload(self, alive: Collection[str] | None) -> Mapping[Key, int]:
        """Of all instances that live: pools may share a volume, each with a list of its own."""
        found: dict[Key, int] = {}
        for holder, repo, commit, priority in self._run("SELECT holder, repo, commit_id, priority FROM preload"):
            if self._lives(holder, alive):
                found[repo, commit] = max(priority, found.get((repo, commit), priority))
        return found

    # holders

    def holders(self) -> frozenset[str]:
        """Ids of all who have rows here."""
        rows = self._run(" UNION ".join(f"SELECT holder FROM {table}" for table in _OF_HOLDERS))  # noqa: S608
        return frozenset(holder for (holder,) in rows)

    def restore(self, holder: str, kept: Kept) -> None:
        """Into a ledger that was made anew: what another instance has."""
        kept.write_to(self._run_many, holder)

    def forget_dead(self, alive: Collection[str]) -> int:
        """Rows of holders that are not alive go. → how many."""
        dead = [(holder,) for holder in self.holders() if not self._lives(holder, alive)]
        gone = 0
        for table in _OF_HOLDERS:
            gone += max(0, self._run_many(f"DELETE FROM {table} WHERE holder = ?", dead).rowcount)  # noqa: S608
        return gone

    def _lives(self, holder: str, alive: Collection[str] | None) -> bool:
        return alive is None or holder == self._holder or holder in alive

    def _leases_by_model(self, alive: Collection[str] | None) -> dict[Key, list[str]]:
        found: dict[Key, list[str]] = defaultdict(list)
        for lease in self.leases(alive):
            found[lease.repo, lease.commit].append(lease.name)
        return found
