"""The usage record: exactly one per admitted request, whatever its end; no prompts, no keys.

`UsageLog` is a worker's side. A request stands in the worker's journal from its admission, and its line does from its
end until it is in the usage file, where lines go several at a time. What a killed worker leaves in its journal the
supervisor writes (`recovery`).
"""

import logging
import math
from collections import deque
from collections.abc import Callable

import msgspec

from cotenant_serving.gateway.board import Count
from cotenant_serving.gateway.journal import Entry, Journal
from cotenant_serving.gateway.usage_file import LOCK_S, UsageFile

log = logging.getLogger("cotenant.gateway")

WRITE_S = 0.02
"""How long a line may wait for others, so that they are written together."""
RETRY_S = 0.5
"""Period of attempts to write records that a full disk keeps waiting, and of the journal's sign of life."""
MAX_WAITING = 100_000
SAY_S = 60.0
"""Period of log lines that say that records wait."""


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `estimated`: the engine could not tell; tokens are counted from bytes and events."""

    time: float
    """Unix seconds at its end."""
    tenant: str
    model: str
    request_id: str
    prompt_tokens: int
    completion_tokens: int
    estimated: bool
    outcome: str
    """ok | refused | rejected | client_closed | upstream_error | timeout | shutdown | internal_error, or gateway_lost
    where the gateway was killed over it (`recovery`)."""
    status: int
    """HTTP status that the client got; 0 when it left before."""
    duration_s: float
    time_to_first_byte_s: float | None

    def line(self) -> bytes:
        return _encoded(self) + b"\n"


_encoded = msgspec.json.Encoder().encode


def at_once(work: Callable[[], None]) -> None:
    work()


class UsageLog:
    """Lines wait in the journal, and beyond its room in memory, until they are written. It never stops requests."""

    def __init__(
        self,
        file: UsageFile,
        journal: Journal,
        *,
        waiting: Count,
        dropped: Count,
        later: Callable[[Callable[[], None]], object] = at_once,
    ) -> None:
        """`later` does its work after WRITE_S. `waiting`: records that could not be written; `dropped`: given up."""
        self.journal = journal
        self._file = file
        self._later = later
        self._lines = 0
        """That are not in the file yet."""
        self._beyond: deque[bytes] = deque()
        """Those of them that the journal has no room for."""
        self._due = False
        """They are written soon, without anybody's doing."""
        self._failing = False
        """The file could not be written; only `retry` tries again."""
        self._newest = 0.0
        self._waiting, self._dropped = waiting, dropped
        self._said = -math.inf

    def add(self, record: UsageRecord, entry: Entry) -> None:
        """`entry`: the request in the journal. When this returns, either file or journal tell how it ended."""
        line = record.line()
        if self._beyond or not self.journal.put(line):
            self._beyond.append(line)
        entry.end()
        self._lines += 1
        self._newest = record.time
        if self._failing:
            self._waiting.add(1)
            if self._lines > MAX_WAITING:
                self._done(self.journal.first_line_bytes(), 1)
                self._dropped.add(1)
        elif not self._due:
            self._due = True
            (self._later if self.journal.outlives else at_once)(self._write_due)
        elif self._beyond:
            self._write(record.time, LOCK_S)

    def retry(self, now: float) -> None:
        """Writes what waits; `now` (Unix seconds) becomes the journal's sign of life."""
        # It comes again soon, so it waits for no lock: a process that was stopped may hold that.
        self._write(now, 0 if self._failing else LOCK_S)
        self.journal.alive(now, self._file.size_bytes())

    def renew(self, create: Callable[[], Journal]) -> None:
        """A journal that outlives this process, where the disk had no room for one; what runs stays in the old one.

        Only when no line waits: there is no room then either.
        """
        if self.journal.outlives or self._lines:
            return
        try:
            self.journal = create()
        except OSError:
            return
        log.info("requests in flight are recovered again if this worker is killed")

    def close(self, now: float) -> None:
        """What cannot be written even now stays in the journal, for the next start."""
        self.retry(now)
        if self._beyond:  # the journal has no room for these
            log.error("%d usage records are given up: neither file nor journal takes them", len(self._beyond))
            self._dropped.add(len(self._beyond))
        self._lines = 0
        self._beyond.clear()
        self.journal.close()
        self._file.close()

    def _write_due(self) -> None:
        self._due = False
        if not self._failing:
            self._write(self._newest, LOCK_S)

    def _write(self, now: float, wait_s: float) -> None:
        try:
            while self._lines:
                lines = self.journal.lines()
                written_bytes = self._file.append(lines or self._beyond[0], wait_s)
                if lines:
                    self._done(written_bytes, lines.count(b"\n", 0, written_bytes))
                else:
                    self._done(0, 1)
        except OSError as problem:
            self._failing = True
            self._waiting.set(self._lines)
            self._say(now, problem)
        else:
            if self._failing:
                self._failing = False
                self._waiting.set(0)

    def _done(self, journal_bytes: int, count: int) -> None:
        """The next lines are written, or given up: so many bytes of the journal's, or the first of those beyond."""
        if journal_bytes:
            self.journal.take_away(journal_bytes)
        else:
            self._beyond.popleft()
        self._lines -= count
        while self._beyond and self.journal.put(self._beyond[0]):
            self._beyond.popleft()

    def _say(self, now: float, problem: OSError) -> None:
        if now - self._said >= SAY_S:
            self._said = now
            log.error("usage file %s cannot be written, records wait (%d): %s", self._file.path, self._lines, problem)
