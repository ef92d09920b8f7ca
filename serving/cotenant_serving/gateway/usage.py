"""The usage record: exactly one per admitted request, whatever its end; no prompts, no keys.

`UsageLog` is a worker's side. A request stands in the worker's journal from its admission until its line is in the
usage file; what a killed worker leaves there the supervisor writes (`recovery`).
"""

import logging
import math
from collections import deque

import msgspec

from cotenant_serving.gateway.board import Count
from cotenant_serving.gateway.journal import Entry, Journal
from cotenant_serving.gateway.usage_file import LOCK_S, UsageFile

log = logging.getLogger("cotenant.gateway")

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
        return msgspec.json.encode(self) + b"\n"


class UsageLog:
    """Writes each record at once. While that fails lines wait in memory, up to a bound; it never stops requests."""

    def __init__(self, file: UsageFile, journal: Journal, *, waiting: Count, dropped: Count) -> None:
        self.journal = journal
        self._file = file
        self._waiting: deque[tuple[bytes, Entry]] = deque()
        self._waiting_count, self._dropped = waiting, dropped
        self._said = -math.inf

    def add(self, record: UsageRecord, entry: Entry) -> None:
        """`entry`: the request in the journal. When this returns, either file or journal tell how it ended."""
        line = record.line()
        if self._waiting or not self._append(line, record.time, LOCK_S):
            self._waiting.append((line, entry.turn_into(line)))
            self._waiting_count.add(1)
            if len(self._waiting) > MAX_WAITING:
                self._next_is_done()
                self._dropped.add(1)
        entry.end()

    def retry(self, now: float) -> None:
        """Writes what waits; `now` (Unix seconds) becomes the journal's sign of life."""
        # It comes again soon, so it waits for no lock: a process that was stopped may hold that.
        while self._waiting and self._append(self._waiting[0][0], now, 0):
            self._next_is_done()
        self.journal.alive(now, self._file.size_bytes())

    def close(self, now: float) -> None:
        """What cannot be written even now stays in the journal, for the next start."""
        self.retry(now)
        self.journal.close()
        self._file.close()

    def _append(self, line: bytes, now: float, wait_s: float) -> bool:
        try:
            self._file.append(line, wait_s)
        except OSError as problem:
            if now - self._said >= SAY_S:
                self._said = now
                waiting = max(1, len(self._waiting))
                log.error("usage file %s cannot be written, records wait (%d): %s", self._file.path, waiting, problem)
            return False
        return True

    def _next_is_done(self) -> None:
        _, kept = self._waiting.popleft()
        kept.end()
        self._waiting_count.add(-1)
