"""Who gets a slot now: the only owner of in-flight counts, waiting lines and what is known about engines.

A request calls `acquire` and gets an engine, waits in its model's line, or fails with the reason. Lines move when a
slot is released, when the table changes, and when a mark on an engine (busy, suspect) runs out. While someone waits,
a slow tick looks whether waiting still makes sense, and whether a slot was left by a worker that died.

The workers of a gateway share the counts (`board`), so no engine gets more than its slots and bounds hold over all
of them. Each has lines of its own: when others wait too, a free slot goes to one of them in proportion to how many
tenants wait there (`whose_turn`), who is woken for it (`wake`).
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cotenant_serving.contract import EngineRow, ModelDemand, ModelRow
from cotenant_serving.gateway import holding, table
from cotenant_serving.gateway.board import Board, Count, LocalBoard
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.queue import QueueLimits, WaitingLine, whose_turn
from cotenant_serving.openai_api import RequestError

BUSY_S = 0.05
"""An engine that says it is full is not asked again for so long."""
LOADING_S = 0.25
SUSPECT_S = 1.0
"""An engine that did not answer is not asked again for so long."""
JUDGE_S = 0.25
HANDOVER_S = 0.02
"""A slot that was left to another worker is looked at again after this time: it may not want it any more."""
_TOMBSTONES = 4096


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's claim on an engine of `model`. Times are seconds of the dispatcher's clock."""

    model: str
    tenant: str
    tokens: int
    entered: float
    deadline: float
    returned: bool = False
    """An engine sent it back: it goes to the front and is not refused for a full queue."""
    future: asyncio.Future[EngineRow] | None = field(default=None)


class Dispatcher:
    def __init__(
        self,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        limits: QueueLimits | None = None,
        on_demand: Callable[[], None] = lambda: None,
        board: Board | None = None,
        worker: int = 0,
        wake: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`worker`: this one's number among those that share the board. `wake` makes another one call `woken`."""
        self._board: Board = board or LocalBoard()
        self._worker, self._wake = worker, wake
        self._clock = clock
        self._rng = rng
        self._limits = limits or QueueLimits()
        self._on_demand = on_demand
        self._view = table.View()
        self._view_at = clock()
        self._lines: dict[str, WaitingLine[Ticket]] = {}
        self._waiting = self._board.count("waiting")
        self._counts: dict[str, Count] = {}
        self._running: dict[str, int] = {}
        """Of this worker only, as is its demand."""
        self._marks: dict[str, float] = {}
        self._failing: set[str] = set()
        self._dropped: dict[str, None] = {}
        self._silent: set[str] = set()
        self._refused: set[str] = set()
        self._served: set[str] = set()
        self._unreachable_since: float | None = clock()
        self._judge_timer: asyncio.TimerHandle | None = None

    # What others tell it.

    def set_view(self, view: table.View) -> None:
        self._view, self._view_at = view, self._clock()
        self._silent -= view.listed
        known = {row.instance for rows in view.engines.values() for row in rows}
        self._marks = {name: until for name, until in self._marks.items() if name in known}
        self._failing &= known
        for model in list(self._lines):
            self._judge(model)
            self._pump(model)

    def set_reachable(self, reachable: bool) -> None:
        """Whether any conductor answers."""
        if reachable:
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = self._clock()

    # What a request does.

    async def acquire(self, ticket: Ticket) -> EngineRow:
        """An engine with a slot taken for this request; `release` gives it back.

        Raises RequestError when the line is full, when waiting is pointless, or when the deadline has passed.
        """
        if (row := self.at_once(ticket)) is not None:
            return row
        line = self._lines[ticket.model]
        if refused := self._refusal(ticket):
            self._refused.add(ticket.model)
            self._on_demand()
            raise refused
        self._count_waiting(ticket)
        return await self._wait(line, ticket)

    def at_once(self, ticket: Ticket) -> EngineRow | None:
        """As `acquire`, but None when the request would have to wait."""
        line = self._lines.setdefault(ticket.model, WaitingLine())
        if not len(line) and not self._depth(ticket.model).total() and (row := self._slot(ticket.model)) is not None:
            return self._take(line, ticket, row)
        return None

    def release(self, row: EngineRow) -> None:
        self._taken(row).add(-1)
        self._count(f"running {row.model}").add(-1)
        _decrease(self._running, row.model)
        self._pass_on(row.model)

    def woken(self) -> None:
        """Another worker left a slot to this one."""
        for model in self._lines:
            self._pump(model)

    def settle(self, ticket: Ticket, actual_tokens: int) -> None:
        """Corrects the fairness account of a request that had an engine."""
        self._lines[ticket.model].charge(ticket.tenant, actual_tokens - ticket.tokens)

    def answered(self, row: EngineRow) -> None:
        self._failing.discard(row.instance)

    def mark(self, row: EngineRow, for_s: float) -> None:
        """The engine is not asked for so many seconds."""
        self._marks[row.instance] = self._clock() + for_s
        asyncio.get_running_loop().call_later(for_s + 0.001, self._pump, row.model)

    def suspect(self, row: EngineRow) -> None:
        """The engine did not answer. A row that no conductor names any more goes at once."""
        self._failing.add(row.instance)
        if row.instance not in self._view.listed:
            self._silent.add(row.instance)
        self._judge(row.model)
        self.mark(row, SUSPECT_S)

    def drop(self, row: EngineRow) -> None:
        """The instance is gone for good (421, draining): an older table must not bring it back."""
        self._dropped[row.instance] = None
        while len(self._dropped) > _TOMBSTONES:
            del self._dropped[next(iter(self._dropped))]
        self._judge(row.model)

    # What others ask it.

    def model_row(self, model: str) -> ModelRow | None:
        return self._view.models.get(model)

    def eta_s(self, model: str) -> float | None:
        """Seconds from now until an engine is expected; the table's number, less its age."""
        row = self._view.models.get(model)
        if row is None or row.eta_s is None:
            return None
        return max(0.0, row.eta_s - (self._clock() - self._view_at))

    def demand(self) -> dict[str, ModelDemand]:
        """Running and waiting requests of each model.

        What came and went since the last call counts as one: short requests keep a model awake, refused ones wake it.
        """
        queued = dict.fromkeys(self._refused, 1)
        queued |= {model: len(line) for model, line in self._lines.items() if len(line)}
        running = dict.fromkeys(self._served, 1) | self._running
        self._refused, self._served = set(), set()
        models = sorted(queued.keys() | running.keys())
        return {model: ModelDemand(running=running.get(model, 0), queued=queued.get(model, 0)) for model in models}

    def unheard(self, demand: Mapping[str, ModelDemand]) -> None:
        """No conductor took this answer of `demand`: what came and went stands in the next one too."""
        self._refused |= {model for model, one in demand.items() if one.queued}
        self._served |= {model for model, one in demand.items() if one.running}

    def queue_depth(self, model: str) -> int:
        """Over all workers."""
        return self._depth(model).total()

    def running(self, model: str) -> int:
        """Over all workers."""
        return self._count(f"running {model}").total()

    def engines(self, model: str) -> tuple[EngineRow, ...]:
        rows = self._view.engines.get(model, ())
        return tuple(row for row in rows if row.instance not in self._dropped and row.instance not in self._silent)

    def unready(self, model: str) -> RequestError | None:
        """Why nothing would answer a request for the model now, not even after a wake; None when something would."""
        if any(row.instance not in self._failing for row in self.engines(model)):
            return None
        since = self._unreachable_since
        unreachable_s = None if since is None else self._clock() - since
        return holding.unready(model, self.model_row(model), eta_s=self.eta_s(model), unreachable_s=unreachable_s)

    # How it works.

    def _slot(self, model: str) -> EngineRow | None:
        """An engine with a slot taken on it."""
        now = self._clock()
        unavailable = {name for name, until in self._marks.items() if until > now}
        rows = self.engines(model)
        while True:
            taken = {row.instance: self._taken(row).total() for row in rows}
            row = table.pick(rows, taken.__getitem__, unavailable, self._rng)
            if row is None or self._taken(row).take(row.slots):
                return row
            unavailable.add(row.instance)  # another worker was quicker

    def _take(self, line: WaitingLine[Ticket], ticket: Ticket, row: EngineRow) -> EngineRow:
        self._count(f"running {row.model}").add(1)
        self._running[row.model] = self._running.get(row.model, 0) + 1
        self._served.add(row.model)
        if not ticket.returned:
            line.charge(ticket.tenant, ticket.tokens)
        return row

    def _count(self, name: str) -> Count:
        known = self._counts.get(name)
        if known is None:
            known = self._counts[name] = self._board.count(name)
        return known

    def _taken(self, row: EngineRow) -> Count:
        """Slots taken of an engine. By its address: those are few, instances are new for each start."""
        return self._count(f"engine {row.host}:{row.port}")

    def _depth(self, model: str) -> Count:
        return self._count(f"waiting for {model}")

    def _tenants(self, model: str) -> Count:
        """Who waits for it in each worker."""
        return self._count(f"tenants waiting for {model}")

    async def _wait(self, line: WaitingLine[Ticket], ticket: Ticket) -> EngineRow:
        future: asyncio.Future[EngineRow] = asyncio.get_running_loop().create_future()
        ticket.future = future
        line.add(ticket.tenant, ticket, front=ticket.returned)
        self._count_line(ticket.model, 1)
        self._on_demand()
        self._schedule_judge()
        if self._depth(ticket.model).total() > len(line):
            asyncio.get_running_loop().call_later(HANDOVER_S, self._pump, ticket.model)
        try:
            async with asyncio.timeout(max(0.0, ticket.deadline - self._clock())):
                return await future
        except BaseException as problem:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())  # the slot came at the very moment the request gave up
            if isinstance(problem, TimeoutError):
                raise self._too_long(ticket.model) from None
            raise
        finally:
            if line.remove(ticket.tenant, ticket):
                self._waits_no_more(ticket)

    def _waits_no_more(self, ticket: Ticket) -> None:
        self._waiting.add(-1)
        self._count(f"waiting of {ticket.tenant}").add(-1)
        self._count_line(ticket.model, -1)

    def _count_line(self, model: str, change: int) -> None:
        """The line has got longer or shorter by so many requests."""
        self._depth(model).add(change)
        tenants = self._tenants(model)
        tenants.add(self._lines[model].tenants() - tenants.own())

    def _pass_on(self, model: str) -> None:
        """A slot is free: for whom?"""
        waiting = self._tenants(model).parts()
        turn = whose_turn(waiting, self._rng)
        if turn is None or turn == self._worker:
            self._pump(model)
            return
        self._wake(turn)
        if waiting[self._worker]:
            asyncio.get_running_loop().call_later(HANDOVER_S, self._pump, model)

    def _pump(self, model: str) -> None:
        line = self._lines.get(model)
        while line is not None and len(line) and (row := self._slot(model)) is not None:
            ticket = line.next()
            if ticket is not None:
                self._waits_no_more(ticket)
            if ticket is not None and ticket.future is not None and not ticket.future.done():
                ticket.future.set_result(self._take(line, ticket, row))
            else:
                self._taken(row).add(-1)

    def _count_waiting(self, ticket: Ticket) -> None:
        """Raises RequestError when too many wait already; no two workers count at the same time."""
        of_tenant = self._count(f"waiting of {ticket.tenant}")
        if ticket.returned:
            of_tenant.add(1)
            self._waiting.add(1)
            return
        if not of_tenant.take(self._limits.per_tenant):
            raise error(
                "queue_full",
                f"{self._limits.per_tenant} requests of tenant '{ticket.tenant}' wait already.",
                retry_after_s=1,
            )
        if not self._waiting.take(self._limits.total):
            of_tenant.add(-1)
            raise error("overloaded", f"{self._limits.total} requests wait already.", retry_after_s=1)

    def _refusal(self, ticket: Ticket) -> RequestError | None:
        if any(row.instance not in self._failing for row in self.engines(ticket.model)):
            return None
        now = self._clock()
        since = self._unreachable_since
        return holding.refusal(
            ticket.model,
            self.model_row(ticket.model),
            eta_s=self.eta_s(ticket.model),
            remaining_s=ticket.deadline - now,
            unreachable_s=None if since is None else now - max(since, ticket.entered),
        )

    def _too_long(self, model: str) -> RequestError:
        return holding.held_too_long(model, self.model_row(model), eta_s=self.eta_s(model))

    def _judge(self, model: str) -> None:
        for ticket in self._lines[model].items() if model in self._lines else ():
            refused = self._refusal(ticket)
            if refused is not None and ticket.future is not None and not ticket.future.done():
                ticket.future.set_exception(refused)

    def _schedule_judge(self) -> None:
        if self._judge_timer is None:
            self._judge_timer = asyncio.get_running_loop().call_later(JUDGE_S, self._judge_all)

    def _judge_all(self) -> None:
        self._judge_timer = None
        for model in self._lines:
            self._judge(model)
            self._pump(model)
        if self._waiting.own():
            self._schedule_judge()


def _decrease(counts: dict[str, int], name: str) -> None:
    left = counts.get(name, 0) - 1
    if left > 0:
        counts[name] = left
    else:
        counts.pop(name, None)
