"""How far a flight is, said to its caller and, through the volume, to everyone who waits for it."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from cotenant_cache.contract import FileProgress, ModelFile, Phase, Progress
from cotenant_cache.errors import CacheError
from cotenant_cache.holders import Flight
from cotenant_cache.shelving import Leased
from cotenant_cache.store import Clock

_EVERY_S = 0.2
_BEAT_S = 5.0
"""Who waits for a flight takes it for stalled when it is silent for many times as long."""


class Teller:
    """Threads of one flight share it. Bytes that it tells never go back, though a file may begin again."""

    def __init__(self, source: str, flight: Flight, tell: Callable[[Progress], None], clock: Clock) -> None:
        self._source, self._flight, self._tell, self._clock = source, flight, tell, clock
        self._turn = threading.Lock()
        self._phase: Phase = "resolving"
        self._commit = ""
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._most = 0
        self._fetched = 0
        self._since = self._said_at = self._beat_at = clock.monotonic()

    def phase(self, phase: Phase) -> None:
        with self._turn:
            self._phase = phase
            if phase == "fetching":
                self._since, self._fetched = self._clock.monotonic(), 0
            self._say()

    def model(self, commit: str, files: Iterable[ModelFile]) -> None:
        """What is coming, once it is known."""
        with self._turn:
            self._commit = commit
            self._totals = {file.name: file.size_bytes for file in files}
            self._done = dict.fromkeys(self._totals, 0)

    def here(self, names: Iterable[str]) -> None:
        """Files that are whole and verified."""
        with self._turn:
            self._done |= {name: self._totals[name] for name in names}

    def file(self, name: str, done_bytes: int, *, fetched: bool = False) -> None:
        """`fetched`: whether these bytes count for the rate."""
        with self._turn:
            if fetched:
                self._fetched += max(0, done_bytes - self._done[name])
            self._done[name] = min(done_bytes, self._totals[name])
            if self._clock.monotonic() - self._said_at >= _EVERY_S:
                self._say()

    def alive(self) -> None:
        """Called again and again by what takes long and has no news, such as a wait for a hub."""
        with self._turn:
            now = self._clock.monotonic()
            if now - self._beat_at >= _BEAT_S:
                self._beat_at = now
                with suppress(OSError):
                    self._flight.beat()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """For one call that takes as long as the disk needs, and can call nothing meanwhile."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(_BEAT_S):
                self.alive()

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def done(self, leased: Leased) -> None:
        with self._turn:
            self._publish(leased.progress(self._source))

    def failed(self, error: CacheError) -> None:
        """Nothing is lost when the disk is too full to say it: those that wait then try themselves."""
        said = Progress(
            source=self._source,
            phase="failed",
            commit=self._commit,
            reason=error.reason,
            message=error.message,
            retry_after_s=error.retry_after_s,
        )
        with self._turn, suppress(OSError, CacheError):
            self._publish(said)

    def _say(self) -> None:
        done, total = sum(self._done.values()), sum(self._totals.values())
        self._most = max(self._most, done)
        took_s = self._clock.monotonic() - self._since
        rate = self._fetched / took_s if took_s > 0 and self._phase == "fetching" else 0.0
        said = Progress(
            source=self._source,
            phase=self._phase,
            commit=self._commit,
            done_bytes=self._most,
            total_bytes=total,
            rate_bytes_per_s=rate,
            eta_s=(total - self._most) / rate if rate else None,
            files=tuple(
                FileProgress(name=name, done_bytes=self._done[name], total_bytes=size)
                for name, size in self._totals.items()
            ),
        )
        self._publish(said)

    def _publish(self, said: Progress) -> None:
        self._said_at = self._clock.monotonic()
        with suppress(OSError):
            self._flight.say(said)
        self._tell(said)
