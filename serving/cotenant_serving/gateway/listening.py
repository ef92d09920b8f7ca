"""The gateway's address, and the sockets that listen on it: one for each worker, all owned by the supervisor.

Several workers that accept from one socket share it badly: whoever wakes first takes most. With a socket each
(SO_REUSEPORT) the kernel deals connections out evenly. A dead worker's socket stays open, so who was dealt to it
waits for the next worker instead of being reset.
"""

import errno
import socket
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 5.0
STEP_S = 0.05


class Port:
    def __init__(self, host: str, port: int, *, shared: bool) -> None:
        """Bound, not listening yet. `shared`: more than one socket is wanted. Raises OSError."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self._family, address = found[0][0], found[0][4]
        self._shared = shared
        if shared and port:
            # Another program of this user could share the port with us, unseen by both.
            self._bound(address, alone=True).close()
        self._sockets = {0: self._bound(address)}
        self._address = self._sockets[0].getsockname()

    @property
    def url(self) -> str:
        host, port = self._address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def listener(self, worker: int) -> socket.socket:
        """Raises OSError."""
        if worker not in self._sockets:
            self._sockets[worker] = self._bound(self._address)
        return self._sockets[worker]

    def drop(self, worker: int) -> None:
        """This worker will not be back at once: nobody is dealt to it until then."""
        if self._shared and worker in self._sockets:
            self._sockets.pop(worker).close()

    def close(self) -> None:
        for listener in self._sockets.values():
            listener.close()
        self._sockets = {}

    def _bound(self, address: Any, *, alone: bool = False) -> socket.socket:
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._shared and not alone:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        return listener


def take_port(host: str, port: int, *, shared: bool, ending: Callable[[], bool]) -> Port:
    """`ending`: workers of an earlier gateway still run; their port is waited for. Raises OSError."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return Port(host, port, shared=shared)
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE or time.monotonic() > give_up_s or not ending():
                raise
        time.sleep(STEP_S)
