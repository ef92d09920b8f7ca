"""Streams with the arrival process `steps`: what each rate came to, for goodput against rate. Pure.

`rate_per_s` is what was really scheduled, per second: a Poisson process rarely hits its rate, and good answers are to
be held against what was asked. A step outside the window of the run is left out, and one partly outside is cut.
"""

from collections.abc import Iterator

import numpy as np

from cotenant_loadtests.columns import Columns
from cotenant_loadtests.histogram import histogram_of
from cotenant_loadtests.record import NEVER
from cotenant_loadtests.results import Step
from cotenant_loadtests.spec import Goodput, Scenario, StreamSpec
from cotenant_loadtests.spec_values import Steps
from cotenant_loadtests.window import Window


def steps_of(scenario: Scenario, columns: Columns, window: Window) -> tuple[Step, ...]:
    """In the order of the scenario's streams, then of their steps."""
    found = []
    for stream in scenario.streams:
        if isinstance(stream.arrivals, Steps):
            mine = columns.rows(columns.stream == _number(columns, stream.name))
            found += [_step(stream.name, mine, part, scenario.goodput) for part in _parts(stream, window)]
    return tuple(found)


def _number(columns: Columns, stream: str) -> int:
    names = columns.names.streams
    return names.index(stream) if stream in names else -1


def _parts(stream: StreamSpec, window: Window) -> Iterator[Window]:
    """Each step's part of the window. That they end within the stream's time is a rule of scenarios."""
    assert isinstance(stream.arrivals, Steps)
    for number in range(len(stream.arrivals.rates_per_s)):
        from_s = max(stream.from_s + number * stream.arrivals.step_s, window.from_s)
        to_s = min(stream.from_s + (number + 1) * stream.arrivals.step_s, window.to_s)
        if from_s < to_s:
            yield Window(from_s, to_s)


def _step(stream: str, columns: Columns, part: Window, goodput: Goodput | None) -> Step:
    here = columns.rows(part.has(columns))
    succeeded, ttft_us = int(np.count_nonzero(here.success)), here.ttft_us
    ttft = histogram_of(ttft_us[ttft_us != NEVER])
    return Step(
        stream=stream,
        from_s=part.from_s,
        to_s=part.to_s,
        rate_per_s=part.per_s(len(here)),
        good_per_s=part.per_s(int(np.count_nonzero(here.good(goodput)))),
        success_rate=succeeded / len(here) if len(here) else 1.0,
        ttft_p99_ms=round(ttft.percentile_us(99) / 1000, 3) if ttft.count else None,
    )
