"""Secrets of the operator's own namespace, each read by its name: no right to list or watch them is needed.

So a change is seen at the next look: after 1.5 seconds with up to 75 Secrets, later with more, at most 50
reads a second.
"""

import asyncio
import base64
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from cotenant_operator.cluster_errors import NotFoundError
from cotenant_operator.kinds import SECRETS, Kind, Object
from cotenant_operator.watching import Sleep

log = logging.getLogger("cotenant.operator")

EVERY_S, READS_PER_S, AT_ONCE = 1.5, 50.0, 8


class Reader(Protocol):
    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object: ...


class SecretsByName:
    """Owns what the wanted Secrets hold now. `changed` gets the name of each that is not as it was."""

    def __init__(
        self,
        cluster: Reader,
        namespace: str,
        changed: Callable[[str], None],
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._cluster, self._namespace, self._changed, self._sleep = cluster, namespace, changed, sleep
        self._wanted: frozenset[str] = frozenset()
        self._found: dict[str, Object | None] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    def get(self, name: str) -> Object | None:
        """As read last; None where there is none, or it was not read yet."""
        return self._found.get(name)

    def value(self, name: str, key: str) -> str:
        """Plain text of one key, without white space around it; empty where there is none."""
        try:
            return self.raw(name, key).decode().strip()
        except UnicodeDecodeError:
            return ""

    def raw(self, name: str, key: str) -> bytes:
        """Of one key; empty where there is none."""
        text = ((self.get(name) or {}).get("data") or {}).get(key, "")
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            return b""

    async def want(self, names: Iterable[str]) -> None:
        """These and no others from now on; returns when each was read once. Raises ClusterError."""
        self._wanted = frozenset(names)
        self._forget_others()
        new = [name for name in self._wanted if name not in self._found]
        await asyncio.gather(*(self._read(name) for name in new))

    def want_only(self, names: Iterable[str]) -> None:
        """Of those that are wanted now no others than these from now on."""
        self._wanted &= frozenset(names)
        self._forget_others()

    def put(self, secret: Object) -> None:
        """What was just written."""
        self._store(secret["metadata"]["name"], secret)

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._sleep(max(EVERY_S, len(self._wanted) / READS_PER_S))
            await self.look()

    async def look(self) -> None:
        """Read each of them now. What cannot be read stays as it was."""
        results = await asyncio.gather(*(self._read(name) for name in self._wanted), return_exceptions=True)
        failed = [error for error in results if isinstance(error, BaseException)]
        if failed:
            log.warning("%d of %d secrets cannot be read now: %s", len(failed), len(results), failed[0])

    async def _read(self, name: str) -> None:
        async with self._slots:
            try:
                secret: Object | None = await self._cluster.get(SECRETS, name, self._namespace)
            except NotFoundError:
                secret = None
        if name in self._wanted:  # what is forgotten meanwhile must not be found there, old, when it is wanted again
            self._store(name, secret)

    def _forget_others(self) -> None:
        for name in self._found.keys() - self._wanted:
            del self._found[name]

    def _store(self, name: str, secret: Object | None) -> None:
        known = name in self._found
        before = self._found.get(name)
        self._found[name] = secret
        if known and _version(before) != _version(secret):
            self._changed(name)


def _version(secret: Object | None) -> str:
    return secret["metadata"].get("resourceVersion", "") if secret else ""
