"""Ends a run early: after the first step of which a smaller share of requests was good than `stop_below`.

A step is decided as soon as its time is over and its share is certain, whatever its last answers will be. Requests of
conversations count by their first turns: when later ones come, the plan does not know.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import Record
from cotenant_loadtests.records_file import read_records
from cotenant_loadtests.spec import Scenario, StreamSpec
from cotenant_loadtests.spec_values import Steps


@dataclass(slots=True)
class _Step:
    to_s: float
    stop_below: float
    planned: int = 0
    bad: int = 0

    def is_below(self, now_s: float) -> bool:
        """Even if all that is still on its way were good. The share as a reader would work it out: 9/10 is 0.9."""
        return now_s >= self.to_s and self.planned > 0 and (self.planned - self.bad) / self.planned < self.stop_below


class StepSearch:
    """Without a `stop_below` in the scenario it is not `active`, and has nothing to do."""

    def __init__(self, scenario: Scenario, plan: Sequence[Planned]) -> None:
        self._plan, self._goodput = plan, scenario.goodput
        self._step_of: dict[int, _Step] = {}
        """By the request's id."""
        self._steps: list[_Step] = []
        self._offsets: dict[Path, int] = {}
        for stream in scenario.streams:
            self._add(stream)

    @property
    def active(self) -> bool:
        return bool(self._steps)

    def read(self, records_file: Path) -> None:
        """What a worker has recorded since."""
        records, self._offsets[records_file] = read_records(records_file, self._offsets.get(records_file, 0))
        self.take(records)

    def take(self, records: Iterable[Record]) -> None:
        from cotenant_loadtests.columns import columns_of

        mine = [record for record in records if record.id in self._step_of]
        if not mine:
            return
        for record, good in zip(mine, columns_of(self._plan, mine).good(self._goodput).tolist(), strict=True):
            self._step_of[record.id].bad += not good

    def is_over(self, now_s: float) -> bool:
        return any(step.is_below(now_s) for step in self._steps)

    def _add(self, stream: StreamSpec) -> None:
        arrivals = stream.arrivals
        if not isinstance(arrivals, Steps) or arrivals.stop_below is None:
            return
        steps = [
            _Step(stream.from_s + (number + 1) * arrivals.step_s, arrivals.stop_below)
            for number in range(len(arrivals.rates_per_s))
        ]
        self._steps += steps
        for request in self._plan:
            if request.stream == stream.name and request.at_s is not None:
                step = steps[min(int((request.at_s - stream.from_s) / arrivals.step_s), len(steps) - 1)]
                step.planned += 1
                self._step_of[request.id] = step
