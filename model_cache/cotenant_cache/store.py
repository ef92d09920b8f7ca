"""One instance's hold on a volume: its files, its ledger, and its place among the other instances."""

import errno
import math
import random
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cotenant_cache.contract import CachedModel, RoomPlan, Usage
from cotenant_cache.disk import CONTROL, Volume, repo_key
from cotenant_cache.errors import CacheError, DiskFullError, VolumeError
from cotenant_cache.holders import Holder, all_living, kept_by, living
from cotenant_cache.ledger import Ledger
from cotenant_cache.ledger_claims import Kept
from cotenant_cache.ledger_records import Tx
from cotenant_cache.plan import Inventory

_UNBOUNDED = 2**62
PRELOAD_KEPT = 0.2
"""Of the disk: what is only preloaded leaves so much free where no budget is set. By default a kubelet evicts pods,
and what they hold is lost, when less than 15 % are free where images are, or 10 % where pods' volumes are, often on
one disk; the rest is for what others write meanwhile."""
_LOOKS, _LOOK_S = 10, 0.01
"""At what another instance keeps."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance as the cache sees them. Seconds."""

    now: Callable[[], float] = time.time
    """Since the epoch: shown to people, and used for costs."""
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random


class Store:
    """One instance on a volume. Its threads may share it: their transactions take turns.

    `budget_bytes` None: what the volume is set to; where nobody set it, only the disk's free space is a bound, of
    which what is needed now leaves `kept_share` of the disk, and what is only preloaded PRELOAD_KEPT.
    `reconcile` brings a ledger that was made anew up to what the disk has, before anything else is read of it.
    Raises VolumeError, NewerFormatError.
    """

    def __init__(
        self,
        root: Path,
        budget_bytes: int | None,
        *,
        clock: Clock = Clock(),
        step: Callable[[str], None] = lambda name: None,
        kept_share: float = 0.0,
        reconcile: Callable[["Store", Tx], object] = lambda store, tx: None,
    ) -> None:
        self.root = root
        self.clock = clock
        self._given_bytes, self._kept_share = budget_bytes, kept_share
        self._turn = threading.RLock()
        self._reconcile = reconcile
        self._written = Kept()
        """As the holder's file has it."""
        self._owed: list[Callable[[Tx], None]] = []
        self.volume = Volume(root, step)
        with volume_errors(root):
            self.holder = Holder.enter(root)
        try:
            self.ledger = Ledger.open(root / CONTROL / "ledger.sqlite", holder=self.holder.id, clock=clock.now)
        except BaseException:
            self.holder.leave()
            raise

    @property
    def _budget_bytes(self) -> int | None:
        return self.volume.budget() if self._given_bytes is None else self._given_bytes

    def kept_bytes(self, priority: int | None) -> int:
        """Of the disk, what a fetch has to leave free; `priority` of a preload list, None: it is needed now."""
        if self._budget_bytes is not None:
            return 0
        share = self._kept_share if priority is None else max(PRELOAD_KEPT, self._kept_share)
        return math.ceil(share * self.volume.disk().total_bytes)

    def close(self) -> None:
        """Gives up whatever this instance holds: its leases and reservations end with it."""
        self.ledger.close()
        self.holder.leave()

    @contextmanager
    def transaction(self, *, as_it_is: bool = False) -> Iterator[Tx]:
        """All or nothing, and alone on the volume. Raises DiskFullError, VolumeError.

        `as_it_is`: by who reconciles the ledger himself.
        """
        with self._turn:
            with volume_errors(self.root), self.ledger.transaction() as tx:
                if self.ledger.rebuilt and not as_it_is:
                    self._reconcile(self, tx)
                for write in self._owed:
                    write(tx)
                yield tx
                self._keep(tx.kept)
            self._owed.clear()

    def write_or_owe(self, write: Callable[[Tx], None]) -> None:
        """In a transaction of its own; where that cannot be had, in the next one of this instance that can."""
        with self._turn:
            try:
                with self.transaction() as tx:
                    write(tx)
            except CacheError:
                self._owed.append(write)

    def _keep(self, kept: Kept) -> None:
        """Also where others find it when the ledger is lost. A disk that is full is no reason to have no lease."""
        if kept != self._written:
            with suppress(OSError):
                self.holder.keep(kept.encoded())
                self._written = kept

    def restore(self, tx: Tx) -> None:
        """Into a ledger that was made anew: what all others have that live, whether they make transactions or not."""
        for id_ in all_living(self.root) - {self.holder.id}:
            tx.restore(id_, self._kept_by(id_))

    def _kept_by(self, id_: str) -> Kept:
        for _ in range(_LOOKS):
            try:
                return Kept.decoded(kept_by(self.root, id_))
            except (msgspec.MsgspecError, UnicodeDecodeError):  # it is being written
                self.clock.sleep(_LOOK_S)
        return Kept()

    def alive(self, tx: Tx) -> frozenset[str]:
        """Of the instances that the ledger knows, those that live."""
        return living(self.root, tx.holders())

    def inventory(self, tx: Tx, *, flight: str = "", ended: Collection[str] = ()) -> Inventory:
        """`flight`: the own fetch, whose promised bytes do not count. `ended`: flights that are taken for over."""
        alive, partials = self.alive(tx), self.volume.partials()
        return tx.inventory(
            _UNBOUNDED if self._budget_bytes is None else self._budget_bytes,
            self.volume.disk(),
            sum(partials.values()),
            self.volume.quarantined_bytes(),
            alive,
            partials=partials,
            flight=flight,
            ended=ended,
        )

    def shown(self, tx: Tx) -> tuple[CachedModel, ...]:
        """Every model, with the branches that are recorded as its commit."""
        models = tx.models(self.alive(tx))
        revisions: dict[tuple[str, str], list[str]] = defaultdict(list)
        for repo in dict.fromkeys(model.repo for model in models):
            for revision, commit in self.volume.revisions(repo).items():
                revisions[repo, commit].append(revision)
        return tuple(
            msgspec.structs.replace(model, revisions=tuple(sorted(names)))
            if (names := revisions.get((model.repo, model.commit)))
            else model
            for model in models
        )

    def usage(self, tx: Tx) -> Usage:
        inventory, disk = self.inventory(tx), self.volume.disk()
        models, blobs = tx.counts()
        return Usage(
            path=str(self.root),
            budget_bytes=self._budget_bytes or 0,
            used_bytes=inventory.used_bytes,
            reserved_bytes=inventory.reserved_bytes,
            partial_bytes=inventory.partial_bytes,
            quarantined_bytes=inventory.quarantined_bytes,
            disk_free_bytes=disk.free_bytes,
            disk_total_bytes=disk.total_bytes,
            models=models,
            blobs=blobs,
            instances=len(all_living(self.root)),
        )

    def told(self, plan: RoomPlan) -> RoomPlan:
        """As people see it: without a budget where nobody set one."""
        return plan if self._budget_bytes is not None else msgspec.structs.replace(plan, budget_bytes=0)


def flight_key(repo: str) -> str:
    """One flight for each repository: its commits share blobs."""
    return repo_key(repo)


@contextmanager
def volume_errors(root: Path) -> Iterator[None]:
    """What the file system or the ledger has against writing → DiskFullError, VolumeError."""
    try:
        yield
    except CacheError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(root) from error
        raise VolumeError(
            f"{error.filename or root}: {error.strerror or error}; check the disk and who writes there"
        ) from error
    except sqlite3.Error as error:
        if "full" in str(error):
            raise _full(root) from error
        raise VolumeError(
            f"{root / '.cotenant'}: the ledger cannot be used ({error}); look whether another instance hangs, "
            "then start this one again"
        ) from error


def _full(root: Path) -> DiskFullError:
    return DiskFullError(
        f"{root}: the disk is full, by files that are not the cache's or a budget that is too large for it; "
        "make room on it or lower the budget"
    )
