"""Who gets a slot now: the only owner of in-flight counts, waiting lines and what is known about engines.

A request calls `acquire` and gets an engine, waits in its model's line, or fails with the reason. Lines move when a
slot is released, when the table changes, and when a mark on an engine (busy, suspect) runs out. While someone waits,
a slow tick looks whether waiting still makes sense, and whether a slot was left by a worker that died.

The workers of a gateway share the counts (`board`), so no engine gets more than its slots and bounds hold over all
of them, and the tenants' levels, so turns do too (`queue`). Each has lines of its own: a free slot goes to the worker
where the tenant waits whose turn it is (`whose_turn`), who is woken for it (`wake`).
"""

import asyncio
import random
from collections.abc import Callable, Mapping

from cotenant_serving.contract_gateway import EngineRow, ModelDemand
from cotenant_serving.gateway import holding, table
from cotenant_serving.gateway.board import Board, LocalBoard
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.fleet import Fleet
from cotenant_serving.gateway.lane import Engine, Lane, Ticket
from cotenant_serving.gateway.queue import HANDOVER_SLACK, Pace, QueueLimits, whose_turn
from cotenant_serving.gateway.waiting import Waiting
from cotenant_serving.openai_api import RequestError

BUSY_S = 0.05
"""An engine that says it is full is not asked again for so long."""
LOADING_S = 0.25
SUSPECT_S = 1.0
"""An engine that did not answer is not asked again for so long."""
JUDGE_S = 0.25
HANDOVER_S = 0.02
"""A slot that was left to another worker is looked at again after this time: it may not want it any more."""
HOPELESS = 1.5
"""Who would wait so many times its deadline, at the pace of the last seconds, is refused at once."""


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
        board = board or LocalBoard()
        self._worker, self._wake = worker, wake
        self._clock = clock
        self._on_demand = on_demand
        self._fleet = Fleet(clock=clock, rng=rng, board=board)
        self._lanes, self._engines = self._fleet.lanes, self._fleet.engines
        self._lines: dict[str, Lane] = {}
        """The lanes where somebody waits in this worker."""
        self._waiting = Waiting(board, limits or QueueLimits())
        self._judge_timer: asyncio.TimerHandle | None = None
        self.model_row, self.eta_s = self._fleet.model_row, self._fleet.eta_s
        self.answered, self.set_reachable = self._fleet.answered, self._fleet.set_reachable
        self.running, self.silent = self._fleet.running, self._fleet.hanging

    # What others tell it.

    def set_view(self, view: table.View) -> None:
        self._fleet.set_view(view)
        for lane in list(self._lines.values()):
            self._judge(lane)
            self._pump(lane)

    def mark(self, row: EngineRow, for_s: float) -> None:
        """The engine is not asked for so many seconds."""
        self._fleet.rest(row, for_s)
        asyncio.get_running_loop().call_later(for_s + 0.001, self._pump, self._fleet.lane(row.model))

    def suspect(self, row: EngineRow) -> None:
        """The engine did not answer. A row that no conductor names any more goes at once."""
        self._fleet.failed(row)
        self._judge(self._fleet.lane(row.model))
        self.mark(row, SUSPECT_S)

    def drop(self, row: EngineRow) -> None:
        """The instance is gone for good (421, draining): an older table must not bring it back."""
        self._fleet.drop(row)
        self._judge(self._fleet.lane(row.model))

    # What a request does.

    async def acquire(self, ticket: Ticket) -> EngineRow:
        """An engine with a slot taken for this request; `release` gives it back.

        Raises RequestError when the line is full, when waiting is pointless, or when the deadline has passed.
        """
        if (row := self.at_once(ticket.model)) is not None:
            return row
        lane = self._lanes[ticket.model]
        try:
            self._check(lane, ticket)
            self._enter(lane, ticket)
            return await self._wait(lane, ticket)
        except RequestError:
            lane.refused = True  # perhaps before anybody was told that it waited
            self._on_demand()
            raise

    def at_once(self, model: str) -> EngineRow | None:
        """As `acquire`, but None when the request would have to wait."""
        lane = self._lanes.get(model) or self._fleet.lane(model)
        if sum(lane.waiting.values):
            return None
        engine = self._fleet.take(lane)
        if engine is None:
            return None
        lane.own += 1
        lane.served = True
        return engine.row

    def release(self, row: EngineRow) -> None:
        engine = self._engines.get(row.instance) or self._fleet.engine(row)
        engine.taken.add(-1)
        lane = self._lanes[row.model]
        lane.own -= 1
        if sum(lane.waiting.values):
            self._pass_on(lane)

    def woken(self) -> None:
        """Another worker left a slot to this one, or lacks room for those who wait."""
        for lane in list(self._lines.values()):
            self._pump(lane, slack=HANDOVER_SLACK)
        self._shed_what_is_too_much()

    def settle(self, ticket: Ticket, actual_tokens: int) -> None:
        """Corrects the fairness account of a request that had an engine."""
        if not ticket.charged:
            return
        lane = self._lanes[ticket.model]
        lane.line.charge(ticket.tenant, actual_tokens - ticket.charged)
        if actual_tokens:
            lane.line.queue(ticket.tenant).learn(ticket.tokens, actual_tokens)
        ticket.charged = 0.0

    # What others ask it.

    def demand(self) -> dict[str, ModelDemand]:
        """Running and waiting requests of each model.

        What came and went since the last call counts as one: short requests keep a model awake, refused ones wake it.
        """
        reports = {model: self._lanes[model].report() for model in sorted(self._lanes)}
        return {model: one for model, one in reports.items() if one.running or one.queued}

    def unheard(self, demand: Mapping[str, ModelDemand]) -> None:
        """No conductor took this answer of `demand`: what came and went stands in the next one too."""
        for model, one in demand.items():
            self._fleet.lane(model).unheard(one)

    def queue_depth(self, model: str) -> int:
        """Over all workers."""
        return self._fleet.lane(model).waiting.total()

    def engines(self, model: str) -> tuple[EngineRow, ...]:
        return (self._lanes.get(model) or self._fleet.lane(model)).rows

    def unready(self, model: str) -> RequestError | None:
        """Why nothing would answer a request for the model now, not even after a wake; None when something would."""
        fleet = self._fleet
        if fleet.hopeful(fleet.lane(model)):
            return None
        eta_s, unreachable_s = fleet.eta_s(model), fleet.unreachable_s()
        return holding.unready(model, fleet.model_row(model), eta_s=eta_s, unreachable_s=unreachable_s)

    # How it works.

    def _check(self, lane: Lane, ticket: Ticket) -> None:
        """Raises RequestError when there is no sense in waiting."""
        if refused := self._fleet.refusal(lane, entered=ticket.entered, deadline=ticket.deadline):
            raise refused
        now = self._clock()
        queue = lane.line.queue(ticket.tenant)
        if ticket.returned or queue.pace.moves(now) < Pace.SOLID:
            return
        wait_s = queue.pace.time_for_s(len(queue.items), now)
        if wait_s is not None and wait_s > HOPELESS * (ticket.deadline - now):
            ahead = f"{len(queue.items)} requests of tenant '{ticket.tenant}' wait for the model already"
            raise error("queue_full", f"{ahead}, for about {wait_s:.0f} s.", retry_after_s=wait_s)

    def _enter(self, lane: Lane, ticket: Ticket) -> None:
        """Counts it as one that waits. Raises RequestError when too many do."""
        now, waiting, tenant = self._clock(), self._waiting, ticket.tenant
        if ticket.returned:
            waiting.force(tenant, now, own=True)
            return
        unknown_s = self.eta_s(lane.model) or holding.DEFAULT_RETRY_S
        waiting.take_own_place(tenant, now, unknown_s)
        if waiting.take_place(now):
            return
        number = waiting.of(tenant)
        longest = waiting.longest_here()
        if longest is not None and waiting.of(longest) > number and self._shed(longest) and waiting.take_place(now):
            return
        worker = waiting.elsewhere_beyond(number)
        if worker is None or worker == self._worker:
            raise waiting.overloaded(tenant, now, unknown_s)
        waiting.force(tenant, now)
        self._wake(worker)

    def _shed(self, tenant: str) -> bool:
        """Refuses the tenant's newest request that waits here."""
        found = [ticket for lane in self._lines.values() if (ticket := lane.line.newest(tenant)) is not None]
        newest = max((one for one in found if not one.returned), key=_entered, default=None)
        if newest is None or not newest.waits:
            return False
        lane, now = self._lanes[newest.model], self._clock()
        message = f"Too many requests wait, {self._waiting.of(tenant)} of them of tenant '{tenant}'."
        unknown_s = self.eta_s(lane.model) or holding.DEFAULT_RETRY_S
        newest.fail(self._waiting.full(tenant, message, now, unknown_s))
        self._remove(lane, newest)
        return True

    def _shed_what_is_too_much(self) -> None:
        while self._waiting.excess() and (longest := self._waiting.longest_here()) is not None:
            if not self._shed(longest):
                return

    async def _wait(self, lane: Lane, ticket: Ticket) -> EngineRow:
        future: asyncio.Future[EngineRow] = asyncio.get_running_loop().create_future()
        ticket.future = future
        queue = lane.line.queue(ticket.tenant)
        if not queue.items:
            queue.pace.begin(self._clock())
        lane.line.add(ticket.tenant, ticket, front=ticket.returned)
        self._lines[lane.model] = lane
        lane.publish()
        self._on_demand()
        self._schedule_judge()
        self._expire_in_time(ticket)
        if lane.waiting.total() > len(lane.line):
            self._look_again(lane)
        try:
            return await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())  # the slot came at the very moment the request gave up
            raise
        finally:
            self._remove(lane, ticket)

    def _remove(self, lane: Lane, ticket: Ticket) -> None:
        if lane.line.remove(ticket.tenant, ticket):
            self._left(lane, ticket)

    def _left(self, lane: Lane, ticket: Ticket) -> None:
        self._waiting.leave(ticket.tenant)
        lane.publish()
        if not len(lane.line):
            self._lines.pop(lane.model, None)

    def _pass_on(self, lane: Lane) -> None:
        """A slot is free and somebody waits: for whom is it?"""
        if lane.waiting.total() == len(lane.line):
            self._pump(lane)
        elif not len(lane.line):
            self._leave_to(self._turn(lane, 0), lane)
        else:
            self._pump(lane, slack=0)

    def _turn(self, lane: Lane, slack: int) -> int:
        turn = whose_turn(lane.heads(), self._worker, slack)
        return self._worker if turn is None else turn

    def _leave_to(self, worker: int, lane: Lane) -> None:
        if worker != self._worker:
            self._wake(worker)
        if len(lane.line):
            self._look_again(lane)

    def _look_again(self, lane: Lane) -> None:
        if lane.handover is None:
            lane.handover = asyncio.get_running_loop().call_later(HANDOVER_S, self._after_handover, lane)

    def _after_handover(self, lane: Lane) -> None:
        lane.handover = None
        self._pump(lane, patient=False)

    def _pump(self, lane: Lane, *, slack: int = 0, patient: bool = True) -> None:
        """Gives free slots to those that wait here. `patient`: unless it is another worker's turn."""
        while len(lane.line) and self._fleet.free(lane) is not None:
            if patient and (turn := self._turn(lane, slack)) != self._worker:
                self._leave_to(turn, lane)
                return
            engine = self._fleet.take(lane)
            found = lane.line.next() if engine is not None else None
            if engine is None or found is None:
                return
            self._serve(lane, engine, found[1])

    def _serve(self, lane: Lane, engine: Engine, ticket: Ticket) -> None:
        if ticket.future is None or ticket.future.done():
            engine.taken.add(-1)
        else:
            if not ticket.charged:
                ticket.charged = lane.line.queue(ticket.tenant).expected(ticket.tokens)
                lane.line.charge(ticket.tenant, ticket.charged)
            lane.line.queue(ticket.tenant).pace.moved()
            lane.own += 1
            lane.served = True
            ticket.future.set_result(engine.row)
        self._left(lane, ticket)

    def _judge(self, lane: Lane) -> None:
        """Ends what waits in vain."""
        if self._fleet.hopeful(lane):
            return
        for ticket in lane.line.items():
            refused = self._fleet.refusal(lane, entered=ticket.entered, deadline=ticket.deadline)
            if refused is not None:
                ticket.fail(refused)

    def _schedule_judge(self) -> None:
        if self._judge_timer is None:
            self._judge_timer = asyncio.get_running_loop().call_later(JUDGE_S, self._judge_all)

    def _judge_all(self) -> None:
        self._judge_timer = None
        self._waiting.recount()
        for lane in list(self._lines.values()):
            for ticket in lane.line.items():
                self._expire_in_time(ticket)
            self._judge(lane)
            lane.publish()
            self._pump(lane, patient=False)
        if self._waiting.own:
            self._schedule_judge()

    def _expire_in_time(self, ticket: Ticket) -> None:
        """A timer only for who comes to its deadline before the next look at all."""
        remaining_s = ticket.deadline - self._clock()
        if remaining_s <= JUDGE_S:
            asyncio.get_running_loop().call_later(max(0.0, remaining_s), self._expire, ticket)

    def _expire(self, ticket: Ticket) -> None:
        model = ticket.model
        ticket.fail(holding.held_too_long(model, self.model_row(model), eta_s=self.eta_s(model)))


def _entered(ticket: Ticket) -> float:
    return ticket.entered
