"""The waiting line of one model: tenants in turn by tokens served, each tenant's requests in order of arrival.

The turn is a virtual token counter per tenant: the tenant that was served the fewest tokens goes next. One that
comes back after a pause starts at the level of the others, so idling saves up no claim (VTC, Sheng et al., 2024).
Pure: holds no clock and no future.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many requests may wait in a gateway, all its workers together.

    Beyond it they are refused at once: waiting would not help.
    """

    total: int = 1024
    per_tenant: int = 256


class WaitingLine(Generic[T]):
    """Items of several tenants that wait for the same thing."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}
        self._served: dict[str, float] = {}
        self._floor = 0.0

    def __len__(self) -> int:
        return sum(len(items) for items in self._waiting.values())

    def tenants(self) -> int:
        """How many of them wait."""
        return len(self._waiting)

    def items(self) -> list[T]:
        return [item for items in self._waiting.values() for item in items]

    def add(self, tenant: str, item: T, *, front: bool = False) -> None:
        """`front`: it had its turn already and an engine sent it back; it must not lose its place."""
        if tenant not in self._waiting:
            others = [self._served[name] for name in self._waiting]
            self._served[tenant] = max(self._served.get(tenant, 0.0), min(others, default=self._floor))
            self._waiting[tenant] = deque()
        line = self._waiting[tenant]
        line.appendleft(item) if front else line.append(item)

    def remove(self, tenant: str, item: T) -> bool:
        """Takes out an item that gave up. False when it was not there."""
        line = self._waiting.get(tenant)
        if line is None or item not in line:
            return False
        line.remove(item)
        self._forget_empty(tenant)
        return True

    def next(self) -> T | None:
        """Takes out the item whose turn it is."""
        if not self._waiting:
            return None
        tenant = min(self._waiting, key=lambda name: self._served[name])
        item = self._waiting[tenant].popleft()
        self._floor = self._served[tenant]
        self._forget_empty(tenant)
        return item

    def charge(self, tenant: str, tokens: float) -> None:
        """Counts tokens as served; negative when an estimate was too high."""
        self._served[tenant] = self._served.get(tenant, self._floor) + tokens

    def _forget_empty(self, tenant: str) -> None:
        if not self._waiting[tenant]:
            del self._waiting[tenant]


def whose_turn(tenants: Sequence[int], rng: random.Random) -> int | None:
    """The worker that gets a free slot, when so many tenants wait in each; None when nobody does. Pure."""
    ahead = rng.random() * sum(tenants)
    for worker, waiting in enumerate(tenants):
        ahead -= waiting
        if waiting and ahead < 0:
            return worker
    return None
