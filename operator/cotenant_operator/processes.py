"""The child processes of `cotenant up`: start, watch, end; and nothing that anybody else started.

Every child carries an environment variable that names the state directory, and so does whatever it starts.
After a kill -9 of `up` the next one finds leftovers by it; the lock on the state directory has shown before
that no other `up` owns them.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cotenant_operator import tether

if TYPE_CHECKING:
    import psutil

MARK = "COTENANT_STATE_DIR"


class Child:
    """One child process with its output appended to a log file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name, self.process, self.log = name, process, log

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str], mark: Path
    ) -> "Child":
        """Its own session, so that Ctrl-C in the terminal reaches only `up`, which ends the children in order."""
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-IS",
                tether.__file__,
                str(os.getpid()),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **env, MARK: str(mark)},
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def end(self, patience_s: float) -> None:
        """SIGTERM, then SIGKILL when it has not ended within `patience_s`."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), patience_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    def last_lines(self, count: int = 5) -> str:
        """The end of its log, for an error message."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        return ""


def end_leftovers(mark: Path, *, keep: Collection[int] = (), patience_s: float = 3.0) -> int:
    """End every process that carries the mark of this state directory, but this one and `keep`: process ids, with
    what those have started.

    Returns how many there were.
    """
    import psutil

    for pid in set(keep):
        with contextlib.suppress(psutil.Error):
            keep = {*keep, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    found = [process for process in marked_processes(mark) if process.pid not in keep]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(found, timeout=patience_s)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=patience_s)
    return len(found)


def marked_processes(mark: Path) -> "list[psutil.Process]":
    """Every process that carries the mark of this state directory, but this one."""
    import psutil

    return [process for process in psutil.process_iter() if _marked(process, mark)]


def _marked(process: "psutil.Process", mark: Path) -> bool:
    import psutil

    try:
        return process.pid != os.getpid() and process.environ().get(MARK) == str(mark)
    except (psutil.Error, OSError):
        return False


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now. Should somebody take it before its user does, that one's log says so."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def port_is_free(host: str, port: int) -> bool:
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
