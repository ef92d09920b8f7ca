"""Usage batches → ConfigMaps, by any replica at any time: optimistic writes, so that none is added twice or lost."""

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

from cotenant_operator.cluster_errors import ClusterError, ConflictError, NotFoundError
from cotenant_operator.cluster_names import MANAGER, MANAGER_LABEL
from cotenant_operator.kinds import CONFIG_MAPS, Kind, Object
from cotenant_operator.usage_ledger import changes, days_of, ledger_labels, ledger_name
from cotenant_serving.contract_usage import UsageBatch

TRIES = 12
LIMIT_S = 4.0
"""A gateway waits 5 s and sends its batch again: what it has given up must not pile up here while the API server is
away. Whatever was written until then counts once all the same."""


class UsageStoreError(Exception):
    """The batch could not be kept now; send it again."""


class ConfigMaps(Protocol):
    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object: ...

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object: ...

    async def replace(self, kind: Kind, item: Object, *, limit_s: float = 10.0) -> Object: ...


class UsageStore:
    """One at a time within this process; another replica's write is a conflict, and the day is read again."""

    def __init__(self, cluster: ConfigMaps, namespace: str, *, limit_s: float = LIMIT_S) -> None:
        self._cluster, self._namespace, self._limit_s = cluster, namespace, limit_s
        self._turn = asyncio.Lock()

    async def add(self, batch: UsageBatch) -> None:
        """Returns when it is kept. Raises LedgerError, UsageStoreError."""
        days = days_of(batch)
        try:
            async with asyncio.timeout(self._limit_s), self._turn:
                for day in days:
                    await self._add(batch, day)
        except TimeoutError:
            raise UsageStoreError(f"usage cannot be kept now: not within {self._limit_s:g} s") from None

    async def _add(self, batch: UsageBatch, day: str) -> None:
        for attempt in range(TRIES):
            try:
                parts = await self._parts(day)
                for number, data in changes(batch, day, [part.get("data") or {} for part in parts]):
                    await self._write(day, number, data, parts)
                return
            except ConflictError:
                await asyncio.sleep(random.uniform(0.0, 0.05 * (attempt + 1)))  # noqa: S311 - spreads load
            except ClusterError as error:
                raise UsageStoreError(f"usage of {day} cannot be kept now: {error}") from None
        raise UsageStoreError(f"usage of {day} cannot be kept now: others write it all the time")

    async def _parts(self, day: str) -> list[Object]:
        parts: list[Object] = []
        while True:
            try:
                name = ledger_name(day, len(parts))
                parts.append(await self._cluster.get(CONFIG_MAPS, name, self._namespace))
            except NotFoundError:
                return parts

    async def _write(self, day: str, number: int, data: dict[str, str], parts: Sequence[Object]) -> None:
        if number < len(parts):
            await self._cluster.replace(CONFIG_MAPS, {**parts[number], "data": data})
            return
        item = CONFIG_MAPS.new(ledger_name(day, number), self._namespace, data=data)
        item["metadata"]["labels"] = {**ledger_labels(day), MANAGER_LABEL: MANAGER}
        await self._cluster.create(CONFIG_MAPS, item, self._namespace)
