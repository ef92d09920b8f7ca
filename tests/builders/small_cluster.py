"""An API server in memory, with what a whole operator needs of it: lists, watches, and the writes of a leader."""

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import orjson

from cotenant_operator.cluster import Event, EventType, Listing
from cotenant_operator.cluster_errors import ConflictError, NotFoundError
from cotenant_operator.kinds import Key, Kind, Object


class SmallCluster:
    """In place of `cluster.Cluster`. Nothing acts on what is written, and no object goes with its owner."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, int], int] = {}
        self.written: list[tuple[str, Object]] = []
        """(kind, object) in order; of a status, what was applied."""
        self._objects: dict[Kind, dict[Key, Object]] = {}
        self._watches: list[tuple[Kind, str, str, asyncio.Queue[Event]]] = []
        self._version = 0

    def all(self, kind: Kind) -> dict[Key, Object]:
        return self._objects.setdefault(kind, {})

    def put(self, kind: Kind, item: Object) -> Object:
        """As the API server would have it after somebody wrote it."""
        self._version += 1
        item = copy.deepcopy(item)
        metadata = item["metadata"]
        metadata.setdefault("uid", f"uid-{kind.plural}-{metadata['name']}-{self._version}")
        metadata.setdefault("generation", 1)
        metadata["resourceVersion"] = str(self._version)
        key: Key = (metadata.get("namespace", ""), metadata["name"])
        known = key in self.all(kind)
        self.all(kind)[key] = item
        self._tell(kind, "MODIFIED" if known else "ADDED", item)
        return copy.deepcopy(item)

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        await asyncio.sleep(0)
        try:
            return copy.deepcopy(self.all(kind)[namespace, name])
        except KeyError:
            raise NotFoundError(name, status=404) from None

    async def list(
        self, kind: Kind, namespace: str = "", *, labels: str = "", metadata_only: bool = False
    ) -> Listing:
        await asyncio.sleep(0)
        items = [item for item in self.all(kind).values() if _chosen(item, namespace, labels)]
        return Listing(copy.deepcopy(items), str(self._version))

    async def watch(
        self, kind: Kind, namespace: str = "", *, since: str, labels: str = "", silence_s: float
    ) -> AsyncIterator[Event]:
        place = (kind, namespace, labels, asyncio.Queue[Event]())
        self._watches.append(place)
        try:
            for item in list(self.all(kind).values()):
                if int(item["metadata"]["resourceVersion"]) > int(since) and _chosen(item, namespace, labels):
                    yield Event("MODIFIED", copy.deepcopy(item))
            while True:
                yield await place[3].get()
        finally:
            self._watches.remove(place)

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object:
        await asyncio.sleep(0)
        if (item["metadata"].get("namespace", ""), item["metadata"]["name"]) in self.all(kind):
            raise ConflictError("exists", status=409)
        self.written.append((kind.kind, item))
        return self.put(kind, item)

    async def apply(self, kind: Kind, item: Object, *, subresource: str = "", limit_s: float = 10.0) -> bytes:
        await asyncio.sleep(0)
        self.written.append((kind.kind, copy.deepcopy(item)))
        key: Key = (item["metadata"].get("namespace", ""), item["metadata"]["name"])
        live = self.all(kind).get(key)
        if subresource and live is None:
            raise NotFoundError(key[1], status=404)
        before = live or {"metadata": {}}
        now = {**before, **({subresource: item[subresource]} if subresource else item)}
        now["metadata"] = {**before["metadata"], **item["metadata"]}
        return orjson.dumps(self.put(kind, now))

    async def merge(self, kind: Kind, name: str, patch: Object, namespace: str = "") -> Object:
        raise AssertionError(f"{kind.kind} {name} is merged with {patch}")

    async def replace(self, kind: Kind, item: Object, *, limit_s: float = 10.0) -> Object:
        await asyncio.sleep(0)
        live = await self.get(kind, item["metadata"]["name"], item["metadata"].get("namespace", ""))
        if live["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            raise ConflictError("changed", status=409)
        return self.put(kind, item)

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", grace_s: int | None = None
    ) -> None:
        await asyncio.sleep(0)
        if (gone := self.all(kind).pop((namespace, name), None)) is None:
            raise NotFoundError(name, status=404)
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell(kind, "DELETED", gone)

    def _tell(self, kind: Kind, type_: EventType, item: Object) -> None:
        for watched, namespace, labels, queue in self._watches:
            if watched is kind and _chosen(item, namespace, labels):
                queue.put_nowait(Event(type_, copy.deepcopy(item)))


def _chosen(item: Object, namespace: str, labels: str) -> bool:
    have: dict[str, Any] = item["metadata"].get("labels") or {}
    wanted = [word.partition("=") for word in labels.split(",") if word]
    return (not namespace or item["metadata"].get("namespace") == namespace) and all(
        name in have and (not sign or have[name] == value) for name, sign, value in wanted
    )
