"""Actions → API server: the one place that writes what a pass decided. What fails for one object stops no other."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from cotenant_operator.actions import Apply, Merge, Remove, SetStatus, Tell, Write
from cotenant_operator.cluster_errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
)
from cotenant_operator.instants import utc_micro
from cotenant_operator.kinds import EVENTS, Kind, Object
from cotenant_operator.kube_objects import full_name
from cotenant_operator.lease import FencedError

log = logging.getLogger("cotenant.operator")

AT_ONCE = 16
REPORTER = "cotenant.dev/operator"
_NOTE_BYTES = 1024


class Writer(Protocol):
    async def create(self, kind: Kind, item: Object, namespace: str = "") -> Object: ...

    async def apply(self, kind: Kind, item: Object, *, subresource: str = "") -> bytes: ...

    async def merge(self, kind: Kind, name: str, patch: Object, namespace: str = "") -> Object: ...

    async def delete(
        self, kind: Kind, name: str, namespace: str = "", *, uid: str = "", grace_s: int | None = None
    ) -> None: ...


class CarryOut:
    """Writes as the leader. `written` gets kind, object as it was, and with the status that it has now."""

    def __init__(
        self,
        writer: Writer,
        *,
        instance: str,
        written: Callable[[Kind, Object, Object], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._writer, self._instance, self._written, self._wall = writer, instance, written, wall
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def write(self, writes: Iterable[Write]) -> tuple[bool, str]:
        """One after another. Whether all succeeded, and what the API server does not take, for people.

        What did not succeed is looked at again by the next pass.
        """
        fine, refused = True, ""
        for item in writes:
            try:
                fine &= await self._guarded(_name(item), self._one(item))
            except (InvalidError, ForbiddenError) as error:
                log.warning("%s: %s", _name(item), error)
                refused = refused or f"the API server refuses {_name(item)}: {error.message}"
                fine = False
        return fine, refused

    async def events(self, events: Iterable[Tell]) -> bool:
        """Each at most once: its name is made of what it says, and an Event of that name is one already."""
        return await self._side_by_side((f"event {item.reason}", self._event(item)) for item in events)

    async def statuses(self, statuses: Iterable[SetStatus]) -> bool:
        return await self._side_by_side((_name(item), self._status(item)) for item in statuses)

    async def _side_by_side(self, calls: Iterable[tuple[str, Awaitable[None]]]) -> bool:
        async def one(name: str, call: Awaitable[None]) -> bool:
            async with self._slots:
                try:
                    return await self._guarded(name, call)
                except (InvalidError, ForbiddenError) as error:
                    log.warning("%s: %s", name, error)
                    return False

        return all(await asyncio.gather(*(one(name, call) for name, call in calls)))

    async def _guarded(self, name: str, call: Awaitable[None]) -> bool:
        try:
            await call
        except (FencedError, InvalidError, ForbiddenError):
            raise
        except NotFoundError:
            return True  # it went meanwhile, and so do its dependents
        except ConflictError as error:
            log.info("%s changed meanwhile, it is looked at again: %s", name, error)
            return False
        except ClusterError as error:
            log.warning("%s: %s", name, error)
            return False
        return True

    async def _one(self, item: Write) -> None:
        if isinstance(item, Apply):
            await self._writer.apply(item.kind, item.item)
        elif isinstance(item, Merge):
            await self._writer.merge(item.kind, item.name, item.patch, item.namespace)
        else:
            await self._writer.delete(item.kind, item.name, item.namespace, uid=item.uid, grace_s=item.grace_s)
        log.info("%s %s", type(item).__name__.lower(), _name(item))

    async def _status(self, item: SetStatus) -> None:
        metadata = item.live["metadata"]
        # With the uid: a new object of the same name is another one, and has no status of the old one.
        identity = {name: metadata[name] for name in ("name", "namespace", "uid") if name in metadata}
        body = {
            "apiVersion": item.kind.api_version,
            "kind": item.kind.kind,
            "metadata": identity,
            "status": item.status,
        }
        await self._writer.apply(item.kind, body, subresource="status")
        self._written(item.kind, item.live, {**item.live, "status": item.status})

    async def _event(self, item: Tell) -> None:
        regarding = item.regarding
        metadata = regarding["metadata"]
        namespace = metadata.get("namespace", "default")
        note = item.note.encode()[:_NOTE_BYTES].decode(errors="ignore")
        generation = metadata.get("generation", 0)
        said = f"{metadata['uid']}/{generation}/{item.reason}/{note}"
        event = EVENTS.new(
            f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            namespace,
            eventTime=utc_micro(self._wall()),
            reportingController=REPORTER,
            reportingInstance=self._instance[:128],
            action=item.action,
            reason=item.reason,
            note=note,
            type=item.type,
            regarding={
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                **({"namespace": metadata["namespace"]} if "namespace" in metadata else {}),
            },
        )
        try:
            await self._writer.create(EVENTS, event, namespace)
        except ConflictError:
            pass


def _name(item: Write | SetStatus) -> str:
    if isinstance(item, Apply):
        return f"{item.kind.kind} {item.item['metadata']['name']}"
    if isinstance(item, SetStatus):
        return f"status of {item.kind.kind} {full_name(item.live)}"
    assert isinstance(item, Merge | Remove)
    return f"{item.kind.kind} {item.name}"
