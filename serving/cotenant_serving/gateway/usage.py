"""The usage record: exactly one per admitted request, whatever its end; no prompts, no keys.

STATE/usage.jsonl   one JSON object per line, appended, 0600
"""

import asyncio
import logging
import os
from pathlib import Path

import msgspec

log = logging.getLogger("cotenant.gateway")

FLUSH_S = 0.5
MAX_BUFFERED = 100_000


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
    """ok | refused | rejected | client_closed | upstream_error | timeout | shutdown | internal_error."""
    status: int
    """HTTP status that the client got; 0 when it left before."""
    duration_s: float
    time_to_first_byte_s: float | None


class UsageLog:
    """Buffers lines and appends them at least every FLUSH_S seconds and on `close`."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file cannot be opened for appending."""
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(self._file, 0o600)
        self._lines: list[bytes] = []

    def add(self, record: UsageRecord) -> None:
        self._lines.append(msgspec.json.encode(record) + b"\n")

    def flush(self) -> None:
        """A full disk keeps lines in memory up to a bound; it never stops requests."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        try:
            written = os.write(self._file, data)
        except OSError as problem:
            log.error("usage file %s cannot be written, %d records wait: %s", self._path, len(self._lines), problem)
            del self._lines[:-MAX_BUFFERED]
            return
        self._lines = [data[written:]] if written < len(data) else []

    async def run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self.flush()

    def close(self) -> None:
        self.flush()
        os.close(self._file)
