"""Hubs that asked to be left alone for a time (Retry-After). What one request heard holds for all of an instance."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping

MOST_S = 3600.0
"""Whatever a hub says: it is asked again after so long, since who says more may be mistaken."""


class Rests:
    """By hub and token, which is what hubs count by: another token may ask. Threads share it. Seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[str, bytes], float] = {}
        self._turn = threading.Lock()

    def left_s(self, hub: str, secret: Mapping[str, str]) -> float:
        """Until this hub may be asked with these secret headers; 0: now."""
        with self._turn:
            return max(0.0, self._until.get(_key(hub, secret), 0.0) - self._clock())

    def note(self, hub: str, secret: Mapping[str, str], seconds: float | None) -> None:
        """What a hub asked for; None and 0: nothing. An earlier, longer wish holds on."""
        if not seconds:
            return
        key, now = _key(hub, secret), self._clock()
        with self._turn:
            self._until = {known: until for known, until in self._until.items() if until > now}
            self._until[key] = max(self._until.get(key, 0.0), now + min(seconds, MOST_S))


def _key(hub: str, secret: Mapping[str, str]) -> tuple[str, bytes]:
    """The secret itself is kept nowhere."""
    told = "\n".join(f"{name}: {value}" for name, value in sorted(secret.items()))
    return hub, hashlib.sha256(told.encode()).digest()
