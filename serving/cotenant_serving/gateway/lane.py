"""What the dispatcher keeps of one model: its engines with their slots, its counts, and its line of tickets.

Made once for each model, so that a request finds everything with one look and no name is put together on its way.
"""

import asyncio
from dataclasses import dataclass, field

from cotenant_serving.contract_gateway import EngineRow, ModelDemand
from cotenant_serving.gateway.board import Board
from cotenant_serving.gateway.queue import WORD, Heads, WaitingLine
from cotenant_serving.openai_api import RequestError


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
    charged: float = 0.0
    """To the tenant's level, when it got its turn in a line. Who need not wait takes nothing from anybody."""
    future: asyncio.Future[EngineRow] | None = field(default=None)

    @property
    def waits(self) -> bool:
        return self.future is not None and not self.future.done()

    def fail(self, problem: RequestError) -> None:
        """Ends its wait, if it still waits."""
        if self.future is not None and not self.future.done():
            self.future.set_exception(problem)


class Engine:
    """An engine's row and the slots that this gateway has taken there; see `table.Candidate`."""

    __slots__ = ("rests_until", "row", "slots", "taken")

    def __init__(self, row: EngineRow, board: Board) -> None:
        # By its address: those are few, instances are new for each start.
        self.taken = board.count(f"engine {row.host}:{row.port}")
        self.rests_until = 0.0
        self.row = row
        self.slots = row.slots

    def take(self) -> bool:
        """Takes a slot if there is one; over all workers never more than there are."""
        taken = self.taken
        taken.add(1)
        if sum(taken.values) <= self.slots:
            return True
        # Perhaps another worker did the same at this moment, and both step back: one of them gets it in order.
        taken.add(-1)
        return taken.take(self.slots)


class Lane:
    __slots__ = (
        "engines", "fallback", "handover", "line", "model", "own",
        "refused", "round", "rows", "served", "since_ms", "waiting"
    )  # fmt: skip

    def __init__(self, model: str, board: Board) -> None:
        self.model = model
        self.rows: tuple[EngineRow, ...] = ()
        self.engines: tuple[Engine, ...] = ()
        """Asked first. The table's `running` also counts other gateways' requests but is old, so it only decides
        this: engines enforce their slots themselves."""
        self.fallback: tuple[Engine, ...] = ()
        """Those that had no free slot when the table was made, if others had."""
        self.line: WaitingLine[Ticket] = WaitingLine(
            board.number(f"round of {model}"), lambda tenant: board.number(f"level of {tenant} at {model}")
        )
        self.waiting = board.count(f"waiting for {model}")
        self.round = board.count(f"round waiting for {model}")
        self.since_ms = board.count(f"oldest waiting for {model}")
        self.own = 0
        """Running requests of this worker."""
        self.served = self.refused = False
        """A request, since the last report of demand."""
        self.handover: asyncio.TimerHandle | None = None
        """A slot was left to another worker and is looked at again."""

    def arrange(self, engines: tuple[Engine, ...]) -> None:
        self.rows = tuple(engine.row for engine in engines)
        had_room = tuple(engine for engine in engines if engine.row.running < engine.row.slots)
        self.engines = had_room or engines
        self.fallback = tuple(engine for engine in engines if engine not in had_room) if had_room else ()

    def report(self) -> ModelDemand:
        """Of this worker, since the last one."""
        demand = ModelDemand(
            running=max(self.own, int(self.served)),
            queued=max(len(self.line), int(self.refused)),
        )
        self.served = self.refused = False
        return demand

    def unheard(self, demand: ModelDemand) -> None:
        """Nobody took this report."""
        self.served |= demand.running > 0
        self.refused |= demand.queued > 0

    def heads(self) -> Heads:
        return Heads(self.waiting.parts(), self.round.parts(), self.since_ms.parts())

    def publish(self) -> None:
        """Tells other workers who waits here."""
        self.waiting.set(len(self.line))
        if (head := self.line.head()) is not None:
            self.round.set(head[0] % WORD)
            self.since_ms.set(int(head[1].entered * 1000) % WORD)
