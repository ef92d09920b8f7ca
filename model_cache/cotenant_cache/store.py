"""One instance's hold on a volume: its files, its ledger, and its place among the other instances."""

import errno
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cotenant_cache.disk import Volume
from cotenant_cache.errors import CacheError, DiskFullError, VolumeError
from cotenant_cache.holders import Holder, living
from cotenant_cache.ledger import Ledger, Tx
from cotenant_cache.plan import Inventory


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

    `budget_bytes` None: only the disk's free space is a bound. Raises VolumeError, NewerFormatError.
    """

    def __init__(
        self,
        root: Path,
        budget_bytes: int | None,
        *,
        clock: Clock = Clock(),  # noqa: B008 - frozen
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.root = root
        self.clock = clock
        self._budget_bytes = budget_bytes
        self._turn = threading.RLock()
        self.volume = Volume(root, step)
        self.holder = Holder.enter(root)
        try:
            self.ledger = Ledger.open(root / ".cotenant" / "ledger.sqlite", holder=self.holder.id, clock=clock.now)
        except BaseException:
            self.holder.leave()
            raise

    def close(self) -> None:
        """Gives up whatever this instance holds: its leases and reservations end with it."""
        self.ledger.close()
        self.holder.leave()

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """All or nothing, and alone on the volume. Raises DiskFullError, VolumeError."""
        with self._turn, volume_errors(self.root), self.ledger.transaction() as tx:
            yield tx

    def alive(self) -> frozenset[str]:
        """Ids of the instances that live."""
        return living(self.root, os.listdir(self.root / ".cotenant" / "holders"))

    def inventory(self, tx: Tx) -> Inventory:
        raise NotImplementedError

    def budget_bytes(self) -> int:
        """What may be used; the whole disk when nobody set a budget."""
        return self.volume.disk().total_bytes if self._budget_bytes is None else self._budget_bytes


def flight_key(repo: str) -> str:
    """One flight for each repository: its commits share blobs."""
    return "models--" + repo.replace("/", "--")


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
        raise VolumeError(f"{root}: {error.strerror or error}; check the disk and who may write there") from error
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
