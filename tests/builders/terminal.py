"""A pseudo terminal for tests: what a program shows where a person looks, and keys for it to read."""

import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path

ROWS, COLUMNS = 40, 140


class Terminal:
    """Runs a command with a terminal as stdin, stdout and stderr; what it shows is appended to `log`."""

    def __init__(self, command: Sequence[str], log: Path, **environment: str) -> None:
        self.log = log
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", **environment}
        # Its own session with this terminal, so that Ctrl-C becomes SIGINT.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave, env=env, close_fds=True
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._copy, daemon=True)
        self._reader.start()

    def shown(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self, timeout_s: float = 60.0) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def _copy(self) -> None:
        with self.log.open("ab", buffering=0) as file:
            while True:
                try:
                    data = os.read(self._master, 1 << 14)
                except OSError:  # the last one has closed the terminal
                    break
                if not data:
                    break
                file.write(data)
        os.close(self._master)
