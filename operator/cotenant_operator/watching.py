"""One kind of objects, kept as the API server has them: list once, then follow the changes.

A watch goes on where it stopped (bookmarks keep that place young), is opened anew when it falls silent, and the kind
is listed again when the place is too old. What was known stays known while the API server is away.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from cotenant_operator.cluster import Event, Listing
from cotenant_operator.cluster_errors import ClusterError, GoneError, NotFoundError, SilentError
from cotenant_operator.kinds import Key, Kind, Object, key_of

log = logging.getLogger("cotenant.operator")

ABSENT_S = 3.0
"""A kind that is not installed is looked for this often."""
DOUBTS, _NOT_NOW = 5, (0, 429, 503)
"""After so many refusals in a row the place may be one that this API server never had, as after a restore of etcd:
the kind is listed again. Not when there is no answer, or when it has too much to do already."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0

Changed = Callable[[Object | None, Object | None], None]
"""(before, now): None where there was or is none."""
Kept = Callable[[Object], Object]
"""An object as it is kept: without what nobody reads."""
Sleep = Callable[[float], Awaitable[None]]


class Source(Protocol):
    async def list(self, kind: Kind, namespace: str = "", *, labels: str = "") -> Listing: ...

    def watch(
        self, kind: Kind, namespace: str = "", *, since: str, labels: str = "", silence_s: float
    ) -> AsyncIterator[Event]: ...


def pause_s(failures: int, asked_s: float = 0.0, part: float | None = None) -> float:
    """How long to wait after so many failures in a row: doubling, spread over its upper half, at least as asked."""
    spread = random.random() if part is None else part  # noqa: S311 - spreads load
    longest: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, 10))
    return max(longest * (0.5 + spread / 2), asked_s)


class Watched:
    """Owns the objects of one kind. Read `objects`; nobody else changes it but `put`."""

    def __init__(
        self,
        source: Source,
        kind: Kind,
        namespace: str = "",
        *,
        labels: str = "",
        changed: Changed = lambda before, now: None,
        kept: Kept = lambda item: item,
        silence_s: float = 75.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.kind = kind
        self.objects: dict[Key, Object] = {}
        self.synced = False
        """Everything was listed at least once, or the kind is known to be absent."""
        self.absent = False
        """The API server has no such kind."""
        self.problem = ""
        """Why changes are not seen now; empty while they are."""
        self._source, self._namespace, self._labels = source, namespace, labels
        self._changed, self._kept, self._silence_s, self._sleep = changed, kept, silence_s, sleep
        self._since = ""

    async def run(self) -> None:
        """For ever."""
        failures = 0
        while True:
            try:
                if not self._since:
                    await self._list()
                async for event in self._source.watch(
                    self.kind,
                    self._namespace,
                    since=self._since,
                    labels=self._labels,
                    silence_s=self._silence_s,
                ):
                    self._take(event)
                    failures = 0
            except GoneError:
                self._since = ""
                failures += 1
                wait_s = pause_s(failures) if failures > 1 else 0.0
            except SilentError:
                log.info("%s: nothing was said for a while; watched anew", self.kind.plural)
                wait_s = FIRST_PAUSE_S
            except NotFoundError:
                self._lose_kind()
                wait_s = ABSENT_S
            except ClusterError as error:
                failures += 1
                wait_s = pause_s(failures, error.retry_after_s)
                self._say(str(error))
                if failures % DOUBTS == 0 and error.status not in _NOT_NOW:
                    self._since = ""
            else:
                wait_s = FIRST_PAUSE_S  # the server ended it, as it was asked to
            await self._sleep(wait_s)

    def put(self, before: Object, now: Object) -> None:
        """What was just written, until the watch says the same; unless it has said something newer already."""
        if self.objects.get(key_of(before)) is before:
            self.objects[key_of(before)] = now

    async def _list(self) -> None:
        listing = await self._source.list(self.kind, self._namespace, labels=self._labels)
        if self.absent:
            log.info("%s: the kind is there now", self.kind.plural)
        before, self.objects = self.objects, {}
        self.synced, self.absent, self.problem = True, False, ""
        self._since = listing.resource_version
        for item in listing.items:
            # The API server leaves these out in lists of its own kinds.
            item.setdefault("apiVersion", self.kind.api_version)
            item.setdefault("kind", self.kind.kind)
            self._store(item, before.pop(key_of(item), None))
        for gone in before.values():
            self._changed(gone, None)

    def _take(self, event: Event) -> None:
        self._since = event.object["metadata"]["resourceVersion"]
        if self.problem:
            log.info("%s: watched again", self.kind.plural)
            self.problem = ""
        if event.type == "BOOKMARK":
            return
        if event.type == "DELETED":
            gone = self.objects.pop(key_of(event.object), None)
            self._changed(gone or event.object, None)
        else:
            self._store(event.object, self.objects.get(key_of(event.object)))

    def _store(self, item: Object, before: Object | None) -> None:
        item["metadata"].pop("managedFields", None)  # half of an object, and nobody here reads it
        item = self._kept(item)
        self.objects[key_of(item)] = item
        if before is None or before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            self._changed(before, item)

    def _lose_kind(self) -> None:
        first = not self.absent
        gone, self.objects, self._since = list(self.objects.values()), {}, ""
        self.synced, self.absent, self.problem = True, True, ""
        if first:
            log.warning("%s: the cluster has no such kind (%s)", self.kind.plural, self.kind.api_version)
        for item in gone:
            self._changed(item, None)

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("%s: %s", self.kind.plural, problem)
        self.problem = problem
