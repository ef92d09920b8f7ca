"""The command line's client of a gateway: plain HTTP from the standard library, one request at a time."""

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cotenant_operator.failure import Failure, FlagError

_MORE = {
    "model_failed": " On the machine of `up`, `cotenant logs MODEL` shows its engine's own log.",
    "model_not_found": " `cotenant get tenants` shows who sees what on the machine of `up`.",
    "invalid_api_key": " `cotenant key create TENANT` makes one on the machine of `up`.",
}
"""What the API does not say, because its callers need not be on that machine."""
TIMEOUT_S = 660.0
"""Longer than a gateway lets any request take, so that its own words arrive."""


class GatewayError(Failure):
    """The gateway refused, broke off or did not answer; the message holds its own words."""

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True, slots=True)
class GatewayClient:
    """`url` without the path `/v1`. Follows no redirect: the key goes to this address and to no other."""

    url: str
    key: str = field(repr=False)
    timeout_s: float = TIMEOUT_S

    def takes_key(self) -> bool:
        """False while the gateway does not know the key. Raises GatewayError."""
        with self._request("GET", "/v1/models") as response:
            return response.status != 401

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One whole answer. Raises GatewayError."""
        with self._request("POST", path, body) as response:
            return self._json(response)

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a streamed answer as they come. Raises GatewayError, also for an error in the stream."""
        with self._request("POST", path, {**body, "stream": True}) as response:
            if response.status != 200:
                raise _refusal(response.status, response.read())
            for line in response:
                if line.strip() == b"data: [DONE]":
                    return
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise _error_of(event["error"], 200)
                    yield event
        raise GatewayError(f"{self.url} ended the answer in the middle; send it again")

    def _json(self, response: http.client.HTTPResponse) -> dict[str, Any]:
        data = response.read()
        if response.status != 200:
            raise _refusal(response.status, data)
        try:
            return dict(json.loads(data))
        except (ValueError, TypeError):
            raise GatewayError(f"{self.url} answered what is no JSON object; is it a cotenant gateway?") from None

    @contextlib.contextmanager
    def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection()
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise GatewayError(
                f"the gateway at {self.url} does not answer ({str(error) or type(error).__name__}); "
                "is it running? `cotenant get models` says so for this machine"
            ) from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                host, port, timeout=self.timeout_s, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(host, port, timeout=self.timeout_s)


def base_url(given: str) -> str:
    """`http://host:port` of what a person gives: also with `/v1` or a slash at its end. Raises FlagError."""
    url = given.rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and not parts.username
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise FlagError(f"--url {given!r} is no address of a gateway; give one such as http://127.0.0.1:8080")
    return url


def _refusal(status: int, data: bytes) -> GatewayError:
    try:
        return _error_of(json.loads(data)["error"], status)
    except (ValueError, KeyError, TypeError):
        text = data[:200].decode(errors="replace").strip()
        return GatewayError(f"the gateway answered {status}: {text or 'nothing'}", status=status)


def _error_of(error: Any, status: int) -> GatewayError:
    if not isinstance(error, dict):
        return GatewayError(f"the gateway answered {status}: {error}", status=status)
    code = str(error.get("code") or "")
    more = _MORE.get(code, "")
    return GatewayError(f"{error.get('message') or error}{more}", status=status, code=code)
