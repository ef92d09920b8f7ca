"""A model through the cache instance beside this process: it comes onto the volume, and stays while it is used.

The lease lasts as long as a connection. When the instance goes (it may be restarted at any time) the lease is asked
for again, and again, until there is one that answers.
"""

import http.client
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from cotenant_cache.contract import EnsureRequest, LeaseRequest, Progress
from cotenant_cache.ensuring import error_of
from cotenant_cache.errors import CacheError, HubUnreachableError

CONNECT_S = 30.0
"""For a cache instance that is just starting."""
SILENT_S = 30.0
"""Without a line, until a connection counts as lost."""
AGAIN_S = 1.0

log = logging.getLogger("cotenant.cache")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("cache", timeout=SILENT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class RemoteLease:
    """A model that stays on the volume until `close`."""

    def __init__(self, path: str, source: str, holder: str, connection: _Connection, lines: Iterator[bytes]) -> None:
        self._path, self._source, self._holder = path, source, holder
        self._connection, self._lines = connection, lines
        self._closed, self._turn = threading.Event(), threading.Lock()
        threading.Thread(target=self._hold, name=f"lease of {source}", daemon=True).start()

    def close(self) -> None:
        with self._turn:
            self._closed.set()
            _cut(self._connection)

    def _hold(self) -> None:
        while True:
            try:
                for _ in self._lines:
                    pass
            except (OSError, http.client.HTTPException, ValueError, AttributeError):
                pass
            _cut(self._connection)
            while not self._again():
                if self._closed.wait(AGAIN_S):
                    return

    def _again(self) -> bool:
        if self._closed.is_set():
            return False
        try:
            request = LeaseRequest(source=self._source, holder=self._holder)
            made = _post(self._path, "/v1/leases", request)
            with self._turn:
                if self._closed.is_set():
                    _cut(made[0])
                    return False
                self._connection, self._lines = made
            return True
        except (OSError, http.client.HTTPException, CacheError) as error:
            log.info("%s: the lease is asked for again: %s", self._source, error)
            return False


def ensure_through(
    path: str, source: str, holder: str, tell: Callable[[Progress], None]
) -> tuple[Progress, RemoteLease]:
    """Whole and verified on the volume, and leased. Blocks, as long as it takes. Raises CacheError."""
    connection, lines = _connected(path, EnsureRequest(source=source, lease=holder))
    try:
        for text in lines:
            if not text.strip():
                continue
            said = msgspec.json.decode(text, type=Progress)
            if said.phase == "failed":
                raise error_of(said)
            tell(said)
            if said.phase == "done":
                pinned = f"{source.partition('@')[0]}@{said.commit}" if said.commit else source
                return said, RemoteLease(path, pinned, holder, connection, lines)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
        _cut(connection)
        raise _lost(path, source, error) from None
    except BaseException:
        _cut(connection)
        raise
    _cut(connection)
    raise _lost(path, source, ConnectionError("the connection ended"))


def _connected(path: str, request: EnsureRequest) -> tuple[_Connection, Iterator[bytes]]:
    """Waits for an instance that is starting. Raises HubUnreachableError, CacheError."""
    pause = threading.Event()
    for _ in range(int(CONNECT_S / AGAIN_S)):
        try:
            return _post(path, "/v1/ensure", request)
        except (OSError, http.client.HTTPException) as error:
            last: Exception = error
            pause.wait(AGAIN_S)
    raise _lost(path, request.source, last)


def _post(path: str, route: str, request: msgspec.Struct) -> tuple[_Connection, Iterator[bytes]]:
    """The connection, and the lines of its answer. Raises OSError, HTTPException, CacheError."""
    connection = _Connection(path)
    try:
        connection.request("POST", route, msgspec.json.encode(request))
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise CacheError(_said(answer.read(2**16)))
    except BaseException:
        connection.close()
        raise
    return connection, iter(answer)


def _said(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body, type=dict[str, str])["error"])
    except (msgspec.MsgspecError, KeyError):
        return "the weight cache answered something unknown; look at its log"


def _cut(connection: _Connection) -> None:
    """Also wakes a thread that reads from it."""
    try:
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


def _lost(path: str, source: str, error: Exception) -> HubUnreachableError:
    return HubUnreachableError(
        f"{source}: the weight cache at {path} cannot be asked ({type(error).__name__}: {error}); look whether the "
        "container `cache` of this pod runs",
        transient=True,
    )


def holder_of(name: str = "") -> str:
    """Who uses a model, for people: what it is called, and its process."""
    return f"{name or Path('/proc/self/comm').read_text().strip()} ({socket.gethostname()}, process {os.getpid()})"
