"""ConfigMaps without an API server, for the ledger of usage."""

import asyncio
import copy

from cotenant_operator.cluster_errors import ConflictError, NotFoundError, UnreachableError
from cotenant_operator.kinds import Kind, Object
from cotenant_operator.usage_ledger import usage_of


class ConfigMaps:
    """Of one namespace, as an API server keeps them: a write of an old version is refused."""

    def __init__(self) -> None:
        self.maps: dict[str, Object] = {}
        self.down = False
        self.answers = asyncio.Event()
        self.answers.set()
        self._version = 0

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        await asyncio.sleep(0)
        await self.answers.wait()
        if self.down:
            raise UnreachableError("no answer")
        if name not in self.maps:
            raise NotFoundError(name, status=404)
        return copy.deepcopy(self.maps[name])

    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object:
        await asyncio.sleep(0)
        if item["metadata"]["name"] in self.maps:
            raise ConflictError("exists", status=409)
        return self._keep(item)

    async def replace(self, kind: Kind, item: Object, *, limit_s: float = 10.0) -> Object:
        await asyncio.sleep(0)
        if item["metadata"]["resourceVersion"] != self.maps[item["metadata"]["name"]]["metadata"]["resourceVersion"]:
            raise ConflictError("changed", status=409)
        return self._keep(item)

    def _keep(self, item: Object) -> Object:
        self._version += 1
        kept = copy.deepcopy(item)
        kept["metadata"]["resourceVersion"] = str(self._version)
        self.maps[item["metadata"]["name"]] = kept
        return kept

    def requests(self) -> int:
        return usage_of([item["data"] for item in self.maps.values()], ["tenant"], None).total.requests
