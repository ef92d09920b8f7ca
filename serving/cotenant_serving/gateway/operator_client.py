"""The only HTTP with the operator: newer configurations, and usage. Blocking: for threads of the supervisor.

Nothing of it stands in the way of a request: an operator that is away for hours costs news and nothing else.
"""

import http.client
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cotenant_serving.contract_usage import UsageBatch, UsageReceipt

CONNECT_S = 3.0
ANSWER_S = 5.0
"""Beyond what an answer was asked to wait."""
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 2), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2))
"""Seconds, seconds, tries: an operator whose node is gone is noticed while a long poll waits for it."""


class OperatorError(Exception):
    """It does not answer, or not what was asked; the message says what, and names no token."""


class OperatorClient:
    """One kept connection, for one thread."""

    def __init__(self, url: str, token: Callable[[], str]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._path = parts.path.rstrip("/")
        self._token = token
        self._connection: http.client.HTTPConnection | None = None

    def newer(self, after: int, wait_s: int) -> bytes | None:
        """A configuration of a higher generation, as JSON; None when there was none for `wait_s`.

        Raises OperatorError.
        """
        path = f"/v1/gateway-config?after={max(0, after)}&wait_s={wait_s}"
        status, body = self._ask("GET", path, None, wait_s + ANSWER_S)
        if status == 204:
            return None
        return body

    def add(self, batch: UsageBatch) -> None:
        """Returns when the batch is kept safely. Raises OperatorError."""
        _, body = self._ask("POST", "/v1/usage", msgspec.json.encode(batch), ANSWER_S)
        try:
            receipt = msgspec.json.decode(body, type=UsageReceipt)
        except msgspec.MsgspecError:
            raise OperatorError("POST /v1/usage: the answer is no receipt") from None
        if (receipt.gateway, receipt.boot, receipt.sequence) != (batch.gateway, batch.boot, batch.sequence):
            raise OperatorError("POST /v1/usage: the receipt is for another batch")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        kept = self._connection is not None
        try:
            return self._once(method, path, body, timeout_s)
        except (ConnectionError, http.client.BadStatusLine):
            if not kept:
                raise OperatorError(f"{method} {_shown(path)}: the connection broke") from None
        except (OSError, http.client.HTTPException) as problem:
            raise OperatorError(f"{method} {_shown(path)}: {type(problem).__name__}: {problem}") from None
        # A kept connection may have been closed while nobody looked: both calls may be made twice.
        return self._ask(method, path, body, timeout_s)

    def _once(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        done = False
        try:
            connection = self._connected()
            assert connection.sock is not None
            connection.sock.settimeout(timeout_s)
            headers = {"authorization": f"Bearer {self._token()}", "content-type": "application/json"}
            connection.request(method, self._path + path, body, headers)
            response = connection.getresponse()
            found = response.read()
            done = True
        finally:
            if not done:
                self.close()
        if response.status not in (200, 204):
            raise OperatorError(f"{method} {_shown(path)}: HTTP {response.status}")
        return response.status, found

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
        if self._connection.sock is None:
            self._connection.connect()
            _notice_death(self._connection.sock)
        return self._connection


def _notice_death(opened: Any) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        opened.setsockopt(socket.IPPROTO_TCP, option, value)


def _shown(path: str) -> str:
    return path.partition("?")[0]
