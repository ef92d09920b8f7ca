"""One file from a hub or a peer onto the disk: resumed where it stopped, and checked while it comes.

Nothing but the digest makes a file right. Status, lengths and ranges are looked at only to give up early, so that
what is plainly another file costs no byte of disk.
"""

import random as randomness
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn, Protocol

from huggingface_hub.constants import is_offline_mode

from cotenant_cache.backoff import LeftS, Patience, TryAgainError, nap, no_end
from cotenant_cache.connections import Answer, Waits
from cotenant_cache.contract import BLOCK_BYTES, ModelFile
from cotenant_cache.digests import new_hash
from cotenant_cache.errors import CacheError, CorruptWeightsError, FetchStoppedError, HubUnreachableError
from cotenant_cache.http_answers import body_start
from cotenant_cache.hub_access import endpoint, file_url, offline, refuse_status, request_headers
from cotenant_cache.origins import Origin, ask
from cotenant_cache.pace import Floor, Pace
from cotenant_cache.rests import Rests
from cotenant_cache.source import HubSource

PATIENCE = Patience()
_READ_BYTES = 2**20
_FAIR_BYTES = 2**20
"""An attempt that brought this much was no failure in a row: a large file may need thousands of connections."""
_KEEP_S = 1.0
"""The longest that bytes of a slow connection wait in memory before they are written and reported."""


class Partial(Protocol):
    """The bytes of a file so far, which `disk.Volume.open_partial` gives."""

    @property
    def size(self) -> int: ...
    def write(self, data: memoryview) -> None: ...
    def restart(self) -> None: ...
    def read_blocks(self, size: int) -> Iterator[memoryview]: ...


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Every wait of a fetch has an end; together they bound how long one without progress can last."""

    patience: Patience = PATIENCE
    stall_s: float = 30.0
    """Without a byte, until the connection is given up."""
    connect_s: float = 10.0
    answer_s: float = 60.0
    """For the whole of an answer's headers."""
    slow_bytes_per_s: int = 1024
    slow_s: float = 60.0
    """A connection that brings less than `slow_bytes_per_s` on average over this long is given up, too."""
    fair_bytes: int = _FAIR_BYTES
    """An attempt that brought so much was no failure in a row."""
    bytes_per_s: int = 0
    """The most that this fetch takes; 0: no limit."""


LIMITS = FetchLimits()


def fetch_file(
    source: HubSource,
    file: ModelFile,
    partial: Partial,
    *,
    limits: FetchLimits = LIMITS,
    report: Callable[[int], None] = lambda done_bytes: None,
    room: Callable[[int], None] = lambda block_bytes: None,
    stop: Callable[[], bool] = lambda: False,
    left_s: LeftS = no_end,
    sleep: Callable[[float], None] = time.sleep,
    random: Callable[[], float] = randomness.random,
    clock: Callable[[], float] = time.monotonic,
    pace: Pace | None = None,
    rests: Rests | None = None,
) -> None:
    """Completes `partial` with a file of the commit that `source` names; returns when its digest is right.

    `report(done_bytes)`: bytes of this file on disk, after each write; less again when it had to begin anew.
    `room(block_bytes)` is asked before each block of at most BLOCK_BYTES, and may raise. `stop` is asked twice a
    second at least; `left_s` bounds what cannot look at it. `pace` is shared by fetches that have one limit together,
    `rests` by all that ask the same hubs.

    What came stays in `partial` whatever is raised, except when its digest is wrong for the second time: then it is
    empty. Raises CorruptWeightsError, HubUnreachableError (`transient`), ModelNotFoundError,
    FileMissingError, FetchStoppedError, and what `room` and `partial` raise.
    """
    if not source.pinned:
        raise ValueError(f"{source.repo}: a file is fetched at a commit, not at {source.revision!r}")
    if is_offline_mode():
        raise offline(source)
    url = file_url(source, file.name)
    headers, secret = request_headers(source)

    def refuse(status: int, answered: Mapping[str, str]) -> NoReturn:
        refuse_status(source, file.name, status, answered)

    origin = Origin(url, endpoint(source), headers, secret, refuse=refuse, rests=rests)
    shown = f"{source.at(source.revision)}: {file.name}"
    Fetch(origin, file, partial, shown, limits, report, room, stop, sleep, random, clock, pace, left_s).run()


class Fetch:
    """What `fetch_file` does, from any origin; `shown` names the file in messages."""

    def __init__(
        self,
        origin: Origin,
        file: ModelFile,
        partial: Partial,
        shown: str,
        limits: FetchLimits,
        report: Callable[[int], None] = lambda done_bytes: None,
        room: Callable[[int], None] = lambda block_bytes: None,
        stop: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = randomness.random,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace | None = None,
        left_s: LeftS = no_end,
    ) -> None:
        self._origin, self._file, self._partial, self._shown, self._limits = origin, file, partial, shown, limits
        self._report, self._room, self._stop = report, room, stop
        self._sleep, self._random, self._clock = sleep, random, clock
        self._waits = Waits(limits.connect_s, limits.answer_s, limits.stall_s, stop, clock, left_s)
        self._buffer = memoryview(bytearray(min(_READ_BYTES, max(1, file.size_bytes))))
        self._hash = new_hash(file.digest, file.size_bytes)
        self._block_left = 0
        self._pace = pace or Pace(limits.bytes_per_s, clock)

    def run(self) -> None:
        wrong_before = False
        while True:
            resumed = self._resume()
            self._complete()
            if self._hash.hexdigest() == self._file.digest:
                return
            self._restart()
            if wrong_before:
                raise CorruptWeightsError(
                    f"{self._shown}: what {self._origin.name} sends is not what it lists (digest "
                    f"{self._file.digest[:12]}…), twice; nothing of it is kept: ask the owner of the model"
                )
            # Bytes that lay here before may have been wrong by no fault of who is asked now.
            wrong_before = resumed == 0

    def _resume(self) -> int:
        """Hashes what is there, instead of fetching it again."""
        if self._partial.size > self._file.size_bytes:
            self._restart()
        self._hash, size = new_hash(self._file.digest, self._file.size_bytes), self._partial.size
        for block in self._partial.read_blocks(_READ_BYTES):
            self._hash.update(block)
            self._look_up()
        self._report(size)
        return size

    def _restart(self) -> None:
        self._partial.restart()
        self._block_left = 0
        self._report(0)

    def _complete(self) -> None:
        failures, size = 0, self._file.size_bytes
        while (before := self._partial.size) < size:
            self._look_up()
            try:
                self._attempt(before)
            except TryAgainError as error:
                failures = 1 if self._partial.size - before >= self._limits.fair_bytes else failures + 1
                self._wait(failures, error)

    def _wait(self, failures: int, error: TryAgainError) -> None:
        """Raises HubUnreachableError or CorruptWeightsError when it was the last attempt."""
        patience = self._limits.patience
        if failures >= patience.attempts or (error.after_s or 0.0) > patience.longest_asked_s:
            raise self._gave_up(failures, error)
        if not nap(patience.wait_s(failures, error.after_s, self._random()), self._sleep, self._stop):
            self._look_up()

    def _gave_up(self, failures: int, error: TryAgainError) -> CacheError:
        said = self._origin.without_secrets(error.reason)
        where = f"{self._shown}: {self._origin.name} did not give it in {failures} attempts in a row ({said})"
        if error.wrong:
            return CorruptWeightsError(f"{where}; ask the owner of the model, or check HF_ENDPOINT")
        later = f"; it asks to be left alone for {error.after_s:.10g} s" if error.after_s else ""
        kept = f"{self._partial.size} of {self._file.size_bytes} bytes are kept"
        return HubUnreachableError(
            f"{where}{later}; {kept}: check the network and HF_ENDPOINT", transient=True, retry_after_s=error.after_s
        )

    def _attempt(self, offset: int) -> None:
        """One connection. Raises TryAgainError unless it brought something and ended in order."""
        floor = Floor(self._limits.slow_bytes_per_s, self._limits.slow_s)
        with self._ask(offset) as answer:
            start = body_start(answer.status, answer.headers, offset=offset, size=self._file.size_bytes)
            self._skip(answer, offset - start, floor)
            while self._partial.size < self._file.size_bytes and self._take(answer, floor):
                pass
        if self._partial.size < self._file.size_bytes:
            raise TryAgainError(f"the connection ended after {self._partial.size} of {self._file.size_bytes} bytes")

    def _ask(self, offset: int) -> Answer:
        try:
            return ask(self._origin, offset, self._waits)
        except HubUnreachableError as error:  # of a connection, which knows no files
            raise HubUnreachableError(f"{self._shown}: {error.message}") from None

    def _skip(self, answer: Answer, count: int, floor: Floor) -> None:
        """Reads over what is on disk already, of a whole file that came instead of a part."""
        while count > 0:
            got, waited_s = self._read(answer, self._buffer[: min(count, len(self._buffer))])
            if not got:
                raise TryAgainError("the whole file came instead of a part, and ended before what is missing")
            count -= got
            floor.came(got, waited_s)
            self._look_up()

    def _take(self, answer: Answer, floor: Floor) -> bool:
        """A buffer of the body onto the disk, also when its connection breaks; False at the end of the body."""
        left = self._file.size_bytes - self._partial.size
        if not self._block_left:
            self._room(min(BLOCK_BYTES, left))
            self._block_left = min(BLOCK_BYTES, left)
        view = self._buffer[: min(len(self._buffer), self._block_left)]
        filled, until, got = 0, self._clock() + _KEEP_S, 1
        try:
            while got and filled < len(view) and self._clock() < until:
                got, waited_s = self._read(answer, view[filled:])
                filled += got
                floor.came(got, waited_s)
        finally:
            if filled:
                self._keep(view[:filled])
        self._look_up()
        return got > 0

    def _read(self, answer: Answer, view: memoryview) -> tuple[int, float]:
        """Bytes, and the seconds that they took to come."""
        before = self._clock()
        got = answer.readinto(view)
        return got, self._clock() - before

    def _keep(self, data: memoryview) -> None:
        self._partial.write(data)
        self._hash.update(data)
        self._block_left -= len(data)
        self._report(self._partial.size)
        if not nap(self._pace.spend(len(data)), self._sleep, self._stop):
            self._look_up()

    def _look_up(self) -> None:
        if self._stop():
            raise FetchStoppedError(f"{self._shown}: stopped while it was fetched; what came is kept")
