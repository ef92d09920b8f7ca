"""The leader deletes usage that is older than it is to be kept, once a day: whole days, and never a younger one."""

import logging
import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from cotenant_operator.cluster import Listing
from cotenant_operator.cluster_errors import ClusterError, NotFoundError
from cotenant_operator.kinds import CONFIG_MAPS, Kind, Object
from cotenant_operator.kube_objects import labels_of, name_of
from cotenant_operator.usage_ledger import DAY_LABEL, LABEL, ledger_name

log = logging.getLogger("cotenant.operator")


class Reads(Protocol):
    async def list(
        self, kind: Kind, namespace: str = "", *, labels: str = "", metadata_only: bool = False
    ) -> Listing: ...


class Writes(Protocol):
    async def delete(self, kind: Kind, name: str, namespace: str = "", *, uid: str = "") -> None: ...


class UsageRetention:
    """Of one term of a leader. `days` 0: everything is kept."""

    def __init__(
        self, reads: Reads, writes: Writes, namespace: str, days: int, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._reads, self._writes, self._namespace, self._days, self._wall = reads, writes, namespace, days, wall
        self._looked: date | None = None

    async def look(self) -> None:
        """Does nothing when it has been done today. What fails is logged, and tried again at the next look."""
        today = datetime.fromtimestamp(self._wall(), UTC).date()
        if not self._days or self._looked == today:
            return
        try:
            labels = f"{LABEL}=true"
            found = await self._reads.list(CONFIG_MAPS, self._namespace, labels=labels, metadata_only=True)
            old = expired(found.items, today, self._days)
            for item in old:
                await self._delete(item)
        except ClusterError as error:
            log.warning("usage older than %d days cannot be deleted now: %s", self._days, error)
            return
        self._looked = today
        if old:
            log.info("deleted usage older than %d days: %d ConfigMaps", self._days, len(old))

    async def _delete(self, item: Object) -> None:
        try:
            uid = item["metadata"]["uid"]
            await self._writes.delete(CONFIG_MAPS, name_of(item), self._namespace, uid=uid)
        except NotFoundError:
            pass


def expired(ledgers: Iterable[Object], today: date, days: int) -> list[Object]:
    """Of ConfigMaps of usage those that are older than `days` days, the oldest first. Pure.

    What is not named and labelled as the ledger does it is nobody's to delete.
    """
    found = [(day, name_of(item), item) for item in ledgers if (day := _day(item)) is not None]
    return [item for day, _, item in sorted(found, key=lambda one: one[:2]) if today - day > timedelta(days=days)]


def _day(item: Object) -> date | None:
    text = labels_of(item).get(DAY_LABEL, "")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    ours = re.fullmatch(rf"{re.escape(ledger_name(text))}(-[0-9]+)?", name_of(item))
    return day if ours and day.isoformat() == text else None
