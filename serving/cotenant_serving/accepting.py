"""uvicorn's server for programs of ours: signals are left to them, and a lack of file descriptors is outlived.

uvloop's own accept loop closes connections that it has no descriptor for, and spins when it has not even one to spare
for that. Here they wait in the kernel's queue until there is room. Some descriptors are never given to connections
that come in: who took all of them could not reach what it needs to answer.
"""

import asyncio
import contextlib
import errno
import logging
import math
import os
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

log = logging.getLogger("cotenant.accepting")

PAUSE_S = 0.25
"""Between two tries while there are too few descriptors."""
KEPT_RATIO = 0.25
KEPT_MOST = 2048
"""Descriptors that are left for other things: this part of all, at most so many."""
AT_ONCE = 64
"""Connections that are taken before the loop gets its turn again."""
LOG_EVERY_S = 60.0
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class QuietServer(uvicorn.Server):
    """Leaves signals to its process, which uvicorn would end with the signal again after a drain that went well."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class PatientServer(QuietServer):
    """For sockets that listen already: `serve(sockets=[…])`. Knows no lifespan."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.servers = [Acceptor(loop, one, self._protocol) for one in sockets or ()]  # type: ignore[misc]
        self.started = True

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = kind(config=self.config, server_state=self.server_state, app_state={})
        return protocol


class Acceptor:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        """Begins at once. The socket stays the caller's."""
        self._loop, self._listener, self._protocol = loop, listener, protocol
        self._beginning: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._logged_s: float | None = None
        listener.setblocking(False)
        loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """No more connections; those that are there stay."""
        if self._pause is not None:
            self._pause.cancel()
        with contextlib.suppress(ValueError, OSError):
            self._loop.remove_reader(self._listener.fileno())

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._beginning)

    def _accept(self) -> None:
        most = most_descriptor(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        for _ in range(AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                if problem.errno not in _SHORT:
                    raise
                self._wait(str(problem))
                return
            task = self._loop.create_task(self._begin(connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)
            if connection.fileno() >= most:
                self._wait(f"{most} are taken")
                return

    async def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError as problem:  # it is gone already, or memory is short
            log.debug("a connection ended before it began: %s", problem)
            connection.close()

    def _wait(self, why: str) -> None:
        now_s = self._loop.time()
        if self._logged_s is None or now_s - self._logged_s >= LOG_EVERY_S:
            self._logged_s = now_s
            log.warning("too few file descriptors, new connections wait: %s; raise the limit (ulimit -n)", why)
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        if _next_descriptor() < most_descriptor(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
            self._loop.add_reader(self._listener.fileno(), self._accept)
        else:
            self._pause = self._loop.call_later(PAUSE_S, self._go_on)


def _next_descriptor() -> float:
    """The number that the next one gets; infinite when there is none."""
    try:
        probe = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return math.inf
    os.close(probe)
    return probe


def most_descriptor(limit: int) -> int:
    """The highest number that a connection may have; the kernel gives the lowest that is free. Pure."""
    return limit - max(1, min(KEPT_MOST, int(limit * KEPT_RATIO)))


def use_every_descriptor() -> None:
    """Raises this process' soft limit to its hard one: the usual 1024 are fewer than a gateway's connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # where the hard one is no limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
