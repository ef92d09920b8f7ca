"""Brings the lines of the usage file to the operator, each exactly once, without touching the request path.

    STATE/usage-sent.json     how far it has come, and the batch that is on its way
    STATE/usage.sending.jsonl a usage file that has grown long; deleted when all of it is sent

A batch is on disk before it is sent and sent again, unchanged, until it is acknowledged: also by the next process.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from cotenant_serving.contract_usage import UsageBatch
from cotenant_serving.gateway.options import USAGE_CURSOR, USAGE_SENDING
from cotenant_serving.gateway.private_file import replace_private
from cotenant_serving.gateway.usage_file import UsageFile
from cotenant_serving.gateway.usage_sums import Seen, totals_of

log = logging.getLogger("cotenant.gateway")

BATCH_BYTES = 4 << 20
"""Of lines, at most, for one batch: some ten thousand requests."""
LONG_BYTES = 32 << 20
"""A usage file that is longer, and sent, is begun anew."""


class Cursor(msgspec.Struct, kw_only=True):
    boot: str
    sequence: int = 0
    """Of the last batch that was acknowledged."""
    inode: int = 0
    offset: int = 0
    """Bytes of that file which are in acknowledged batches."""
    pending: UsageBatch | None = None
    pending_bytes: int = 0
    """Lines of so many bytes, from `offset` on, are in `pending`."""


class UsageSender:
    """For one thread."""

    def __init__(self, state: Path, usage: UsageFile, gateway: str, *, long_bytes: int = LONG_BYTES) -> None:
        """`usage`: the file of the gateway, opened for this one alone."""
        self._usage, self._gateway, self._long_bytes = usage, gateway, long_bytes
        self._file = state / USAGE_CURSOR
        self._aside = state / USAGE_SENDING
        self._seen = Seen()
        self._saved = True
        """The pending batch is on disk."""
        self._cursor = self._load()

    def step(self, send: Callable[[UsageBatch], None]) -> bool:
        """Sends one batch. False when there is nothing to send. Raises what `send` does, and OSError of the disk:
        then the next call tries again.
        """
        cursor = self._cursor
        if cursor.pending is None and not self._next():
            return False
        if cursor.pending is not None:
            if not self._saved:
                self._save()
            send(cursor.pending)
            cursor.sequence = cursor.pending.sequence
        cursor.offset += cursor.pending_bytes
        cursor.pending, cursor.pending_bytes = None, 0
        return True

    def waiting_bytes(self) -> int:
        """Of lines that are not acknowledged."""
        sizes = [self._size(path) for path in (self._aside, self._usage.path)]
        return max(0, sum(sizes) - self._cursor.offset)

    def _next(self) -> bool:
        """Makes the next batch. False when there is no new line. Raises OSError."""
        cursor = self._cursor
        while True:
            path = self._aside if self._aside.exists() else self._usage.path
            lines = self._lines(path)
            if lines:
                break
            if path == self._usage.path:
                if cursor.offset > self._long_bytes:
                    self._usage.set_aside(self._aside)
                    continue
                return False
            path.unlink()  # all of it is acknowledged
            cursor.inode = cursor.offset = 0  # the next file may get the same inode
            self._save()
        totals, damaged = totals_of(lines.splitlines(keepends=True), self._seen)
        if damaged:
            log.error("%d lines of %s are damaged and in no sum", damaged, path)
        cursor.pending_bytes = len(lines)
        if totals:
            cursor.pending = UsageBatch(
                gateway=self._gateway, boot=cursor.boot, sequence=cursor.sequence + 1, totals=totals
            )
            self._saved = False
        return True

    def _lines(self, path: Path) -> bytes:
        """Whole lines that are in no batch yet; moves the cursor to a file that it has not seen."""
        try:
            with path.open("rb") as file:
                return self._after_cursor(file)
        except FileNotFoundError:
            return b""

    def _after_cursor(self, file: BinaryIO) -> bytes:
        found, cursor = os.fstat(file.fileno()), self._cursor
        if found.st_ino != cursor.inode or found.st_size < cursor.offset:
            cursor.inode, cursor.offset = found.st_ino, 0
        file.seek(cursor.offset)
        data = file.read(BATCH_BYTES)
        return data[: data.rfind(b"\n") + 1]

    def _load(self) -> Cursor:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Cursor)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as problem:
            # A new boot counts all lines again that are still here: too much rather than nothing, and said.
            log.error("%s is not used, all lines that are here are sent once more: %s", self._file, problem)
        return Cursor(boot=f"{int(time.time()):x}-{secrets.token_hex(4)}")

    def _save(self) -> None:
        replace_private(self._file, msgspec.json.encode(self._cursor))
        self._saved = True

    @staticmethod
    def _size(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0
