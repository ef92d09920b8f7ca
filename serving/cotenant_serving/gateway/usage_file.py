"""The only writer of the usage file: whole lines, appended by every worker and by the supervisor.

STATE/usage.jsonl   one JSON object per line, 0600

A line goes out in one write under the file's lock, which the kernel takes back from a process that is killed. A kill
in the middle of a write can leave half a line: `open_flag`, set for as long as a write lasts, tells the next writer,
who ends that line before its own. What a full disk cuts short is taken back at once.
"""

import errno
import fcntl
import os
from pathlib import Path

from cotenant_serving.gateway.board import Flag


class UsageFile:
    def __init__(self, path: Path, open_flag: Flag) -> None:
        """`open_flag` is the same for all writers. Raises OSError when the file cannot be opened."""
        self.path = path
        self._flag = open_flag
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(self._file, 0o600)

    def append(self, line: bytes) -> None:
        """`line` ends in a line break. Raises OSError; then nothing of it is in the file."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            if self._flag.get():
                self._end_torn_line()
            self._write(line)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def repair(self) -> None:
        """Ends the last line if it is torn. Raises OSError."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._end_torn_line()
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def size_bytes(self) -> int:
        return os.fstat(self._file).st_size

    def close(self) -> None:
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        self._flag.set(1)
        try:
            written = os.write(self._file, line)
        except OSError:
            self._flag.set(0)
            raise
        if written < len(line):
            # Under the lock nobody has written behind it. Should this fail too, the flag stays set.
            os.ftruncate(self._file, os.lseek(self._file, 0, os.SEEK_CUR) - written)
            self._flag.set(0)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._flag.set(0)

    def _end_torn_line(self) -> None:
        size = os.lseek(self._file, 0, os.SEEK_END)
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")
        self._flag.set(0)
