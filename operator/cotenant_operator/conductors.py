"""The conductors of a cluster, spoken to over HTTP with the control token. What to say is decided elsewhere."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import aiohttp
import msgspec

from cotenant_serving.contract import Desired, PoolStatus

M = TypeVar("M")


class ConductorError(Exception):
    """It did not answer, or not as a conductor does; the message says what was tried."""


class StaleError(ConductorError):
    """It has a desired state of a higher generation: another operator wrote it."""


class ConductorClient:
    """One for all conductors. `token` gives the control token of now."""

    def __init__(self, session: aiohttp.ClientSession, token: Callable[[], str], timeout_s: float) -> None:
        self._session, self._token, self._timeout_s = session, token, timeout_s

    async def status(self, url: str) -> PoolStatus:
        """Raises ConductorError."""
        return _decoded(url, await self._call("GET", f"{url}/v1/status"), PoolStatus)

    async def desired(self, url: str) -> Desired | None:
        """What it was told last; None when it was told nothing yet. Raises ConductorError."""
        said = await self._call("GET", f"{url}/v1/desired", nothing=404)
        return _decoded(url, said, Desired) if said else None

    async def put(self, url: str, desired: Desired) -> None:
        """Raises StaleError, ConductorError."""
        await self._call("PUT", f"{url}/v1/desired", msgspec.json.encode(desired))

    async def _call(self, verb: str, url: str, body: bytes | None = None, *, nothing: int = 0) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}
                async with self._session.request(verb, url, data=body, headers=headers) as response:
                    said = await response.read()
                    if response.status == nothing:
                        return b""
                    if response.status == 409:
                        raise StaleError(f"{url}: {_detail(said)}")
                    if response.status >= 300:
                        raise ConductorError(f"{url} answered {response.status}: {_detail(said)}")
                    return said
        except TimeoutError:
            raise ConductorError(f"{url}: no answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConductorError(f"{url}: {error or type(error).__name__}") from None


def _decoded(url: str, said: bytes, kind: type[M]) -> M:
    try:
        return msgspec.json.decode(said, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConductorError(f"{url} answered what is no {kind.__name__}: {error}; is it a conductor?") from None


def _detail(said: bytes) -> str:
    return said[:200].decode(errors="replace").strip()
