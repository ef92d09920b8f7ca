"""How many requests wait, of each tenant and in all: bounds over all workers of a gateway, and how fast they move."""

from cotenant_serving.gateway.board import Board, Count
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.queue import Pace, QueueLimits
from cotenant_serving.openai_api import RequestError

MAX_EXCESS = 64
"""How far beyond the bound in all requests may wait for the moment until another worker has made room."""


class _Tenant:
    __slots__ = ("count", "pace")

    def __init__(self, tenant: str, board: Board) -> None:
        self.count = board.count(f"waiting of {tenant}")
        self.pace = Pace(board.number(f"waited of {tenant}"))


class Waiting:
    """Names of tenants that ever waited here stay: there are not many."""

    def __init__(self, board: Board, limits: QueueLimits) -> None:
        self._board, self._limits = board, limits
        self._all = board.count("waiting")
        self._longest = board.count("longest wait")
        """The most that one tenant has in each worker; too much for up to `recount`'s period."""
        self._pace = Pace(board.number("waited"))
        self._tenants: dict[str, _Tenant] = {}

    @property
    def own(self) -> int:
        """In this worker."""
        return self._all.own()

    def of(self, tenant: str) -> int:
        """Over all workers."""
        return self._of(tenant).count.total()

    def take_own_place(self, tenant: str, now: float, unknown_s: float) -> None:
        """One of the tenant's places; `take_place` or `force` must follow. Raises RequestError without any."""
        one = self._of(tenant)
        _begin(one.pace, one.count, now)
        if not one.count.take(self._limits.per_tenant):
            message = f"{self._limits.per_tenant} requests of tenant '{tenant}' wait already."
            raise self.full(tenant, message, now, unknown_s)
        if one.count.own() > self._longest.own():
            self._longest.set(one.count.own())

    def take_place(self, now: float) -> bool:
        """One of the places in all, if there is one; no two workers take it at the same time."""
        _begin(self._pace, self._all, now)
        return self._all.take(self._limits.total)

    def force(self, tenant: str, now: float, *, own: bool = False) -> None:
        """A place though there is none. `own`: one of the tenant's, too."""
        _begin(self._pace, self._all, now)
        self._all.add(1)
        if own:
            one = self._of(tenant)
            _begin(one.pace, one.count, now)
            one.count.add(1)

    def leave(self, tenant: str) -> None:
        one = self._of(tenant)
        one.count.add(-1)
        one.pace.moved()
        self._all.add(-1)
        self._pace.moved()

    def overloaded(self, tenant: str, now: float, unknown_s: float) -> RequestError:
        """Takes back what `take_own_place` gave."""
        self._of(tenant).count.add(-1)
        wait_s = self._pace.time_for_s(self._all.total(), now) or unknown_s
        return error("overloaded", f"{self._limits.total} requests wait already.", retry_after_s=wait_s)

    def full(self, tenant: str, message: str, now: float, unknown_s: float) -> RequestError:
        """Retry-After: until those that wait now do no more, at the pace of the last seconds."""
        one = self._of(tenant)
        wait_s = one.pace.time_for_s(one.count.total(), now) or unknown_s
        return error("queue_full", message, retry_after_s=wait_s)

    def longest_here(self) -> str | None:
        """The tenant that has the most places of those that have any in this worker."""
        here = [name for name, one in self._tenants.items() if one.count.own()]
        return max(here, key=self.of, default=None)

    def elsewhere_beyond(self, number: int) -> int | None:
        """The worker where one tenant has more than so many places, and the most of all."""
        parts = self._longest.parts()
        most = max(parts)
        wanted = most > number and self._all.total() < self._limits.total + MAX_EXCESS
        return list(parts).index(most) if wanted else None

    def excess(self) -> bool:
        """There are too many, and it is this worker that should make room."""
        return self._all.total() > self._limits.total and self._longest.own() >= max(self._longest.parts())

    def recount(self) -> None:
        most = max((one.count.own() for one in self._tenants.values()), default=0)
        self._longest.set(most)

    def _of(self, tenant: str) -> _Tenant:
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[tenant] = _Tenant(tenant, self._board)
        return found


def _begin(pace: Pace, count: Count, now: float) -> None:
    if not count.own():
        pace.begin(now)
