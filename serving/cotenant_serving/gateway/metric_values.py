"""The numbers that metrics count, in files of prometheus_client's multiprocess mode, each changed by one store.

The library's own class for them takes a lock, asks for the process's number and packs two values for each change. A
worker counts in one thread, in files that nobody else writes, so none of that is needed. Files, their format and who
reads them are the library's. Neither a full disk nor a lack of file descriptors may end a request over a number:
files are open from the start, and a number that finds no room is not counted.
"""

import logging
import mmap
import os
from array import array
from pathlib import Path
from typing import Any, Protocol

from prometheus_client.mmap_dict import MmapedDict, mmap_key

from cotenant_serving.gateway.metric_files import KINDS

log = logging.getLogger("cotenant.gateway")

BYTES_BESIDE_KEY = 64
"""More than the library stores with a key."""


class ValueFiles:
    """Those of one worker."""

    def __init__(self, folder: Path, worker: int) -> None:
        """Raises OSError."""
        paths = {kind: str(folder / f"{kind}_{worker}.db") for kind in KINDS}
        self._files: dict[str, Any] = {
            kind: MmapedDict(path)  # type: ignore[no-untyped-call]
            for kind, path in paths.items()
        }
        self._views: list[memoryview[float]] = []

    def place(self, kind: str, key: str) -> tuple["memoryview[float]", int]:
        """Where the number stands; it is made if there is none. What is there from before goes on."""
        file = self._files[kind]
        try:
            _make_room(file, len(key.encode()) + BYTES_BESIDE_KEY)
            file.read_value(key)
        except OSError as problem:
            log.error("a metric is not counted until this worker starts anew, its file has no room: %s", problem)
            return memoryview(array("d", (0.0,))), 0
        return self._view(file._m), file._positions[key] // 8

    def close(self) -> None:
        """Nothing may be counted any more."""
        for view in self._views:
            view.release()
        for file in self._files.values():
            file.close()

    def _view(self, memory: mmap.mmap) -> "memoryview[float]":
        """A file that grows is mapped anew; the same pages stand behind views of before."""
        for view in self._views:
            if view.obj is memory:
                return view
        self._views.append(memoryview(memory).cast("d"))
        return self._views[-1]


def _make_room(file: Any, wanted_bytes: int) -> None:
    """The library grows files without blocks: on a full disk a store there would end the process. Raises OSError."""
    if file._used + wanted_bytes > file._capacity:
        os.posix_fallocate(file._f.fileno(), 0, 2 * file._capacity)


class LibraryValue:
    """A number of the library's own kind, as if it stood in memory: what is added to it, is."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getitem__(self, place: int) -> float:
        return 0.0

    def __setitem__(self, place: int, added: float) -> None:
        self._value.inc(added)


class Numbers(Protocol):
    def __getitem__(self, place: int, /) -> float: ...

    def __setitem__(self, place: int, value: float, /) -> None: ...


Place = tuple[Numbers, int]
"""Where a number stands: `numbers[at] += 1` counts."""


def place_of(value: Any) -> Place:
    """Of a metric's number, whichever kind it is."""
    return value.place if hasattr(value, "place") else (LibraryValue(value), 0)


def value_class(files: ValueFiles) -> type:
    """What `prometheus_client.values.ValueClass` may be."""

    class FileValue:
        __slots__ = ("_at", "_numbers", "place")
        _multiprocess = True

        def __init__(
            self, typ: str, metric_name: str, name: str, labels: Any, values: Any, text: str, **_: Any
        ) -> None:
            key = mmap_key(metric_name, name, labels, values, text)
            self.place = self._numbers, self._at = files.place(typ, key)

        def inc(self, amount: float) -> None:
            # One aligned store: nobody reads half of it.
            self._numbers[self._at] += amount

        def set(self, value: float, timestamp: float | None = None) -> None:
            self._numbers[self._at] = value

        def get(self) -> float:
            return self._numbers[self._at]

        def set_exemplar(self, exemplar: Any) -> None: ...

        def get_exemplar(self) -> None: ...

    return FileValue
