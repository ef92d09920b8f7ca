"""What stands in a row of the board that workers share (`board`): a count, a tenant's account, or a number.

A store of one aligned word is never seen by halves. What is read before it is written is written under a lock of the
row's first byte; a worker that is alone (`Lone…`) needs none.
"""

import fcntl
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cotenant_serving.gateway.board import Count, Levels

VALID_AT = 16
COPIES_AT = 32
COUNTS_AT = 128
"""Offsets in a row."""


class SharedCount:
    __slots__ = ("_at", "_file", "_mine", "_parts")

    def __init__(self, file: int, parts: "memoryview[int]", at: int, column: int) -> None:
        """`at`: offset of the row; `parts`: its counts."""
        self._file, self._parts, self._at, self._mine = file, parts, at, column

    def add(self, change: int) -> None:
        # One aligned store: nobody sees half of it. struct.pack_into would write zeros first.
        self._parts[self._mine] += change

    def own(self) -> int:
        return self._parts[self._mine]

    def parts(self) -> Sequence[int]:
        return self._parts

    def total(self) -> int:
        return sum(self._parts)

    def take(self, most: int) -> bool:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._at)
        try:
            if room := sum(self._parts) < most:
                self._parts[self._mine] += 1
            return room
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._at)

    def close(self) -> None:
        self._parts.release()


class LoneCount(SharedCount):
    """Of a worker that has no others beside it."""

    __slots__ = ()

    def take(self, most: int) -> bool:
        if sum(self._parts) >= most:
            return False
        self._parts[self._mine] += 1
        return True


class SharedFlag:
    __slots__ = ("_at", "_words")

    def __init__(self, words: "memoryview[int]", at: int) -> None:
        self._words, self._at = words, at

    def get(self) -> int:
        return self._words[self._at]

    def set(self, value: int) -> None:
        self._words[self._at] = value


class SharedAccount:
    __slots__ = ("_at", "_doubles", "_file", "_first", "_valid", "_words", "running")

    def __init__(
        self, file: int, words: "memoryview[int]", doubles: "memoryview[float]", at: int, running: "Count"
    ) -> None:
        self._file, self._words, self._doubles, self._at = file, words, doubles, at
        self._valid, self._first = (at + VALID_AT) // 4, (at + COPIES_AT) // 8
        self.running = running

    def load(self) -> "Levels":
        doubles, at = self._doubles, self._first + 4 * self._words[self._valid]
        return doubles[at], doubles[at + 1], doubles[at + 2], doubles[at + 3]

    def store(self, levels: "Levels") -> None:
        copy = 1 - self._words[self._valid]
        at = self._first + 4 * copy
        for place, value in enumerate(levels):
            self._doubles[at + place] = value
        self._words[self._valid] = copy

    def fill(self, requests_full: float, tokens_full: float) -> None:
        doubles, at = self._doubles, self._first + 4 * self._words[self._valid]
        doubles[at + 1] = requests_full
        doubles[at + 3] = tokens_full

    def __enter__(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._at)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._at)


class LoneAccount(SharedAccount):
    """Of a worker that has no others beside it."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SharedNumber:
    """In the place of a row's levels: one aligned store, which nobody sees half of."""

    __slots__ = ("_at", "_doubles", "_file", "_index")

    def __init__(self, file: int, doubles: "memoryview[float]", at: int) -> None:
        """`at`: offset of the row."""
        self._file, self._doubles, self._at = file, doubles, at
        self._index = (at + COPIES_AT) // 8

    def get(self) -> float:
        return self._doubles[self._index]

    def add(self, change: float) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._at)
        try:
            self._doubles[self._index] += change
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._at)

    def raise_to(self, least: float) -> None:
        if self.get() >= least:
            return
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._at)
        try:
            self._doubles[self._index] = max(self._doubles[self._index], least)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._at)


class LoneNumber(SharedNumber):
    """Of a worker that has no others beside it."""

    __slots__ = ()

    def add(self, change: float) -> None:
        self._doubles[self._index] += change

    def raise_to(self, least: float) -> None:
        self._doubles[self._index] = max(self._doubles[self._index], least)
