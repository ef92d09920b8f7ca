"""How fast bytes may come, and how slowly they may come before a connection is given up."""

import threading
from collections.abc import Callable

from cotenant_cache.backoff import TryAgainError


class Pace:
    """At most `bytes_per_s` on average (0: no limit), for one fetch or for all threads that share it."""

    def __init__(self, bytes_per_s: int, clock: Callable[[], float]) -> None:
        self._bytes_per_s, self._clock = bytes_per_s, clock
        self._lock = threading.Lock()
        self._paid_until = clock()

    def spend(self, count: int) -> float:
        """Seconds to wait now that `count` bytes came."""
        if not self._bytes_per_s:
            return 0.0
        with self._lock:
            now = self._clock()
            # Time that nobody used is not saved up: a pause is no right to a flood after it.
            self._paid_until = max(self._paid_until, now) + count / self._bytes_per_s
            return self._paid_until - now


class Floor:
    """Gives up on one connection that brings a byte now and then, which no wait for the next byte would notice."""

    def __init__(self, bytes_per_s: int, over_s: float) -> None:
        self._bytes_per_s, self._over_s = bytes_per_s, over_s
        self._count, self._waited_s = 0, 0.0

    def came(self, count: int, waited_s: float) -> None:
        """`waited_s` is the time spent on the network alone. Raises TryAgainError."""
        self._count += count
        self._waited_s += waited_s
        if self._waited_s < self._over_s:
            return
        if self._count < self._bytes_per_s * self._over_s:
            raise TryAgainError(f"only {self._count} bytes came in {self._waited_s:.0f} s")
        self._count, self._waited_s = 0, 0.0
