"""What a run gives: its records and the load of its own processes; and each second a look at it while it lasts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import Record
from cotenant_loadtests.results import ProcessLoad, ServerSide


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutput:
    """`records` by id; a planned request that was never scheduled (a run that ended early) has none."""

    plan: Sequence[Planned]
    records: Sequence[Record]
    processes: Sequence[ProcessLoad]
    server: ServerSide
    started_unix_s: float
    """The instant that all times of the records count from."""
    duration_s: float
    """Until the last request had ended."""
    interrupted: bool
    problems: Sequence[str] = ()
    """Why it ended before its time, each a sentence; Ctrl-C and a step below `stop_below` are none."""


class RunError(Exception):
    """The run itself failed, not the target; `str()` says how, and what to do next."""

    def __init__(self, problem: str, output: RunOutput | None = None) -> None:
        super().__init__(problem)
        self.output = output
        """What was recorded up to then, if it could be read."""


@dataclass(frozen=True, slots=True)
class Failed:
    """One run of several that was refused or failed, and gave nothing. Those before it are not lost."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is, `at_s` seconds after its start. Counts are from the start on, by tenant."""

    at_s: float
    sent: Mapping[str, int]
    succeeded: Mapping[str, int]
    failed: Mapping[str, int]
    in_flight: Mapping[str, int]
    tokens: Mapping[str, int]
    """Events with text so far."""
    ttft_p50_ms: Mapping[str, float]
    """Over the last second; a tenant without a first token in it is absent."""
    lateness_p99_ms: float
    """Over the last second, the worst process'."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Outcome → requests."""
