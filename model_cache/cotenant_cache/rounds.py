"""How far a round of verification is, said to whoever started it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cotenant_cache.contract import FileProgress, Progress
from cotenant_cache.store import Clock

_EVERY_S = 0.2


@dataclass(slots=True)
class RoundTeller:
    """Of one thread. Tells the whole, and the file that is read."""

    what: str
    """As it stands before the figures, such as `12 files`."""
    total_bytes: int
    tell: Callable[[Progress], None]
    clock: Clock
    _done: int = field(default=0, init=False)
    """Of the files before this one."""
    _read: int = field(default=0, init=False)
    """Of all files, which takes the time."""
    _file: FileProgress = field(default=FileProgress(name="", done_bytes=0, total_bytes=0), init=False)
    _since: float = field(init=False)
    _said_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self._said_at = self.clock.monotonic()

    def at(self, name: str, size_bytes: int, done_bytes: int) -> None:
        """Of a file, which is begun when another one was before it."""
        if name != self._file.name:
            self.begin(name, size_bytes)
        self.read(done_bytes - self._file.done_bytes)

    def begin(self, name: str, size_bytes: int) -> None:
        """The file before it is over, read or not."""
        if 0 < self._file.done_bytes < self._file.total_bytes:
            self._now(self._file.total_bytes)
        self._done += self._file.total_bytes
        self._file = FileProgress(name=name, done_bytes=0, total_bytes=size_bytes)

    def read(self, count: int) -> None:
        """So many bytes more of the file."""
        self._read += count
        self._now(min(self._file.done_bytes + count, self._file.total_bytes))

    def _now(self, done_bytes: int) -> None:
        file = self._file
        self._file = FileProgress(name=file.name, done_bytes=done_bytes, total_bytes=file.total_bytes)
        if done_bytes == file.total_bytes or self.clock.monotonic() - self._said_at >= _EVERY_S:
            self._say()

    def _say(self) -> None:
        self._said_at = self.clock.monotonic()
        took_s, done = self._said_at - self._since, self._done + self._file.done_bytes
        rate = self._read / took_s if took_s > 0 else 0.0
        self.tell(
            Progress(
                source=self.what,
                phase="verifying",
                done_bytes=done,
                total_bytes=self.total_bytes,
                rate_bytes_per_s=rate,
                eta_s=(self.total_bytes - done) / rate if rate else None,
                files=(self._file,),
            )
        )
