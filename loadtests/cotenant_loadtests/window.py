"""Which requests are measured: those scheduled from the end of the warm-up to the start of the cool-down. Pure.

A run that was interrupted is measured up to the first request that the interruption cut off. Later ones must stay
out: of those scheduled then, only the quick ones had ended, and their latencies would look better than they were. As
no request takes longer than its deadline, at most that much is lost. A run that ended early by itself (`stop_below`)
is measured as far as it scheduled.
"""

from dataclasses import dataclass

import numpy as np

from cotenant_loadtests.columns import Bools, Columns
from cotenant_loadtests.run_output import RunOutput
from cotenant_loadtests.spec import Scenario, StreamSpec
from cotenant_loadtests.spec_values import Steps


@dataclass(frozen=True, slots=True)
class Window:
    """[from_s, to_s), seconds from the start of the run."""

    from_s: float
    to_s: float

    @property
    def length_s(self) -> float:
        return self.to_s - self.from_s

    def has(self, columns: Columns) -> Bools:
        """Rows that are measured: scheduled within, and not `interrupted`, which counts nowhere."""
        at = columns.scheduled_us
        return (at >= self.from_s * 1e6) & (at < self.to_s * 1e6) & ~columns.had("interrupted")

    def per_s(self, count: float) -> float:
        return count / self.length_s if self.length_s > 0 else 0.0


def window_of(scenario: Scenario, output: RunOutput, columns: Columns) -> Window:
    ends = [scenario.duration_s - scenario.cooldown_s, scheduled_until_s(scenario, output)]
    cut_off = columns.scheduled_us[columns.had("interrupted")]
    if output.interrupted and len(cut_off):
        ends.append(float(np.min(cut_off)) / 1e6)
    return Window(scenario.warmup_s, max(min(ends), scenario.warmup_s))


def scheduled_until_s(scenario: Scenario, output: RunOutput) -> float:
    """From then on the run scheduled nothing more: its time was over, it was cut short, or `stop_below` ended it."""
    until_s = min(scenario.duration_s, output.duration_s) if output.interrupted else scenario.duration_s
    if output.interrupted or not any(_may_stop(stream) for stream in scenario.streams):
        return until_s
    recorded = {record.id for record in output.records}
    last_s = max((record.scheduled_us for record in output.records), default=-1) / 1e6
    unsent_s = min(
        (one.at_s for one in output.plan if one.at_s is not None and one.id not in recorded), default=until_s
    )
    return unsent_s if unsent_s >= last_s else until_s


def _may_stop(stream: StreamSpec) -> bool:
    return isinstance(stream.arrivals, Steps) and stream.arrivals.stop_below is not None
