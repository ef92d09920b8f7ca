"""The bytes of a file that is being fetched, on the disk."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from cotenant_cache.errors import DiskFullError, VolumeError


class Partial:
    """The bytes of a file so far. `size` is true whatever happens."""

    def __init__(self, descriptor: int, path: Path, step: Callable[[str], AbstractContextManager[None]]) -> None:
        self._descriptor, self._path, self._step = descriptor, path, step
        self.size = os.fstat(descriptor).st_size

    def write(self, data: memoryview) -> None:
        """All of it, after what is there, or DiskFullError."""
        with self._step("partial.write"):
            while data:
                try:
                    count = os.pwrite(self._descriptor, data, self.size)
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise VolumeError(f"{self._path}: {error.strerror}; check the disk") from error
                    raise DiskFullError(
                        f"{self._path}: the disk is full after {self.size} bytes; make room on it, what came is kept"
                    ) from error
                self.size += count
                data = data[count:]

    def sync(self) -> None:
        with self._step("partial.sync"):
            os.fsync(self._descriptor)

    def restart(self) -> None:
        with self._step("partial.restart"):
            os.ftruncate(self._descriptor, 0)
        self.size = 0

    def read_blocks(self, size: int) -> Iterator[memoryview]:
        """From the beginning to `self.size`; each is valid until the next."""
        buffer, offset = memoryview(bytearray(size)), 0
        while offset < self.size:
            count = os.preadv(self._descriptor, [buffer[: self.size - offset]], offset)
            if not count:
                raise VolumeError(f"{self._path}: became shorter while it was read; check who else writes there")
            yield buffer[:count]
            offset += count

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def opened(path: Path) -> int:
    """Makes file and folder; the last file's end may take the empty folder away between the two."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue
