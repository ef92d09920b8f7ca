"""A partial file that tells what was done to it, for tests of fetches alone."""

from collections.abc import Iterator
from pathlib import Path


class CountedPartial:
    """As `disk.Partial`, in a file of any name. A write beyond `announced_bytes` is a failed test."""

    def __init__(self, path: Path, announced_bytes: int) -> None:
        self.path, self.announced_bytes = path, announced_bytes
        self._file = path.open("a+b", buffering=0)
        self.size = path.stat().st_size
        self.written_bytes = 0
        self.restarts = 0

    def write(self, data: memoryview) -> None:
        assert self.size + len(data) <= self.announced_bytes, "more than announced was written"
        assert self._file.write(data) == len(data)
        self.size += len(data)
        self.written_bytes += len(data)

    def sync(self) -> None:
        pass

    def restart(self) -> None:
        self._file.truncate(0)
        self.size = 0
        self.restarts += 1

    def read_blocks(self, size: int) -> Iterator[memoryview]:
        with self.path.open("rb") as stream:
            while block := stream.read(size):
                yield memoryview(block)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "CountedPartial":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
