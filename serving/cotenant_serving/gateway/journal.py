"""A worker's requests in flight, in a file that outlives it: what it would have counted, had it not been killed.

    STATE/journals/WORKER-PID-RANDOM.journal   one per worker process, 0600, locked while that process lives

    header   magic (8 bytes), u32 cells, u32 bytes per cell; doubles: last sign of life (Unix seconds), size of the
             usage file then; u32 where lines begin and end (nothing waits when it ends no later)   64 bytes
    cell     u32 state, u32 sent to an engine, u32 events, u32 prompt tokens; doubles: began (Unix seconds),
             time to the first byte (below 0: none yet); u16 lengths; then the texts               640 bytes
    lines    usage lines of requests that have ended, until they are in the usage file    320 bytes per cell

The file is mapped: a request costs no system call, and what was stored is there after a kill -9. (Not after a power
failure; neither is the usage file, which nobody syncs.) A cell's state is stored last, and taken back first; so is
the end of the lines. The file has its blocks from the start: a mapped hole on a full disk would end the process.
"""

import fcntl
import mmap
import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"ctjourn2"
_HEADER = struct.Struct("8sIIddII")
_HEADER_BYTES = 64
_ALIVE, _USAGE_BYTES = 2, 3
_BEGIN, _END = 8, 9
CELL_BYTES = 640
LINE_BYTES = 320
"""Room for lines, for each cell."""
_TEXT_AT = 40
_CELL = struct.Struct("<IIIddHHH2x")
"""What stands between a cell's state and its texts."""
_NAME_BYTES = 256
_FREE, _RUNNING = 0, 1
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
    _, cells, cell_bytes, alive, usage_bytes, begin, end = _HEADER.unpack_from(data)
    if cell_bytes != CELL_BYTES or len(data) < _size(cells):
        raise JournalError("not a journal of this version")
    running = [at for at in _cells(cells) if struct.unpack_from("I", data, at) == (_RUNNING,)]
    return Contents(
        alive=alive,
        usage_bytes=int(usage_bytes),
        requests=tuple(_in_flight(data, at) for at in running),
        lines=tuple(data[begin:end].splitlines(keepends=True)),
    )


def _in_flight(data: bytes, at: int) -> InFlight:
    sent, events, prompt_tokens, began, first_byte_s, *lengths = _CELL.unpack_from(data, at + 4)
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
        self._cells = cells = _num_cells(len(memory))
        self.nobodys = _HEADER_BYTES + cells * CELL_BYTES
        self._first_line = self.nobodys + CELL_BYTES
        memory[: _HEADER.size] = _HEADER.pack(_MAGIC, cells, CELL_BYTES, 0.0, 0.0, self._first_line, self._first_line)
        self.words = memoryview(memory).cast("I")
        self.doubles = memoryview(memory).cast("d")
        # The cells used last are used next: few pages of the file are ever touched.
        self._free = [*reversed(_cells(cells))]

    @property
    def outlives(self) -> bool:
        """Whether it is there when its process is killed."""
        return self._path is not None

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
        if not self._free:
            return Entry(self, self.nobodys)
        at = self._free.pop()
        one, two, three = request_id.encode(), tenant.encode()[:_NAME_BYTES], model.encode()[:_NAME_BYTES]
        prompt_tokens = min(prompt_tokens, 0xFFFFFFFF)
        cell = _CELL.pack(0, 0, prompt_tokens, now, _NOT_YET, len(one), len(two), len(three)) + one + two + three
        self._memory[at + 4 : at + 4 + len(cell)] = cell
        self.words[at // 4] = _RUNNING
        return Entry(self, at)

    def put(self, line: bytes) -> bool:
        """A usage line that will be written. False when there is no room for it."""
        at = self.words[_END]
        end = at + len(line)
        if end > len(self._memory):
            return False
        self._memory[at:end] = line
        self.words[_END] = end
        return True

    def lines(self) -> bytes:
        """Those that were put and not taken away, in their order."""
        return self._memory[self.words[_BEGIN] : self.words[_END]]

    def first_line_bytes(self) -> int:
        """Of the next one of `lines`; 0 when there is none."""
        begin, end = self.words[_BEGIN], self.words[_END]
        return self._memory.find(b"\n", begin, end) + 1 - begin if begin < end else 0

    def take_away(self, lines_bytes: int) -> None:
        """The first lines: they are in the usage file now, or given up."""
        begin = self.words[_BEGIN] + lines_bytes
        if begin < self.words[_END]:
            self.words[_BEGIN] = begin
        else:  # in this order: between the two stores nothing waits
            self.words[_END] = self._first_line
            self.words[_BEGIN] = self._first_line

    def alive(self, now: float, usage_bytes: int) -> None:
        """A sign of life. `usage_bytes`: size of the usage file."""
        self.doubles[_USAGE_BYTES] = usage_bytes
        self.doubles[_ALIVE] = now

    def contents(self) -> Contents:
        return read(self._memory[:])

    def close(self) -> None:
        """Removes the file, unless somebody must still look at what is in it."""
        if self._path is not None and len(self._free) == self._cells and not self.lines():
            self._path.unlink(missing_ok=True)
        self.words.release()
        self.doubles.release()
        self._memory.close()
        if self._file is not None:
            os.close(self._file)


class Entry:
    """One cell. That of a request which found none free is nobody's, and never read."""

    __slots__ = ("_at", "_journal", "_word", "_words")

    def __init__(self, journal: Journal, at: int) -> None:
        self._journal, self._at, self._word = journal, at, at // 4
        self._words = journal.words

    def sent(self, at_engine: bool) -> None:
        self._words[self._word + 1] = at_engine

    def forwarded(self, events: int) -> None:
        """Events so far."""
        self._words[self._word + 2] = events

    def first_byte(self, seconds: float) -> None:
        self._journal.doubles[self._at // 8 + 3] = seconds

    def end(self) -> None:
        """It needs no recovery any more, and whatever comes later is nobody's."""
        journal, at = self._journal, self._at
        if at != journal.nobodys:
            self._words[self._word] = _FREE
            journal._free.append(at)
            self._at = journal.nobodys
            self._word = self._at // 4


def _cells(count: int) -> range:
    """Their offsets."""
    return range(_HEADER_BYTES, _HEADER_BYTES + count * CELL_BYTES, CELL_BYTES)


def _size(cells: int) -> int:
    """One more cell is nobody's."""
    return _HEADER_BYTES + (cells + 1) * CELL_BYTES + cells * LINE_BYTES


def _num_cells(size: int) -> int:
    return (size - _HEADER_BYTES - CELL_BYTES) // (CELL_BYTES + LINE_BYTES)
