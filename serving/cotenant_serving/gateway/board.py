"""What the workers of one gateway tell each other through memory: counts, numbers, levels of tenants' buckets.

The seam is `Board`. `LocalBoard` is for one process alone; `SharedBoard` is an anonymous file of the supervisor's,
mapped by every worker, so it needs no disk and is gone with the last of them:

    header   rows in use (u32), usage_open (u32)        64 bytes
    row      key of its name (16 bytes)
             which of the two copies holds (u32), whether there is a mutex (u32), rest unused
             two copies of a tenant's levels (4 doubles each), or a number (the first of them)
             one u32 for each column
             a mutex (`board_locks`)                    448 bytes

Each worker has a column of its own and nobody else writes there, so counts need no lock; the supervisor clears a
dead worker's. Levels are changed under the lock of the row, which the kernel takes back from a process that is
killed. What a bucket holds is one double, changed by one store; when its capacity changes too, a new copy is written
beside the one that holds, then one store makes it hold.
"""

import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
from collections.abc import Collection
from typing import Protocol

from cotenant_serving.gateway.board_locks import NO_LOCK, FileLock, MutexLock, RowLock, make_mutex
from cotenant_serving.gateway.board_rows import (
    LEVELS,
    NO_LEVELS,
    Account,
    Count,
    Levels,
    LocalAccount,
    LocalCount,
    LocalNumber,
    Number,
)

__all__ = [
    "LEVELS",
    "NO_LEVELS",
    "Account",
    "Board",
    "Count",
    "Flag",
    "Levels",
    "LocalAccount",
    "LocalBoard",
    "LocalCount",
    "LocalNumber",
    "Number",
    "SharedBoard",
]

log = logging.getLogger("cotenant.gateway")

SIGNS_OF_LIFE, USAGE_DROPPED = "signs of life", "usage dropped"
LEAVING, USAGE_UNSENT = "leaving", "usage unsent"
"""Names of counts that the supervisor knows. `LEAVING`: its own, 1 from the signal on that ends the gateway.
`USAGE_UNSENT`: its own, bytes of usage lines that the operator has not acknowledged."""

COLUMNS = 64
ROWS = 1 << 16
_HEADER_BYTES = 64
_ROW_BYTES = 448
_KEY_BYTES = 16
VALID_AT = 16
_HAS_MUTEX_AT = 20
COPIES_AT = 32
COUNTS_AT = 128
MUTEX_AT = 384
"""Offsets in a row."""


class Flag(Protocol):
    """One number that any worker may read and set."""

    def get(self) -> int: ...

    def set(self, value: int) -> None: ...


class Board(Protocol):
    usage_open: Flag
    """Not 0 while a worker writes to the usage file; see `usage_file`."""

    def count(self, name: str) -> Count:
        """Always the same one for a name. Should names run out, each worker counts a new one for itself."""

    def account(self, tenant: str) -> Account:
        """As `count`."""

    def number(self, name: str) -> Number:
        """As `count`."""


class LocalBoard:
    """For one process alone."""

    def __init__(self) -> None:
        self.usage_open: Flag = LocalCount()
        self._numbers: dict[str, Number] = {}
        self._counts: dict[str, Count] = {}
        self._accounts: dict[str, Account] = {}

    def count(self, name: str) -> Count:
        return self._counts.setdefault(name, LocalCount())

    def account(self, tenant: str) -> Account:
        return self._accounts.setdefault(tenant, LocalAccount())

    def number(self, name: str) -> Number:
        return self._numbers.setdefault(name, LocalNumber())


class SharedBoard:
    """One process's view of the board. Open it once per process: closing it gives up the process's file locks."""

    def __init__(self, file: int, *, column: int, columns: int, mutexes: bool = True) -> None:
        """`file` is taken over. `column`: where this process counts, below `columns`, which are summed up.

        `mutexes`: for the rows that this process makes, where the system has them.
        """
        self._file, self._column, self._columns = file, column, columns
        self._mutexes = mutexes
        self._memory = mmap.mmap(file, _HEADER_BYTES + ROWS * _ROW_BYTES)
        self._words = memoryview(self._memory).cast("I")
        self._doubles = memoryview(self._memory).cast("d")
        self._counts: dict[int, Count] = {}
        self._locks: dict[int, RowLock] = {}
        self._rows: dict[bytes, int] = {}
        self._known = 0
        self._own = LocalBoard()
        self.usage_open: Flag = Count(self._words[1:2], 0, NO_LOCK)

    @classmethod
    def create(cls, *, column: int, columns: int, mutexes: bool = True) -> "SharedBoard":
        file = os.memfd_create("cotenant-gateway-board")
        os.ftruncate(file, _HEADER_BYTES + ROWS * _ROW_BYTES)
        return cls(file, column=column, columns=columns, mutexes=mutexes)

    def fileno(self) -> int:
        return self._file

    def count(self, name: str) -> Count:
        at = self._row(f"count {name}")
        return self._count(at) if at else self._own.count(name)

    def account(self, tenant: str) -> Account:
        at = self._row(f"tenant {tenant}")
        if not at:
            return self._own.account(tenant)
        copies, valid = (at + COPIES_AT) // 8, (at + VALID_AT) // 4
        return Account(
            self._doubles[copies : copies + 2 * LEVELS],
            self._words[valid : valid + 1],
            self._count(at),
            self._lock(at),
        )

    def number(self, name: str) -> Number:
        at = self._row(f"number {name}")
        if not at:
            return self._own.number(name)
        place = (at + COPIES_AT) // 8
        return Number(self._doubles[place : place + 1], self._lock(at))

    def clear(self, column: int, keep: Collection[str] = ()) -> None:
        """Nothing of what this column counted is there any more: its process is dead.

        `keep`: names of counts of what happened, which the column's next process goes on with.
        """
        kept = {self._row(f"count {name}") for name in keep}
        for row in range(self._words[0]):
            if (at := _offset(row)) not in kept:
                self._words[(at + COUNTS_AT) // 4 + column] = 0

    def close(self) -> None:
        """The memory goes with the last account, number or lock that somebody still has."""
        for count in self._counts.values():
            count.close()
        self._words.release()
        self._doubles.release()
        self._locks.clear()
        with contextlib.suppress(BufferError):
            self._memory.close()
        os.close(self._file)

    def _count(self, at: int) -> Count:
        known = self._counts.get(at)
        if known is None:
            first = (at + COUNTS_AT) // 4
            known = Count(self._words[first : first + self._columns], self._column, self._lock(at))
            self._counts[at] = known
        return known

    def _lock(self, at: int) -> RowLock:
        if at not in self._locks:
            mutex = self._words[(at + _HAS_MUTEX_AT) // 4]
            self._locks[at] = MutexLock(self._memory, at + MUTEX_AT) if mutex else FileLock(self._file, at)
        return self._locks[at]

    def _row(self, name: str) -> int:
        """Offset of the row of this name, which is made when there is none; 0 when all rows are taken."""
        key = hashlib.blake2b(name.encode(), digest_size=_KEY_BYTES).digest()
        if key not in self._rows:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
            try:
                self._read_keys()
                if key not in self._rows:
                    self._append(key, name)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)
        return self._rows.get(key, 0)

    def _read_keys(self) -> None:
        for row in range(self._known, self._words[0]):
            at = _offset(row)
            self._rows[self._memory[at : at + _KEY_BYTES]] = at
        self._known = self._words[0]

    def _append(self, key: bytes, name: str) -> None:
        if self._known >= ROWS:
            log.error("no room for '%s' beside %d other names: each worker counts it for itself", name, ROWS)
            return
        at = _offset(self._known)
        self._memory[at : at + _KEY_BYTES] = key
        made = self._mutexes and make_mutex(self._memory, at + MUTEX_AT)
        self._words[(at + _HAS_MUTEX_AT) // 4] = made
        self._rows[key] = at
        self._known += 1
        self._words[0] = self._known


def _offset(row: int) -> int:
    return _HEADER_BYTES + row * _ROW_BYTES
