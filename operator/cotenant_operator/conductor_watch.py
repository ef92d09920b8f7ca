"""The conductors of all RayClusters, looked at side by side: none waits for another."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from cotenant_operator.conductors import ConductorError
from cotenant_operator.pool_world import ConductorSeen
from cotenant_operator.watching import Sleep
from cotenant_serving.contract import Desired, PoolStatus

log = logging.getLogger("cotenant.operator")

GRACE_S = 10.0
"""What a conductor said stands for so long after it fell silent: one lost answer changes no condition."""


class Client(Protocol):
    """`conductors.ConductorClient`."""

    async def status(self, url: str) -> PoolStatus: ...

    async def desired(self, url: str) -> Desired | None: ...

    async def put(self, url: str, desired: Desired) -> None: ...


class ConductorWatch:
    """`changed` gets the name of the RayCluster whose conductor says something else than before."""

    def __init__(
        self,
        client: Client,
        changed: Callable[[str], None],
        *,
        every_s: float,
        fence: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`fence` raises FencedError when this operator must tell conductors nothing."""
        self._client, self._changed, self._every_s, self._fence = client, changed, every_s, fence
        self._clock, self._sleep = clock, sleep
        self._seen: dict[str, ConductorSeen] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, owner: Callable[[str], bool], urls: Mapping[str, str]) -> None:
        """RayCluster → base URL: follow these, and no other one that `owner` says is its own."""
        for name in [name for name in self._tasks if name not in urls and owner(name)]:
            self._tasks.pop(name).cancel()
            self._seen.pop(name, None)
        for name, url in urls.items():
            if name not in self._tasks:
                self._tasks[name] = asyncio.create_task(self._watch(name, url), name=f"conductor of {name}")

    def seen(self, name: str) -> ConductorSeen:
        return self._seen.get(name, ConductorSeen())

    async def put(self, name: str, url: str, desired: Desired) -> None:
        """Raises ConductorError, FencedError. What it has been told counts as told until it says otherwise."""
        self._fence()
        await self._client.put(url, desired)
        seen = self.seen(name)
        self._seen[name] = ConductorSeen(seen.status, seen.problem, desired)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._seen.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, name: str, url: str) -> None:
        heard_s = float("-inf")
        while True:
            before = self.seen(name)
            try:
                status = await self._client.status(url)
                desired = before.desired
                if desired is None or desired.generation != status.generation or _restarted(before.status, status):
                    desired = await self._client.desired(url)
                if (told := self.seen(name).desired) is not before.desired:
                    desired = told  # by `put`, meanwhile: what was asked before is no news
                now = ConductorSeen(status, "", desired)
                heard_s = self._clock()
            except Exception as error:  # whatever it is, the next look comes
                if not isinstance(error, ConductorError) and not before.problem:
                    log.exception("a look at the conductor of %s has failed", name)
                recent = self._clock() - heard_s < GRACE_S
                now = ConductorSeen(
                    before.status if recent else None, _problem(error), before.desired if recent else None
                )
            if now != before:
                if now.problem and not before.problem:
                    log.warning("conductor of %s: %s", name, now.problem)
                self._seen[name] = now
                self._changed(name)
            await self._sleep(self._every_s)


def _problem(error: Exception) -> str:
    """Others than ours are not shown: they may quote what was sent."""
    return str(error) if isinstance(error, ConductorError) else f"cannot be asked: {type(error).__name__}"


def _restarted(before: PoolStatus | None, now: PoolStatus) -> bool:
    return before is not None and before.epoch != now.epoch
