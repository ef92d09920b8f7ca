"""Who gets a slot now: the only owner of in-flight counts, waiting lines and what is known about engines.

A request calls `acquire` and gets an engine, waits in its model's line, or fails with the reason. Lines move when a
slot is released, when the table changes, and when a mark on an engine (busy, suspect) runs out: nothing polls for
slots. While someone waits, a slow tick looks whether waiting still makes sense.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cotenant_serving.contract import EngineRow, ModelDemand, ModelRow
from cotenant_serving.gateway import holding, table
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.queue import QueueLimits, WaitingLine
from cotenant_serving.openai_api import RequestError

BUSY_S = 0.05
"""An engine that says it is full is not asked again for so long."""
LOADING_S = 0.25
SUSPECT_S = 1.0
"""An engine that did not answer is not asked again for so long."""
JUDGE_S = 0.25
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
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._limits = limits or QueueLimits()
        self._on_demand = on_demand
        self._view = table.View()
        self._view_at = clock()
        self._lines: dict[str, WaitingLine[Ticket]] = {}
        self._waiting: dict[str, int] = {}
        self._in_flight: dict[str, int] = {}
        self._running: dict[str, int] = {}
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
        line = self._lines.setdefault(ticket.model, WaitingLine())
        if not len(line) and (row := self._pick(ticket.model)) is not None:
            return self._take(line, ticket, row)
        if refused := self._refusal(ticket):
            self._refused.add(ticket.model)
            self._on_demand()
            raise refused
        self._check_room(ticket)
        return await self._wait(line, ticket)

    def release(self, row: EngineRow) -> None:
        _decrease(self._in_flight, row.instance)
        _decrease(self._running, row.model)
        self._pump(row.model)

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
        line = self._lines.get(model)
        return len(line) if line is not None else 0

    def running(self, model: str) -> int:
        return self._running.get(model, 0)

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

    def _pick(self, model: str) -> EngineRow | None:
        now = self._clock()
        marked = {name for name, until in self._marks.items() if until > now}
        return table.pick(self.engines(model), lambda name: self._in_flight.get(name, 0), marked, self._rng)

    def _take(self, line: WaitingLine[Ticket], ticket: Ticket, row: EngineRow) -> EngineRow:
        self._in_flight[row.instance] = self._in_flight.get(row.instance, 0) + 1
        self._running[row.model] = self._running.get(row.model, 0) + 1
        self._served.add(row.model)
        if not ticket.returned:
            line.charge(ticket.tenant, ticket.tokens)
        return row

    async def _wait(self, line: WaitingLine[Ticket], ticket: Ticket) -> EngineRow:
        future: asyncio.Future[EngineRow] = asyncio.get_running_loop().create_future()
        ticket.future = future
        line.add(ticket.tenant, ticket, front=ticket.returned)
        self._waiting[ticket.tenant] = self._waiting.get(ticket.tenant, 0) + 1
        self._on_demand()
        self._schedule_judge()
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
            line.remove(ticket.tenant, ticket)
            _decrease(self._waiting, ticket.tenant)

    def _pump(self, model: str) -> None:
        line = self._lines.get(model)
        while line is not None and len(line) and (row := self._pick(model)) is not None:
            ticket = line.next()
            if ticket is not None and ticket.future is not None and not ticket.future.done():
                ticket.future.set_result(self._take(line, ticket, row))

    def _check_room(self, ticket: Ticket) -> None:
        if ticket.returned:
            return
        if self._waiting.get(ticket.tenant, 0) >= self._limits.per_tenant:
            raise error(
                "queue_full",
                f"{self._limits.per_tenant} requests of tenant '{ticket.tenant}' wait already.",
                retry_after_s=1,
            )
        if sum(self._waiting.values()) >= self._limits.total:
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
        if self._waiting:
            self._schedule_judge()


def _decrease(counts: dict[str, int], name: str) -> None:
    left = counts.get(name, 0) - 1
    if left > 0:
        counts[name] = left
    else:
        counts.pop(name, None)
