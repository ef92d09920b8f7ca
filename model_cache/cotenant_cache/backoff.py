"""How long to wait before something is tried again. Pure but for the sleep that it is given."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cotenant_cache.errors import FetchStoppedError, HubUnreachableError

T = TypeVar("T")
_NAP_S = 0.5
LeftS = Callable[[], float]
"""Seconds that whoever asked still waits; not above 0: no more. Asked twice a second at least by what takes long."""


def no_end() -> float:
    """LeftS of who waits as long as it takes."""
    return math.inf


class TryAgainError(Exception):
    """What may go well the next time. `wrong`: bytes or lengths were not those of the file that was asked for."""

    def __init__(self, reason: str, after_s: float | None = None, *, wrong: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.after_s, self.wrong = reason, after_s, wrong


@dataclass(frozen=True, slots=True)
class Patience:
    """Waits double from `first_s` to `longest_s`, each times 0.5 to 1 by chance, so that many do not come at once."""

    attempts: int = 8
    first_s: float = 0.5
    longest_s: float = 30.0
    longest_asked_s: float = 300.0
    """The longest Retry-After that is waited for; who asks for more is left, and asked again by a later `ensure`."""

    def wait_s(self, failures: int, after_s: float | None, chance: float) -> float:
        """Before the next attempt, after `failures` (1 is the first) in a row; `chance` is in 0 to 1."""
        doubled = self.first_s * 2.0 ** min(failures - 1, 30)
        own_s = min(doubled, self.longest_s) * (0.5 + chance / 2)
        return own_s if after_s is None else after_s + self.first_s * chance


def nap(seconds: float, sleep: Callable[[float], None], stop: Callable[[], bool]) -> bool:
    """Sleeps, and looks up twice a second; False when it was told to stop."""
    while seconds > 0 and not stop():
        sleep(min(seconds, _NAP_S))
        seconds -= _NAP_S
    return not stop()


def retried(
    call: Callable[[], T],
    patience: Patience,
    *,
    sleep: Callable[[float], None],
    random: Callable[[], float],
    stop: Callable[[], bool] = lambda: False,
) -> T:
    """`call()` until the hub answers it. Raises what it raised last, or at once what no waiting helps against.

    FetchStoppedError: `stop` said so before it was called at all.
    """
    if stop():
        raise FetchStoppedError("stopped before the hub was asked again")
    failures = 0
    while True:
        try:
            return call()
        except HubUnreachableError as error:
            failures += 1
            after_s = error.retry_after_s
            if not error.transient or failures >= patience.attempts or (after_s or 0) > patience.longest_asked_s:
                raise
            if not nap(patience.wait_s(failures, after_s, random()), sleep, stop):
                raise
