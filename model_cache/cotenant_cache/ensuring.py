"""`ensure`, for one caller: use what is here, wait for the instance that fetches it, or be that instance.

All instances of a volume are equals. Whoever holds a repository's flight fetches; the others look at its progress a
few times a second, and when the flight comes free without a result (its holder died, or gave up) one takes over.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from cotenant_cache.contract import Progress
from cotenant_cache.errors import (
    CacheError,
    CacheFullError,
    DiskFullError,
    FetchStoppedError,
    HubUnreachableError,
    StalledError,
    TooLateError,
)
from cotenant_cache.flying import Flying
from cotenant_cache.giving_way import Sign, Word
from cotenant_cache.holders import Flight, Heard, flight_heard, flight_path, flight_progress
from cotenant_cache.shelving import Leased, lease_if_whole
from cotenant_cache.source import HubSource
from cotenant_cache.store import Store, flight_key, volume_errors
from cotenant_cache.supply import Supply

POLL_S = 0.2
_FINAL = ("done", "failed")
STALLED_S = 300.0
"""Of silence, until whoever fetches is taken for one that hangs; a healthy one is heard every few seconds."""
_LOOKED_S = 1.0
"""The most that one look adds to a silence: a process that was stopped as well has heard nothing."""
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
    stop: Callable[[], bool] = lambda: False
    """Whether the caller wants it no more; looked at twice a second at least. Others who want it go on."""
    stalled_s: float = STALLED_S

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
    _heard: Heard | None = field(default=None, init=False)
    _looked_at: float = field(default=0.0, init=False)
    _silent_s: float = field(default=0.0, init=False)
    _sign: Sign | None = field(default=None, init=False)
    """What a preload that fetches is told by this call, while it waits for that."""

    def run(self) -> Leased:
        """Raises CacheError."""
        try:
            return self._had()
        finally:
            self._lower()

    def _had(self) -> Leased:
        there = self._at_once()
        while there is None:
            with volume_errors(self.store.root):
                flight = Flight.try_enter(self.store.root, flight_key(self.ask.source.repo))
            if flight is None:
                there = self._wait()
                continue
            try:
                self._lower()
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
        """One look at whoever fetches. Raises TooLateError, StalledError, or what stopped the one that fetched."""
        result = self._result()
        if result is not None:
            return result
        said = self._said()
        self._moving = self._moving or _goes_on(said)
        if said is not None:
            self.ask.tell(said)
        self._show(said)
        if self.ask.stop():
            raise FetchStoppedError(f"{self.ask.text}: stopped while it waited for another cache instance")
        if self.store.clock.monotonic() >= self.ask.until:
            raise TooLateError(
                f"{self.ask.text}: not here after {self.ask.deadline_s:g} s; it waited for another cache instance "
                f"that fetches it ({_described(said)}); ask again, with a longer deadline"
            )
        self._listen(said)
        self.store.clock.sleep(POLL_S * (0.5 + self.store.clock.random()))
        return None

    def _show(self, said: Progress | None) -> None:
        """To a preload that fetches: go on, this is needed now; or give way, another commit of the repository is."""
        if self.ask.priority is not None:
            return
        key = flight_key(self.ask.source.repo)
        other = flight_progress(self.store.root, key) if said is None else None
        word: Word | None = "needed" if said is not None else "wanted" if _goes_on(other) else None
        if self._sign is not None and self._sign.word != word:
            self._lower()
        if word is not None:
            self._sign = self._sign or Sign(self.store.root, key, word)
            self._sign.show()

    def _lower(self) -> None:
        if self._sign is not None:
            self._sign.lower()
            self._sign = None

    def _listen(self, said: Progress | None) -> None:
        """Raises StalledError when whoever fetches has not been heard for so long that it must hang."""
        root, key = self.store.root, flight_key(self.ask.source.repo)
        with volume_errors(root):
            heard = flight_heard(root, key)
        now = self.store.clock.monotonic()
        if heard != self._heard:
            self._heard, self._silent_s = heard, 0.0
        else:
            self._silent_s += min(now - self._looked_at, _LOOKED_S)
        self._looked_at = now
        if self._silent_s >= self.ask.stalled_s:
            raise StalledError(
                f"{self.ask.text}: another cache instance fetches it ({heard.who or 'its process is not known'}; "
                f"{_described(said)}) and was not heard for {self.ask.stalled_s:g} s: it is stopped or hangs. End it "
                f"(`fuser -v {flight_path(root, key)}` shows it), then ask again: somebody else goes on where it was"
            )

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
        there = lease_if_whole(
            self.store, self.ask.source.repo, said.commit, self.ask.lease, self.ask.priority, found_ok=True
        )
        if there is not None:
            self.ask.tell(said)
        self._moving = there is not None
        return there


def error_of(said: Progress) -> CacheError:
    """The error of another instance, as it was raised there."""
    kinds = {kind.reason: kind for kind in CacheError.__subclasses__() if "reason" in vars(kind)}
    error = kinds.get(said.reason, CacheError)(said.message)
    if isinstance(error, HubUnreachableError) and said.retry_after_s is not None:
        error.transient, error.retry_after_s = True, said.retry_after_s
    return error


def _goes_on(said: Progress | None) -> bool:
    return said is not None and said.phase not in _FINAL


def _described(said: Progress | None) -> str:
    if said is None:
        return "it is busy with another revision"
    return f"{said.phase}, {said.done_bytes} of {said.total_bytes} bytes"
