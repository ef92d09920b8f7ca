"""What stands in a row of the board (`board`): a count, a tenant's account, or a number.

A store of one aligned word is never seen by halves. What is read first is written under the row's lock.
"""

from array import array
from collections.abc import Sequence

from cotenant_serving.gateway.board_locks import NO_LOCK, RowLock

Levels = tuple[float, float, float, float]
"""(capacity, time when it is full) of the buckets of requests and of tokens; capacity 0: not used yet."""
NO_LEVELS: Levels = (0.0, 0.0, 0.0, 0.0)
LEVELS = len(NO_LEVELS)


class Count:
    """How many of something there are: a number for each worker, which nobody else changes."""

    __slots__ = ("_lock", "column", "values")

    def __init__(self, values: "memoryview[int]", column: int, lock: RowLock) -> None:
        """`column`: this worker's place among `values`."""
        self.values, self.column, self._lock = values, column, lock

    def add(self, change: int) -> None:
        """Changes the part of this worker."""
        # One aligned store: nobody sees half of it. struct.pack_into would write zeros first.
        self.values[self.column] += change

    def own(self) -> int:
        """The part of this worker."""
        return self.values[self.column]

    get = own

    def set(self, value: int) -> None:
        self.values[self.column] = value

    def parts(self) -> Sequence[int]:
        """Of each worker, by its number; always as they are now."""
        return self.values

    def total(self) -> int:
        """Over all workers."""
        return sum(self.values)

    def take(self, most: int) -> bool:
        """Adds 1 if the total stays within `most`; no two workers do it at the same time."""
        with self._lock:
            if room := sum(self.values) < most:
                self.values[self.column] += 1
            return room

    def close(self) -> None:
        self.values.release()


class Account:
    """A tenant's shared state. While its lock is held no other worker changes the levels.

    There are two copies of them, so that all of them can be changed by one store: that of `valid`, which copy holds.
    """

    __slots__ = ("copies", "lock", "running", "valid")

    def __init__(self, copies: "memoryview[float]", valid: "memoryview[int]", running: Count, lock: RowLock) -> None:
        self.copies, self.valid, self.running, self.lock = copies, valid, running, lock

    def load(self) -> Levels:
        levels, at = self.copies, LEVELS * self.valid[0]
        return levels[at], levels[at + 1], levels[at + 2], levels[at + 3]

    def store(self, levels: Levels) -> None:
        copy = 1 - self.valid[0]
        for place, value in enumerate(levels, LEVELS * copy):
            self.copies[place] = value
        self.valid[0] = copy

    def fill(self, requests_full: float, tokens_full: float) -> None:
        """Stores when the buckets are full; their capacities stay."""
        levels, at = self.copies, LEVELS * self.valid[0]
        levels[at + 1] = requests_full
        levels[at + 3] = tokens_full


class Number:
    """A number that every worker changes, and that none takes with it when it dies."""

    __slots__ = ("_lock", "_place")

    def __init__(self, place: "memoryview[float]", lock: RowLock) -> None:
        self._place, self._lock = place, lock

    def get(self) -> float:
        return self._place[0]

    def add(self, change: float) -> None:
        """No two workers do it at the same time."""
        with self._lock:
            self._place[0] += change

    def raise_to(self, least: float) -> None:
        """As `add`; changes nothing where it is as much already."""
        if self._place[0] >= least:
            return
        with self._lock:
            self._place[0] = max(self._place[0], least)


class LocalCount(Count):
    """Of one process."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(memoryview(array("q", [0])), 0, NO_LOCK)


class LocalAccount(Account):
    """Of one process: its event loop is one thread, so there is nobody to keep out."""

    __slots__ = ()

    def __init__(self) -> None:
        copies = memoryview(bytearray(2 * LEVELS * 8)).cast("d")
        super().__init__(copies, memoryview(array("I", [0])), LocalCount(), NO_LOCK)


class LocalNumber(Number):
    """Of one process."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(memoryview(array("d", [0.0])), NO_LOCK)
