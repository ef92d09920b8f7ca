"""One worker as its run sees it: a child that is told what to do on stdin, and tells on stdout how it goes."""

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cotenant_loadtests.orders import FromWorker, Orders, ToWorker, decode_from_worker, encode_line

WORKER = (sys.executable, "-P", "-m", "cotenant_loadtests.worker")
PIPE_BYTES = 1 << 20
"""Orders with the keys of some thousand tenants fit at once."""
READ_BYTES = 1 << 18
SAID_BYTES = 2000


class WorkerProcess:
    """Started at once, in a session of its own: Ctrl-C of a terminal reaches only the run. `log`: its stderr."""

    def __init__(self, orders: Orders, log: Path, command: Sequence[str] = WORKER) -> None:
        self.number = orders.process
        self.records_file = Path(orders.records_file)
        self._log = log
        self._line = b""
        with log.open("wb") as stderr:
            self._child = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._stdin, self._stdout = self._child.stdin, self._child.stdout
        with contextlib.suppress(OSError):  # an unprivileged user's pipes may have no room for more
            fcntl.fcntl(self._stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)

    def fileno(self) -> int:
        """Readable when the worker has said something, or has gone."""
        return self._stdout.fileno()

    @property
    def pid(self) -> int:
        return self._child.pid

    def tell(self, message: Orders | ToWorker, patience_s: float = 10.0) -> bool:
        """False when the worker has gone, or does not listen."""
        data, end = memoryview(encode_line(message)), time.monotonic() + patience_s
        while data:
            try:
                data = data[os.write(self._stdin.fileno(), data) :]
            except BlockingIOError:
                if not select.select([], [self._stdin], [], max(0.0, end - time.monotonic()))[1]:
                    return False
            except OSError:
                return False
        return True

    def hear(self) -> list[FromWorker] | None:
        """What it has said since; None when its stdout has ended. Raises msgspec.MsgspecError for nonsense."""
        try:
            data = os.read(self._stdout.fileno(), READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            return None
        *lines, self._line = (self._line + data).split(b"\n")
        return [decode_from_worker(line) for line in lines]

    def ended(self, patience_s: float = 0.0) -> int | None:
        """Its exit status; None while it runs."""
        try:
            return self._child.wait(patience_s)
        except subprocess.TimeoutExpired:
            return None

    def said(self) -> str:
        """The end of what it wrote to stderr."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - SAID_BYTES))
            return file.read().decode(errors="replace").strip()

    def end(self) -> None:
        """Kill it, whatever it does, and forget it."""
        self._child.kill()
        self._child.wait()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._stdout.close()
