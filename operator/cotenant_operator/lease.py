"""Which of several operators writes: a Kubernetes Lease, and the fence around every write.

As client-go does it: whoever holds the Lease renews it every 2 s; another one takes it when it has not been renewed
for 15 s by the other's own clock. A holder that could not renew for 10 s writes nothing any more, so that its last
write, bounded to 4 s, has ended before anybody else begins. Clocks of different machines are never compared.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from cotenant_operator.cluster_errors import ClusterError, ConflictError, NotFoundError
from cotenant_operator.instants import utc_micro
from cotenant_operator.kinds import LEASES, Kind, Object

log = logging.getLogger("cotenant.operator")

T = TypeVar("T")
DURATION_S, RENEW_S, RETRY_S, WRITE_S = 15.0, 10.0, 2.0, 4.0


class FencedError(ClusterError):
    """This operator does not lead, so it writes nothing."""


class Leases(Protocol):
    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object: ...

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object: ...

    async def replace(self, kind: Kind, item: Object, *, limit_s: float = WRITE_S) -> Object: ...


class Election:
    """One candidate. `identity` must be new for every process."""

    def __init__(
        self,
        leases: Leases,
        *,
        namespace: str,
        name: str,
        identity: str,
        changed: Callable[[bool], None] = lambda leads: None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._leases, self._namespace, self._name, self._identity = leases, namespace, name, identity
        self._changed, self._monotonic, self._wall, self._sleep = changed, monotonic, wall, sleep
        self._until_s = float("-inf")
        self._seen: tuple[object, float] = (None, float("-inf"))
        self._told = False

    def leads(self) -> bool:
        """May this process write now?"""
        return self._monotonic() < self._until_s

    async def run(self) -> None:
        """For ever: take it when it is free, keep it when it is ours."""
        while True:
            await self.step()
            await self._sleep(RETRY_S * (1.0 if self.leads() else 1.0 + random.random() / 5))  # noqa: S311

    async def step(self) -> None:
        """One attempt to take or to renew it."""
        began_s = self._monotonic()
        try:
            held = await self._hold(began_s)
        except ConflictError:
            held = False
        except ClusterError as error:
            log.warning("lease %s: %s", self._name, error)
            held = False
        if held:
            self._until_s = began_s + RENEW_S
        self._tell()

    async def release(self) -> None:
        """Let the next one begin at once. For an orderly end, after the last write."""
        if not self.leads():
            return
        self._until_s = float("-inf")
        with contextlib.suppress(ClusterError):
            lease = await self._leases.get(LEASES, self._name, self._namespace)
            if lease.get("spec", {}).get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._leases.replace(LEASES, lease, limit_s=WRITE_S)
        self._tell()

    async def _hold(self, now_s: float) -> bool:
        try:
            lease = await self._leases.get(LEASES, self._name, self._namespace)
        except NotFoundError:
            new = LEASES.new(self._name, self._namespace, spec=self._spec({}))
            await self._leases.create(LEASES, new, self._namespace)
            return True
        spec: dict[str, Any] = lease.get("spec") or {}
        if not self._may_take(spec, lease["metadata"].get("resourceVersion"), now_s):
            return False
        lease["spec"] = self._spec(spec)
        await self._leases.replace(LEASES, lease, limit_s=WRITE_S)
        return True

    def _may_take(self, spec: dict[str, Any], version: object, now_s: float) -> bool:
        holder = spec.get("holderIdentity") or ""
        if not holder or holder == self._identity:
            return True
        if (holder, version) != self._seen[0]:  # it was renewed; when, by whose clock ever, does not matter
            self._seen = ((holder, version), now_s)
        return now_s - self._seen[1] >= max(DURATION_S, float(spec.get("leaseDurationSeconds") or 0))

    def _spec(self, before: dict[str, Any]) -> dict[str, Any]:
        now = utc_micro(self._wall())
        ours = before.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION_S),
            "acquireTime": before.get("acquireTime") if ours else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if ours or not before else 1),
        }

    def _tell(self) -> None:
        leads = self.leads()
        if leads != self._told:
            self._told = leads
            log.info("this operator leads" if leads else "this operator does not lead")
            self._changed(leads)


class Writes(Protocol):
    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object: ...

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object: ...

    async def apply(self, kind: Kind, item: Object, *, subresource: str = "", limit_s: float = WRITE_S) -> bytes: ...

    async def merge(self, kind: Kind, name: str, patch: Object, namespace: str = "") -> Object: ...

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", grace_s: int | None = None
    ) -> None: ...


class LeaderWrites:
    """Every write of the leader goes through here: refused (FencedError) when it does not lead, bounded in time."""

    def __init__(self, writes: Writes, leads: Callable[[], bool]) -> None:
        self._writes, self._leads = writes, leads

    def check(self) -> None:
        """Before each write here, and before a word to others than the API server. Raises FencedError."""
        if not self._leads():
            raise FencedError("this operator does not lead, so it writes nothing")

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        """Reading needs no fence."""
        return await self._writes.get(kind, name, namespace)

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object:
        self.check()
        return await self._bounded(self._writes.create(kind, item, namespace))

    async def apply(self, kind: Kind, item: Object, *, subresource: str = "") -> bytes:
        self.check()
        return await self._writes.apply(kind, item, subresource=subresource, limit_s=WRITE_S)

    async def merge(self, kind: Kind, name: str, patch: Object, namespace: str = "") -> Object:
        self.check()
        return await self._bounded(self._writes.merge(kind, name, patch, namespace))

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", grace_s: int | None = None
    ) -> None:
        self.check()
        await self._bounded(self._writes.delete(kind, name, namespace, uid=uid, grace_s=grace_s))

    async def _bounded(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(WRITE_S):
                return await call
        except TimeoutError:
            raise ClusterError(f"a write took longer than {WRITE_S:g} s") from None
