"""safetensors files, open for reading in blocks: past the page cache where nothing is in it, else from it.

Reading past it (O_DIRECT) saves the kernel a page for each page and a copy of each byte. Files must not change while
they are read: what became shorter, longer or newer raises CorruptWeightsError.
"""

import errno
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cotenant_cache.contract import BLOCK_BYTES
from cotenant_cache.errors import CorruptWeightsError, FileMissingError
from cotenant_cache.headers import PREFIX_BYTES, TensorSpan, header_length, tensor_spans

ALIGN_BYTES = 4096
"""Of offset, length and memory of a direct read: what every common disk and file system takes."""
PROBES = 16
"""Pages of a file that are looked for in the page cache; all there: the file is."""


class WeightFile:
    """One open file with its checked header. Raises FileMissingError, CorruptWeightsError."""

    def __init__(self, path: Path, *, direct: bool) -> None:
        """`direct`: read past the page cache, when the file is not in it and the file system can."""
        self.path = path
        self.direct: int | None = None
        with self.readable():
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self.readable():
                self._stat = os.fstat(self.descriptor)
                self.size_bytes = self._stat.st_size
                self.spans = self._read_spans()
                self.cached = self._in_page_cache()
                if direct and not self.cached:
                    self.direct = _open_direct(path, self._stat)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for descriptor in (self.descriptor, self.direct):
            if descriptor is not None:
                os.close(descriptor)

    def read(self, begin: int, end: int, into: memoryview) -> None:
        """Bytes `begin` to `end`. A direct read needs `begin` and `into` aligned, and room up to an aligned end."""
        done = begin
        with self.readable():
            while done < end:
                direct = self.direct if done % ALIGN_BYTES == 0 else None
                last = aligned(end) if direct is not None else end
                count = self._read_some(direct, done, into[done - begin : last - begin])
                if count == 0:
                    raise self._changed(f"ends at byte {done}, it had {self.size_bytes} bytes")
                done += count

    def check_unchanged(self) -> None:
        """Since it was opened. Raises CorruptWeightsError."""
        with self.readable():
            now = os.fstat(self.descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._stat.st_size, self._stat.st_mtime_ns):
            raise self._changed(f"was written to: it had {self._stat.st_size} bytes, it has {now.st_size}")

    @contextmanager
    def readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.EFAULT:  # of a mapping that goes beyond the end of its file
                raise self._changed("is shorter than when it was opened, or its disk reports an error") from None
            raise FileMissingError(
                f"{self.path} cannot be read: {error.strerror or error}; check the path, its permissions and the disk"
            ) from None

    def _read_some(self, direct: int | None, offset: int, into: memoryview) -> int:
        try:
            return os.preadv(self.descriptor if direct is None else direct, [into], offset)
        except OSError as error:
            if direct is None or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            return os.preadv(self.descriptor, [into], offset)  # wants another alignment than ours

    def _read_spans(self) -> tuple[TensorSpan, ...]:
        """Only the header, and no more read ahead of it. What follows it is read in order."""
        name = str(self.path)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        length = header_length(os.pread(self.descriptor, PREFIX_BYTES, 0), file=name, file_bytes=self.size_bytes)
        header = os.pread(self.descriptor, length, PREFIX_BYTES)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return tensor_spans(header, file=name, file_bytes=self.size_bytes)

    def _in_page_cache(self) -> bool:
        """At places that differ each time: what is looked for and not there is there the next time."""
        probe = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(probe, 0, 0, os.POSIX_FADV_RANDOM)  # of this descriptor: a miss reads one page only
            page = bytearray(ALIGN_BYTES)
            pages = -(-self.size_bytes // ALIGN_BYTES)
            return all(
                os.preadv(probe, [page], random.randrange(pages) * ALIGN_BYTES, os.RWF_NOWAIT) > 0  # noqa: S311
                for _ in range(PROBES)
            )
        except OSError:  # EAGAIN: not there; EOPNOTSUPP: nobody can tell
            return False
        finally:
            os.close(probe)

    def _changed(self, what: str) -> CorruptWeightsError:
        return CorruptWeightsError(
            f"{self.path} {what}: it changed while it was read; wait until nobody writes to it, and load it again"
        )


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes `begin` to `end` of the file at `index`; `begin` is a multiple of the size of blocks."""

    index: int
    begin: int
    end: int


def blocks_of(index: int, size_bytes: int, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Of one file, in order."""
    for begin in range(0, size_bytes, block_bytes):
        yield Block(index, begin, min(size_bytes, begin + block_bytes))


def share_out(runs: Iterable[Iterable[Block]], workers: Sequence[Callable[[Block], None]]) -> None:
    """Each worker in a thread of its own takes the next run of blocks, until none is left, and does them in order.

    Raises the first error of any, and begins no block after it.
    """
    left = iter(runs)
    lock, errors = threading.Lock(), list[BaseException]()

    def work(take: Callable[[Block], None]) -> None:
        try:
            while not errors:
                with lock:
                    run = next(left, None)
                if run is None:
                    return
                for block in run:
                    if not errors:
                        take(block)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(worker,), name="read weights") for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def aligned(offset: int) -> int:
    """The next multiple of ALIGN_BYTES."""
    return -(-offset // ALIGN_BYTES) * ALIGN_BYTES


def _open_direct(path: Path, expected: os.stat_result) -> int | None:
    """None where the file system has no direct reads."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        now = os.fstat(descriptor)
        if (now.st_dev, now.st_ino) == (expected.st_dev, expected.st_ino):
            return descriptor
        os.close(descriptor)  # another file has taken the name
    return None
