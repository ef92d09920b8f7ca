"""`ensure`, for one caller: use what is here, wait for the instance that fetches it, or be that instance.

All instances of a volume are equals. Whoever holds a repository's flight fetches; the others look at its progress a
few times a second, and when the flight comes free without a result (its holder died, or gave up) one takes over.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from cotenant_cache.contract import Progress
from cotenant_cache.errors import CacheError, CacheFullError, DiskFullError, TooLateError
from cotenant_cache.flying import Flying
from cotenant_cache.holders import Flight, flight_progress
from cotenant_cache.shelving import Leased, lease_if_whole
from cotenant_cache.source import HubSource
from cotenant_cache.store import Store, flight_key, volume_errors
from cotenant_cache.supply import Supply

POLL_S = 0.2
_FINAL = ("done", "failed")
_NO_ROOM = (CacheFullError.reason, DiskFullError.reason)


@dataclass(frozen=True, slots=True)
class Ask:
    """What one call wants."""

    source: HubSource
    lease: str = ""
    """Name of the lease to take; empty: none."""
    tell: Callable[[Progress], None] = lambda progress: None
    until: float = math.inf
    """Deadline on the store's monotonic clock, and how many seconds it was when the call began."""
    deadline_s: float = math.inf
    priority: int | None = None
    """Of a preload list; None: somebody needs it now, and whatever is only preloaded may go for it."""

    @property
    def text(self) -> str:
        return self.source.at(self.source.revision)


@dataclass(slots=True)
class Ensuring:
    store: Store
    supply: Supply
    ask: Ask
    _moving: bool = field(default=False, init=False)
    """Whether the flight that is waited for was seen at work; only then is its result about this call's time."""

    def run(self) -> Leased:
        """Raises CacheError."""
        there = self._at_once()
        while there is None:
            with volume_errors(self.store.root):
                flight = Flight.try_enter(self.store.root, flight_key(self.ask.source.repo))
            if flight is None:
                there = self._wait()
                continue
            try:
                there = self._result() or Flying(self.store, self.supply, self.ask, flight).run()
            finally:
                flight.leave()
        return there

    def _at_once(self) -> Leased | None:
        source = self.ask.source
        if not source.pinned:
            return None
        there = lease_if_whole(self.store, source.repo, source.revision, self.ask.lease, self.ask.priority)
        if there is not None:
            self.ask.tell(there.progress(self.ask.text))
        return there

    def _wait(self) -> Leased | None:
        """One look at whoever fetches. Raises TooLateError, or what stopped the one that was waited for."""
        result = self._result()
        if result is not None:
            return result
        said = self._said()
        self._moving = self._moving or (said is not None and said.phase not in _FINAL)
        if said is not None:
            self.ask.tell(said)
        if self.store.clock.monotonic() >= self.ask.until:
            raise TooLateError(
                f"{self.ask.text}: not here after {self.ask.deadline_s:g} s; it waited for another cache instance "
                f"that fetches it ({_described(said)}); ask again, with a longer deadline"
            )
        self.store.clock.sleep(POLL_S * (0.5 + self.store.clock.random()))
        return None

    def _said(self) -> Progress | None:
        """What the holder of the flight says, if that is about this source."""
        said = flight_progress(self.store.root, flight_key(self.ask.source.repo))
        return said if said is not None and said.source == self.ask.text else None

    def _result(self) -> Leased | None:
        """Of a flight that ended while this call waited for it. Raises what it ended with."""
        said = self._said() if self._moving else None
        if said is None or said.phase not in _FINAL:
            return None
        if said.phase == "failed":
            if said.reason in _NO_ROOM and self.ask.priority is None:
                self._moving = False  # perhaps of a preload, which may drive out less than this call
                return None
            raise error_of(said)
        there = lease_if_whole(self.store, self.ask.source.repo, said.commit, self.ask.lease, self.ask.priority)
        if there is not None:
            self.ask.tell(said)
        self._moving = there is not None
        return there


def error_of(said: Progress) -> CacheError:
    """The error of another instance, as it was raised there."""
    kinds = {kind.reason: kind for kind in CacheError.__subclasses__() if "reason" in vars(kind)}
    return kinds.get(said.reason, CacheError)(said.message)


def _described(said: Progress | None) -> str:
    if said is None:
        return "it is busy with another revision"
    return f"{said.phase}, {said.done_bytes} of {said.total_bytes} bytes"
