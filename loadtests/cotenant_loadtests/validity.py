"""May a run be believed? The tool measures itself, and says what would help. Pure.

A run is not valid when

- 1 % of the requests or more were sent over 5 ms late. Latencies count from the scheduled time, so the tool's own
  lateness is in every one of them; beyond 5 ms it is no longer small against a first token. Waiting for a connection
  to open is the server's time and no lateness.
- a worker process had no CPU to spare: over 0.9 of a core on average, or above 0.95 in more than a twentieth of the
  seconds. One thread reads all answers: near a whole core they wait in its queue, and it reads
  tokens later than they came. The lateness shows that only where requests are sent at the same moment.
- requests of the plan have no record, so that what became of them is not known.
- nothing was measured within the window.
- the run ended before its time, other than by Ctrl-C or `stop_below`: at the limit of bytes.

`processes_needed` aims at 0.6 of a core each: enough room for bursts of half as much again.
"""

import math
from collections.abc import Sequence

import numpy as np

from cotenant_loadtests.columns import Columns
from cotenant_loadtests.histogram import Ints, histogram_of, quantiles_ms
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import NEVER
from cotenant_loadtests.results import MOST_LATENESS_P99_MS, SATURATED, ProcessLoad, Quantiles, Validity
from cotenant_loadtests.run_output import RunOutput
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.window import Window, scheduled_until_s

MOST_CPU_SHARE = 0.9
MOST_SATURATED_SHARE = 0.05
WANTED_CPU_SHARE = 0.6


def validity_of(scenario: Scenario, output: RunOutput, columns: Columns, window: Window, *, cores: int) -> Validity:
    """`cores`: that this process may use."""
    lateness = quantiles_ms(histogram_of(_lateness_us(columns)))
    needed = processes_needed(output.processes, lateness)
    reasons = [
        *(f"the run ended before its time: {problem}" for problem in output.problems),
        *_late(lateness, _connections(scenario, columns) or _advice(output.processes, needed, cores)),
        *_saturated(output.processes, _advice(output.processes, needed, cores)),
        *_missing(missing(scenario, output)),
        *_nothing(int(np.count_nonzero(window.has(columns))), window, output.interrupted),
    ]
    return Validity(
        valid=not reasons,
        reasons=tuple(reasons),
        lateness_ms=lateness,
        processes=tuple(output.processes),
        processes_needed=needed,
    )


def processes_needed(processes: Sequence[ProcessLoad], lateness: Quantiles) -> int:
    """As many as there were, where they were enough; or where their CPU was idle, so that more would not help."""
    used = len(processes)
    busy = any(_is_saturated(load) for load in processes)
    if not busy and lateness.p99 <= MOST_LATENESS_P99_MS:
        return used
    return max(_by_cpu(processes), used + 1 if busy else used)


def missing(scenario: Scenario, output: RunOutput) -> int:
    """Planned requests that should have a record and have none.

    A later turn of a conversation is due when the turn before has ended, however, and its pause is over.
    In a run that ended early it cannot be told which turns were still due.
    """
    ends_s = scheduled_until_s(scenario, output)
    whole = ends_s >= scenario.duration_s and not output.interrupted
    ended_s = {record.id: record.end_us / 1e6 for record in output.records}

    def due(one: Planned) -> bool:
        if one.after is None:
            return one.at_s is not None and one.at_s < ends_s
        return whole and ended_s.get(one.after, ends_s) + one.think_s < ends_s

    return sum(one.id not in ended_s and due(one) for one in output.plan)


def _lateness_us(columns: Columns) -> Ints:
    """Of all that were sent; and of those that never were, how long they stood there without even a connection."""
    waited_us = columns.end_us - columns.scheduled_us - columns.connect_us
    late_us = np.where(columns.sent_us == NEVER, waited_us, columns.lateness_us)
    known: Ints = late_us[(columns.sent_us != NEVER) | (columns.end_us != NEVER)].clip(min=0)
    return known


def _connections(scenario: Scenario, columns: Columns) -> str | None:
    """What to do where requests waited for one of the agreed connections; None where there were enough."""
    numbers = np.unique(columns.process)
    each = max(1, scenario.limits.connections // max(1, len(numbers)))
    if all(_most_connections(columns.rows(columns.process == number)) < each for number in numbers):
        return None
    return (
        f"all of the {scenario.limits.connections} connections were in use, so requests waited for one: raise "
        "limits.connections, or lower the rate"
    )


def _most_connections(columns: Columns) -> int:
    """Open at a time, for requests under way: each from its dialling, or else its sending, to its end."""
    begun_us = np.where(columns.sent_us == NEVER, columns.end_us, columns.sent_us) - columns.connect_us
    had = (columns.end_us != NEVER) & (begun_us < columns.end_us)
    begun_us, ended_us = np.sort(begun_us[had]), np.sort(columns.end_us[had])
    already_ended = np.searchsorted(ended_us, begun_us, side="right")
    return int(np.max(np.arange(1, len(begun_us) + 1) - already_ended, initial=0))


def _by_cpu(processes: Sequence[ProcessLoad]) -> int:
    """So many processes that none takes more than the wanted share of a core, even in its busiest second."""
    load = sum(max(one.cpu_share, one.cpu_share_peak) for one in processes)
    return math.ceil(round(load / WANTED_CPU_SHARE, 6))


def _is_saturated(load: ProcessLoad) -> bool:
    return load.cpu_share > MOST_CPU_SHARE or load.saturated_share > MOST_SATURATED_SHARE


def _late(lateness: Quantiles, advice: str) -> list[str]:
    if lateness.p99 <= MOST_LATENESS_P99_MS:
        return []
    return [
        f"1 % of the requests were sent {lateness.p99:.1f} ms late or more (at most {MOST_LATENESS_P99_MS:g} ms is "
        f"allowed), which is part of every latency here: {advice}"
    ]


def _saturated(processes: Sequence[ProcessLoad], advice: str) -> list[str]:
    worst = [load for load in processes if _is_saturated(load)]
    if not worst:
        return []
    load = max(worst, key=lambda one: (one.cpu_share, one.saturated_share))
    who = f"{len(worst)} of {len(processes)} worker processes" if len(processes) > 1 else "the worker process"
    return [
        f"{who} had no CPU to spare (process {load.process}: {load.cpu_share:.0%} of a core on average, above "
        f"{SATURATED:.0%} in {load.saturated_share:.0%} of the seconds), so answers were read late: {advice}"
    ]


def _missing(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count} requests of the plan have no record, so what became of them is not known: run it again"]


def _nothing(measured: int, window: Window, interrupted: bool) -> list[str]:
    if measured:
        return []
    if interrupted:
        return ["the run was interrupted before a request of the measured time had ended: let it run longer"]
    return [
        f"no request was scheduled in the measured time, {window.from_s:g} to {window.to_s:g} s: set a longer "
        "duration_s, shorter warmup_s and cooldown_s, or a higher rate"
    ]


def _advice(processes: Sequence[ProcessLoad], needed: int, cores: int) -> str:
    used = len(processes)
    if _by_cpu(processes) > cores:
        return (
            f"it needs {needed} processes (now {used}), but this machine has {cores} cores: lower the rate, or run "
            "it on a machine with more"
        )
    if needed <= used:
        peak = max((load.cpu_share_peak for load in processes), default=0.0)
        return (
            f"the worker processes used {peak:.0%} of a core at most, so more of them would not help; something else "
            "kept this machine busy (the target, if it runs here): run the load test from another machine"
        )
    return f"set `processes: {needed}` (now {used})"
