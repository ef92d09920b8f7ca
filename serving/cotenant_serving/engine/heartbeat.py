"""Heartbeats to the conductor, from a thread of their own: a long prefill must not look like a dead engine."""

import http.client
import logging
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from cotenant_serving.contract import Heartbeat, HeartbeatReply
from cotenant_serving.engine.status import EngineStatus
from cotenant_serving.tokens import shown

PERIOD_S = 0.5
WAITING_PERIOD_S = 0.15
TIMEOUT_S = 2.0

log = logging.getLogger("cotenant.engine")


class ConductorUnreachableError(Exception):
    """No heartbeat could be delivered; it will be tried again."""


class ConductorClient:
    """POST {conductor_url}/v1/heartbeat. Never uses a proxy: the conductor is in the same cluster."""

    def __init__(self, conductor_url: str, token: Callable[[], str]) -> None:
        """`token` gives the text of a token file (see `tokens`)."""
        parts = urlsplit(conductor_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"conductor_url {conductor_url!r} is not an http(s) URL; write http://HOST:PORT")
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/") + "/v1/heartbeat"
        self._token = token

    def post(self, heartbeat: Heartbeat, *, timeout_s: float = TIMEOUT_S) -> HeartbeatReply:
        """Raises ConductorUnreachableError."""
        connection = self._connect(self._host, self._port, timeout=timeout_s)
        headers = {"authorization": f"Bearer {shown(self._token())}", "content-type": "application/json"}
        try:
            connection.request("POST", self._path, body=msgspec.json.encode(heartbeat), headers=headers)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise ConductorUnreachableError(f"{self._host}:{self._port} answered {response.status}")
            return msgspec.json.decode(body, type=HeartbeatReply)
        except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
            raise ConductorUnreachableError(f"{self._host}:{self._port}: {error}") from error
        finally:
            connection.close()


def post_reliably(
    post: Callable[[Heartbeat], HeartbeatReply],
    heartbeat: Heartbeat,
    *,
    for_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Posts once, trying again for `for_s` seconds. Returns whether it was delivered."""
    deadline = clock() + for_s
    while True:
        try:
            post(heartbeat)
            return True
        except ConductorUnreachableError:
            if clock() + 0.1 >= deadline:
                return False
            sleep(0.1)


class HeartbeatThread:
    """Posts the status every half second, and at once when the state changes; calls `on_lease` when granted."""

    def __init__(
        self,
        status: EngineStatus,
        post: Callable[[Heartbeat], HeartbeatReply],
        on_lease: Callable[[], None],
    ) -> None:
        self._status = status
        self._post = post
        self._on_lease = on_lease
        self._stop = threading.Event()
        self._reachable = True
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._status.changed.set()
        self._thread.join(timeout=TIMEOUT_S + 1)

    def beat(self) -> None:
        """One heartbeat."""
        heartbeat = self._status.snapshot()
        try:
            reply = self._post(heartbeat)
        except ConductorUnreachableError as error:
            if self._reachable:
                log.warning("no heartbeat delivered to the conductor, trying on: %s", error)
            self._reachable = False
            return
        if not self._reachable:
            log.warning("the conductor can be reached again")
        self._reachable = True
        if reply.lease and heartbeat.state == "waiting":
            self._on_lease()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._status.changed.clear()
            try:
                self.beat()
            except Exception:  # an engine that falls silent is taken for dead
                log.exception("a heartbeat failed; trying on")
            period = WAITING_PERIOD_S if self._status.state == "waiting" else PERIOD_S
            self._status.changed.wait(period)
