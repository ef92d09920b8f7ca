"""What a worker knows of engines: the routing table, less those that are gone, with the slots taken and who rests."""

import random
from collections.abc import Callable

from cotenant_serving.contract_gateway import EngineRow, ModelRow
from cotenant_serving.gateway import holding, table
from cotenant_serving.gateway.board import Board
from cotenant_serving.gateway.lane import Engine, Lane
from cotenant_serving.openai_api import RequestError

_TOMBSTONES = 4096


class Fleet:
    """`lanes`: what is known of each model that was ever asked for. `engines`: by instance."""

    def __init__(self, *, clock: Callable[[], float], rng: random.Random, board: Board) -> None:
        self.lanes: dict[str, Lane] = {}
        self._clock, self._rng, self._board = clock, rng, board
        self._view = table.View()
        self._view_at = clock()
        self.engines: dict[str, Engine] = {}
        self._failing: set[str] = set()
        self._dropped: dict[str, None] = {}
        self._silent: set[str] = set()
        self._unreachable_since: float | None = clock()

    # What it is told.

    def set_view(self, view: table.View) -> None:
        self._view, self._view_at = view, self._clock()
        self._silent -= view.listed
        known = {row.instance for rows in view.engines.values() for row in rows}
        self._failing &= known
        for gone in [name for name, one in self.engines.items() if name not in known and not one.taken.own()]:
            del self.engines[gone]
        for lane in self.lanes.values():
            self._arrange(lane)

    def set_reachable(self, reachable: bool) -> None:
        """Whether any conductor answers."""
        if reachable:
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = self._clock()

    def answered(self, row: EngineRow) -> None:
        if self._failing:
            self._failing.discard(row.instance)

    def failed(self, row: EngineRow) -> None:
        """It did not answer. A row that no conductor names any more goes at once."""
        self._failing.add(row.instance)
        if row.instance not in self._view.listed:
            self._silent.add(row.instance)
            self._arrange(self.lane(row.model))

    def rest(self, row: EngineRow, for_s: float) -> None:
        if (engine := self.engines.get(row.instance)) is not None:
            engine.rests_until = self._clock() + for_s

    def drop(self, row: EngineRow) -> None:
        self._dropped[row.instance] = None
        while len(self._dropped) > _TOMBSTONES:
            del self._dropped[next(iter(self._dropped))]
        self._arrange(self.lane(row.model))

    # What it is asked.

    def hanging(self) -> frozenset[str]:
        """Instances, as far as conductors know."""
        return self._view.silent

    def lane(self, model: str) -> Lane:
        found = self.lanes.get(model)
        if found is None:
            found = self.lanes[model] = Lane(model, self._board)
            self._arrange(found)
        return found

    def engine(self, row: EngineRow) -> Engine:
        """Also of one that has left the table while requests run there."""
        return self.engines.get(row.instance) or Engine(row, self._board)

    def free(self, lane: Lane) -> Engine | None:
        """An engine that has a slot now."""
        now = self._clock()
        return table.pick(lane.engines, now, self._rng) or table.pick(lane.fallback, now, self._rng)

    def take(self, lane: Lane) -> Engine | None:
        """An engine with a slot taken on it."""
        engine = table.pick(lane.engines, self._clock(), self._rng)
        while engine is None or not engine.take():
            # Full, or another worker took the slot first.
            if (engine := self.free(lane)) is None:
                return None
        return engine

    def running(self, model: str) -> int:
        """Requests over all workers, by the slots they hold. Several rows may stand for one address."""
        return sum(count.total() for count in {one.taken for one in self.engines.values() if one.row.model == model})

    def hopeful(self, lane: Lane) -> bool:
        """Some engine may answer."""
        return any(row.instance not in self._failing for row in lane.rows)

    def model_row(self, model: str) -> ModelRow | None:
        return self._view.models.get(model)

    def eta_s(self, model: str) -> float | None:
        """Seconds from now until an engine is expected; the table's number, less its age."""
        row = self._view.models.get(model)
        if row is None or row.eta_s is None:
            return None
        return max(0.0, row.eta_s - (self._clock() - self._view_at))

    def unreachable_s(self, since: float = 0.0) -> float | None:
        """How long no conductor has answered, counted from `since` on; None while one does."""
        return None if self._unreachable_since is None else self._clock() - max(since, self._unreachable_since)

    def refusal(self, lane: Lane, *, entered: float, deadline: float) -> RequestError | None:
        """Why a request need not wait any longer; None when it should."""
        if self.hopeful(lane):
            return None
        return holding.refusal(
            lane.model,
            self.model_row(lane.model),
            eta_s=self.eta_s(lane.model),
            remaining_s=deadline - self._clock(),
            unreachable_s=self.unreachable_s(entered),
        )

    def _arrange(self, lane: Lane) -> None:
        """After any change of what engines there are."""
        rows = self._view.engines.get(lane.model, ())
        gone = self._dropped.keys() | self._silent if self._dropped or self._silent else ()
        lane.arrange(tuple(self._known(row) for row in rows if row.instance not in gone))

    def _known(self, row: EngineRow) -> Engine:
        engine = self.engines.get(row.instance)
        if engine is None:
            engine = self.engines[row.instance] = Engine(row, self._board)
        engine.row, engine.slots = row, row.slots
        return engine
