"""A worker's requests in flight, in a file that outlives it: what it would have counted, had it not been killed.

    STATE/journals/WORKER-PID-RANDOM.journal   one per worker process, 0600, locked while that process lives

    header   magic (8 bytes), u32 cells, u32 bytes per cell; doubles: last sign of life (Unix seconds), size of the
             usage file then                                                                       64 bytes
    cell     u32 state, u32 sent to an engine, u32 events, u32 prompt tokens; doubles: began (Unix seconds),
             time to the first byte (below 0: none yet); u16 lengths; then the texts               640 bytes

The file is mapped: a request costs no system call, and what was stored is there after a kill -9. (Not after a power
failure; neither is the usage file, which nobody syncs.) A cell's state is stored last, and taken back first. The file
has its blocks from the start, because a mapped hole on a full disk would end the process.
"""

import fcntl
import mmap
import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"ctjourn1"
_HEADER = struct.Struct("8sIIdd")
_HEADER_BYTES = 64
_ALIVE, _USAGE_BYTES = 2, 3
CELL_BYTES = 640
_TEXT_AT = 40
_TEXT_BYTES = CELL_BYTES - _TEXT_AT
_CELL = struct.Struct("IIIIddHHH2x")
_NAME_BYTES = 256
_FREE, _RUNNING, _ENDED = 0, 1, 2
_NOT_YET = -1.0
SUFFIX = ".journal"


class JournalError(Exception):
    """The file is no journal."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A request that had not ended."""

    request_id: str
    tenant: str
    model: str
    began: float
    """Unix seconds."""
    sent: bool
    """An engine had it."""
    prompt_tokens: int
    """Estimate."""
    events: int
    """Forwarded so far."""
    first_byte_s: float | None


@dataclass(frozen=True, slots=True)
class Contents:
    """A journal as its process left it."""

    alive: float
    """Unix seconds of the last sign of life."""
    usage_bytes: int
    """Size of the usage file at that time: what the process wrote after it stands behind."""
    requests: tuple[InFlight, ...]
    lines: tuple[bytes, ...]
    """Usage lines of requests that had ended, which may not be in the usage file yet."""


def read(data: bytes) -> Contents:
    """Raises JournalError."""
    if len(data) < _HEADER_BYTES or data[:8] != _MAGIC:
        raise JournalError("not a journal of this version")
    _, cells, cell_bytes, alive, usage_bytes = _HEADER.unpack_from(data)
    if cell_bytes != CELL_BYTES or len(data) < _HEADER_BYTES + cells * CELL_BYTES:
        raise JournalError("not a journal of this version")
    requests, lines = [], []
    for at in range(_HEADER_BYTES, _HEADER_BYTES + cells * CELL_BYTES, CELL_BYTES):
        (state,) = struct.unpack_from("I", data, at)
        if state == _RUNNING:
            requests.append(_in_flight(data, at))
        elif state == _ENDED:
            length = _CELL.unpack_from(data, at)[6]
            lines.append(data[at + _TEXT_AT : at + _TEXT_AT + length])
    return Contents(alive, int(usage_bytes), tuple(requests), tuple(lines))


def _in_flight(data: bytes, at: int) -> InFlight:
    _, sent, events, prompt_tokens, began, first_byte_s, *lengths = _CELL.unpack_from(data, at)
    texts, at = [], at + _TEXT_AT
    for length in lengths:
        texts.append(data[at : at + length].decode(errors="replace"))
        at += length
    request_id, tenant, model = texts
    return InFlight(
        request_id=request_id,
        tenant=tenant,
        model=model,
        began=began,
        sent=bool(sent),
        prompt_tokens=prompt_tokens,
        events=events,
        first_byte_s=None if first_byte_s < 0 else first_byte_s,
    )


class Journal:
    """The worker's side. One thread."""

    def __init__(self, memory: mmap.mmap, file: int | None = None, path: Path | None = None) -> None:
        self._memory, self._file, self._path = memory, file, path
        cells = (len(memory) - _HEADER_BYTES) // CELL_BYTES
        memory[: _HEADER.size] = _HEADER.pack(_MAGIC, cells, CELL_BYTES, 0.0, 0.0)
        self.words = memoryview(memory).cast("I")
        self.doubles = memoryview(memory).cast("d")
        # The cells used last are used next: few pages of the file are ever touched.
        self._free = [_HEADER_BYTES + cell * CELL_BYTES for cell in reversed(range(cells))]
        self._cells = cells

    @classmethod
    def create(cls, folder: Path, worker: int, cells: int) -> "Journal":
        """Raises OSError, also when the disk has no room for it."""
        unique = f"{worker}-{os.getpid()}-{secrets.token_hex(4)}"
        new, path = folder / f"{unique}.new", folder / f"{unique}{SUFFIX}"
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, _size(cells))
            fcntl.flock(file, fcntl.LOCK_EX)
            journal = cls(mmap.mmap(file, _size(cells)), file, path)
            new.rename(path)  # only now: an unlocked journal is that of a dead process
        except OSError:
            os.close(file)
            new.unlink(missing_ok=True)
            raise
        return journal

    @classmethod
    def in_memory(cls, cells: int) -> "Journal":
        """Gone with its process."""
        return cls(mmap.mmap(-1, _size(cells)))

    def begin(self, request_id: str, tenant: str, model: str, *, prompt_tokens: int, now: float) -> "Entry":
        """`now`: Unix seconds. A request that finds no free cell is not recovered."""
        texts = [request_id.encode(), tenant.encode()[:_NAME_BYTES], model.encode()[:_NAME_BYTES]]
        lengths = [len(text) for text in texts]
        fields = (_RUNNING, 0, 0, min(prompt_tokens, 0xFFFFFFFF), now, _NOT_YET, *lengths)
        return Entry(self, self._fill(_CELL.pack(*fields), b"".join(texts)))

    def keep(self, line: bytes) -> "Entry":
        """A usage line that cannot be written now."""
        if len(line) > _TEXT_BYTES:
            return Entry(self, 0)
        return Entry(self, self._fill(_CELL.pack(_ENDED, 0, 0, 0, 0.0, _NOT_YET, len(line), 0, 0), line))

    def alive(self, now: float, usage_bytes: int) -> None:
        """A sign of life. `usage_bytes`: size of the usage file."""
        self.doubles[_USAGE_BYTES] = usage_bytes
        self.doubles[_ALIVE] = now

    def contents(self) -> Contents:
        return read(self._memory[:])

    def free(self, at: int) -> None:
        self.words[at // 4] = _FREE
        self._free.append(at)

    def close(self) -> None:
        """Removes the file, unless somebody must still look at what is in it."""
        if self._path is not None and len(self._free) == self._cells:
            self._path.unlink(missing_ok=True)
        self.words.release()
        self.doubles.release()
        self._memory.close()
        if self._file is not None:
            os.close(self._file)

    def _fill(self, fixed: bytes, text: bytes) -> int:
        """Offset of the cell; 0 when there is none."""
        if not self._free:
            return 0
        at = self._free.pop()
        self._memory[at + 4 : at + _TEXT_AT] = fixed[4:]
        self._memory[at + _TEXT_AT : at + _TEXT_AT + len(text)] = text
        self.words[at // 4] = int.from_bytes(fixed[:4], "little")
        return at


class Entry:
    """One cell. Without one (`at` 0) nothing happens."""

    __slots__ = ("_at", "_journal")

    def __init__(self, journal: Journal, at: int) -> None:
        self._journal, self._at = journal, at

    def sent(self, at_engine: bool) -> None:
        if self._at:
            self._journal.words[self._at // 4 + 1] = at_engine

    def forwarded(self, events: int) -> None:
        """Events so far."""
        if self._at:
            self._journal.words[self._at // 4 + 2] = events

    def first_byte(self, seconds: float) -> None:
        if self._at:
            self._journal.doubles[self._at // 8 + 3] = seconds

    def turn_into(self, line: bytes) -> "Entry":
        """This request has ended; its usage line cannot be written now."""
        kept = self._journal.keep(line)
        self.end()
        # In a full journal only the cell that is free now is left. A kill just here loses the record.
        return kept if kept else self._journal.keep(line)

    def __bool__(self) -> bool:
        """Whether it has a cell."""
        return bool(self._at)

    def end(self) -> None:
        """It needs no recovery any more."""
        if self._at:
            self._journal.free(self._at)
            self._at = 0


def _size(cells: int) -> int:
    return _HEADER_BYTES + cells * CELL_BYTES
