"""What the workers of one gateway tell each other through memory: counts, numbers, levels of tenants' buckets.

The seam is `Board`. `LocalBoard` is for one process alone; `SharedBoard` is an anonymous file of the supervisor's,
mapped by every worker, so it needs no disk and is gone with the last of them:

    header   rows in use (u32), usage_open (u32)        64 bytes
    row      key of its name (16 bytes)
             which of the two copies holds (u32), rest unused
             two copies of a tenant's levels (4 doubles each), or a number (the first of them)
             one u32 for each column                    384 bytes

Each worker has a column of its own and nobody else writes there, so counts need no lock; the supervisor clears a
dead worker's. Levels are changed under a byte-range lock of the row (`board_rows`), which the kernel takes back from
a process that is killed. What a bucket holds is one double, changed by one store; when its capacity changes too, a
new copy is written beside the one that holds, then one store makes it hold.
"""

import fcntl
import hashlib
import logging
import mmap
import os
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Protocol

from cotenant_serving.gateway.board_rows import (
    COUNTS_AT,
    LoneAccount,
    LoneCount,
    LoneNumber,
    SharedAccount,
    SharedCount,
    SharedFlag,
    SharedNumber,
)

log = logging.getLogger("cotenant.gateway")

Levels = tuple[float, float, float, float]
"""(capacity, time when it is full) of the buckets of requests and of tokens; capacity 0: not used yet."""
NO_LEVELS: Levels = (0.0, 0.0, 0.0, 0.0)

SIGNS_OF_LIFE, USAGE_DROPPED = "signs of life", "usage dropped"
"""Names of counts that the supervisor knows."""

COLUMNS = 64
ROWS = 1 << 16
_HEADER_BYTES = 64
_ROW_BYTES = 384
_KEY_BYTES = 16


class Count(Protocol):
    """How many of something there are."""

    def add(self, change: int) -> None:
        """Changes the part of this worker."""

    def own(self) -> int:
        """The part of this worker."""

    def parts(self) -> Sequence[int]:
        """Of each worker, by its number."""

    def total(self) -> int:
        """Over all workers."""

    def take(self, most: int) -> bool:
        """Adds 1 if the total stays within `most`; no two workers do it at the same time."""


class Account(Protocol):
    """A tenant's shared state; as a context manager it keeps other workers from changing the levels."""

    running: Count

    def load(self) -> Levels: ...

    def store(self, levels: Levels) -> None: ...

    def fill(self, requests_full: float, tokens_full: float) -> None:
        """Stores when the buckets are full; their capacities stay."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Number(Protocol):
    """A number that every worker changes, and that none takes with it when it dies."""

    def get(self) -> float: ...

    def add(self, change: float) -> None:
        """No two workers do it at the same time."""

    def raise_to(self, least: float) -> None:
        """As `add`; changes nothing where it is as much already."""


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


class LocalCount:
    """A count of one process, and a flag."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0

    def add(self, change: int) -> None:
        self._value += change

    def own(self) -> int:
        return self._value

    total = get = own

    def parts(self) -> Sequence[int]:
        return (self._value,)

    def take(self, most: int) -> bool:
        if self._value >= most:
            return False
        self._value += 1
        return True

    def set(self, value: int) -> None:
        self._value = value


class LocalAccount:
    """An account of one process: its event loop is one thread, so there is nobody to keep out."""

    __slots__ = ("_levels", "running")

    def __init__(self) -> None:
        self.running: Count = LocalCount()
        self._levels = NO_LEVELS

    def load(self) -> Levels:
        return self._levels

    def store(self, levels: Levels) -> None:
        self._levels = levels

    def fill(self, requests_full: float, tokens_full: float) -> None:
        requests, _, tokens, _ = self._levels
        self._levels = (requests, requests_full, tokens, tokens_full)

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LocalNumber:
    """A number of one process."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value = 0.0

    def get(self) -> float:
        return self._value

    def add(self, change: float) -> None:
        self._value += change

    def raise_to(self, least: float) -> None:
        self._value = max(self._value, least)


class LocalBoard:
    """For one process alone."""

    def __init__(self) -> None:
        self.usage_open: Flag = LocalCount()
        self._numbers: dict[str, LocalNumber] = {}
        self._counts: dict[str, LocalCount] = {}
        self._accounts: dict[str, LocalAccount] = {}

    def count(self, name: str) -> LocalCount:
        return self._counts.setdefault(name, LocalCount())

    def account(self, tenant: str) -> LocalAccount:
        return self._accounts.setdefault(tenant, LocalAccount())

    def number(self, name: str) -> LocalNumber:
        return self._numbers.setdefault(name, LocalNumber())


class SharedBoard:
    """One process's view of the board. Open it once per process: closing it gives up the process's locks."""

    def __init__(self, file: int, *, column: int, columns: int, alone: bool = False) -> None:
        """`file` is taken over. `column`: where this process counts, below `columns`, which are summed up.

        `alone`: no other process takes anything or changes levels, so locks are left out.
        """
        self._file, self._column, self._columns, self._alone = file, column, columns, alone
        self._memory = mmap.mmap(file, _HEADER_BYTES + ROWS * _ROW_BYTES)
        self._words = memoryview(self._memory).cast("I")
        self._doubles = memoryview(self._memory).cast("d")
        self._counts: dict[int, SharedCount] = {}
        self._rows: dict[bytes, int] = {}
        self._known = 0
        self._own = LocalBoard()
        self.usage_open: Flag = SharedFlag(self._words, 1)

    @classmethod
    def create(cls, *, column: int, columns: int, alone: bool = False) -> "SharedBoard":
        file = os.memfd_create("cotenant-gateway-board")
        os.ftruncate(file, _HEADER_BYTES + ROWS * _ROW_BYTES)
        return cls(file, column=column, columns=columns, alone=alone)

    def fileno(self) -> int:
        return self._file

    def count(self, name: str) -> Count:
        at = self._row(f"count {name}")
        return self._count(at) if at else self._own.count(name)

    def account(self, tenant: str) -> Account:
        at = self._row(f"tenant {tenant}")
        if not at:
            return self._own.account(tenant)
        kind = LoneAccount if self._alone else SharedAccount
        return kind(self._file, self._words, self._doubles, at, self._count(at))

    def number(self, name: str) -> Number:
        at = self._row(f"number {name}")
        if not at:
            return self._own.number(name)
        return (LoneNumber if self._alone else SharedNumber)(self._file, self._doubles, at)

    def clear(self, column: int, keep: Collection[str] = ()) -> None:
        """Nothing of what this column counted is there any more: its process is dead.

        `keep`: names of counts of what happened, which the column's next process goes on with.
        """
        kept = {self._row(f"count {name}") for name in keep}
        for row in range(self._words[0]):
            if (at := _offset(row)) not in kept:
                self._words[(at + COUNTS_AT) // 4 + column] = 0

    def close(self) -> None:
        for count in self._counts.values():
            count.close()
        self._words.release()
        self._doubles.release()
        self._memory.close()
        os.close(self._file)

    def _count(self, at: int) -> SharedCount:
        known = self._counts.get(at)
        if known is None:
            first = (at + COUNTS_AT) // 4
            kind = LoneCount if self._alone else SharedCount
            known = kind(self._file, self._words[first : first + self._columns], at, self._column)
            self._counts[at] = known
        return known

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
        self._rows[key] = at
        self._known += 1
        self._words[0] = self._known


def _offset(row: int) -> int:
    return _HEADER_BYTES + row * _ROW_BYTES
