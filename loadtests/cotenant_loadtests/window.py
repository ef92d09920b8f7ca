"""Which requests are measured: those scheduled from the end of the warm-up to the start of the cool-down. Pure.

A run that was interrupted is measured up to the first request that the interruption cut off. Later ones must stay
out: of those scheduled then, only the quick ones had ended, and their latencies would look better than they were. As
no request takes longer than its deadline, at most that much is lost. A run that ended early by itself is measured as
far as it scheduled, and one that `stop_below` ended up to the end of its last whole step.
"""

from dataclasses import dataclass

import numpy as np

from cotenant_loadtests.columns import Bools, Columns
from cotenant_loadtests.run_output import RunOutput
from cotenant_loadtests.spec import Scenario, StreamSpec
from cotenant_loadtests.spec_values import Steps

STOPPING_S = 1.0
"""Worker processes hear of a stop at moments that are at most so far apart."""


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
    until_s = scheduled_until_s(scenario, output)
    ends = [scenario.duration_s - scenario.cooldown_s, until_s]
    cut_off = columns.scheduled_us[columns.had("interrupted")]
    if len(cut_off):
        ends.append(float(np.min(cut_off)) / 1e6)
    if until_s < scenario.duration_s and not output.interrupted:
        ends += [_last_whole_step(stream, until_s) for stream in scenario.streams if _may_stop(stream)]
    return Window(scenario.warmup_s, max(min(ends), scenario.warmup_s))


def scheduled_until_s(scenario: Scenario, output: RunOutput) -> float:
    """From then on nothing more was scheduled: the run's time was over, or it ended early."""
    may_stop = any(_may_stop(stream) for stream in scenario.streams)
    recorded = {record.id for record in output.records}
    unsent_s = [one.at_s for one in output.plan if one.at_s is not None and one.id not in recorded]
    if not (output.interrupted or output.problems or (may_stop and unsent_s)):
        return scenario.duration_s
    sent_s = max((one.at_s for one in output.plan if one.at_s is not None and one.id in recorded), default=0.0)
    ended_s = min((at_s for at_s in unsent_s if at_s > sent_s - STOPPING_S), default=scenario.duration_s)
    return min(ended_s, output.duration_s, scenario.duration_s)


def _may_stop(stream: StreamSpec) -> bool:
    return isinstance(stream.arrivals, Steps) and stream.arrivals.stop_below is not None


def _last_whole_step(stream: StreamSpec, until_s: float) -> float:
    """The end of it; `until_s` where none was whole."""
    assert isinstance(stream.arrivals, Steps)
    whole = (until_s - stream.from_s) // stream.arrivals.step_s
    return stream.from_s + whole * stream.arrivals.step_s if whole > 0 else until_s
