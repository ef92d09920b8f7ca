"""The only writer of the usage file: whole lines, appended by every worker and by the supervisor.

STATE/usage.jsonl   one JSON object per line, 0600; whoever moves it away gets a new one with the next line

Lines go out in one write under the file's lock, which the kernel takes back from a process that is killed. A kill
in the middle of a write can leave half a line: `open_flag`, set for as long as a write lasts, tells the next writer,
who ends that line before its own. A line that a full disk cuts short is taken back at once. Nobody waits long for the
lock: a process that was stopped within its write must not stop the others.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cotenant_serving.gateway.board import Flag

LOCK_S = 0.25
"""The longest wait for the lock, which is held for microseconds."""
_QUICK_TRIES = 50
_TRY_AGAIN_S = 0.0005


class UsageFile:
    def __init__(self, path: Path, open_flag: Flag) -> None:
        """`open_flag` is the same for all writers. Raises OSError when the file cannot be opened."""
        self.path = path
        self._flag = open_flag
        self._text = str(path)
        self._open()

    def append(self, lines: bytes, wait_s: float = LOCK_S) -> int:
        """`lines` end in a line break each. `wait_s`: for the lock.

        Returns how many bytes of them are in the file, whole lines, at least one. Raises OSError when none is.
        """
        with self._locked(wait_s):
            if self._flag.get():
                self._end_torn_line()
            return self._write(lines)

    def repair(self) -> None:
        """Ends the last line if it is torn, or leaves that to the next writer. Raises OSError."""
        self._flag.set(1)
        with contextlib.suppress(BlockingIOError), self._locked(LOCK_S):
            self._end_torn_line()

    def set_aside(self, path: Path) -> None:
        """Gives the file another name, in the same folder: the next line begins a new one. Raises OSError."""
        with self._locked(LOCK_S):
            self.path.rename(path)

    def size_bytes(self) -> int:
        """0 when it was moved away."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def close(self) -> None:
        os.close(self._file)

    @contextlib.contextmanager
    def _locked(self, wait_s: float) -> Iterator[None]:
        """Raises BlockingIOError when somebody else keeps the lock."""
        _lock(self._file, wait_s, self.path)
        try:
            while self._moved():
                old = self._file
                self._open()
                os.close(old)  # gives up its lock
                _lock(self._file, wait_s, self.path)
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _open(self) -> None:
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(file, 0o600)
        found = os.fstat(file)
        self._file, self._identity = file, (found.st_ino, found.st_dev)

    def _moved(self) -> bool:
        try:
            found = os.stat(self._text)
        except FileNotFoundError:
            return True
        return (found.st_ino, found.st_dev) != self._identity

    def _write(self, lines: bytes) -> int:
        self._flag.set(1)
        try:
            written = os.write(self._file, lines)
        except OSError:
            self._flag.set(0)
            raise
        whole = written if written == len(lines) else lines.rfind(b"\n", 0, written) + 1
        if whole == written or self._taken_back(written - whole):
            self._flag.set(0)
        if not whole:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        return whole

    def _taken_back(self, last_bytes: int) -> bool:
        """False when not even that works; then the next writer ends the torn line."""
        with contextlib.suppress(OSError):
            # Under the lock nobody has written behind it.
            os.ftruncate(self._file, os.lseek(self._file, 0, os.SEEK_CUR) - last_bytes)
            return True
        return False

    def _end_torn_line(self) -> None:
        size = os.lseek(self._file, 0, os.SEEK_END)
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")
        self._flag.set(0)


def _lock(file: int, wait_s: float, path: Path) -> None:
    until_s = 0.0
    for tries in itertools.count():
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            until_s = until_s or time.monotonic() + wait_s
        if time.monotonic() >= until_s:
            raise BlockingIOError(errno.EWOULDBLOCK, "another process keeps its lock", str(path))
        if tries < _QUICK_TRIES:
            os.sched_yield()
        else:
            time.sleep(_TRY_AGAIN_S)
