"""Scenario → plan: every request with its time, its sender and its contents. Pure but for the files it names.

Each stream draws from sub-streams of random numbers by its name (`arrivals`, `tenant`, `prompt`, …), so that a stream
more, or a change in one, leaves the requests of the others as they were.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cotenant_loadtests.arrivals import arrival_times
from cotenant_loadtests.contents import Contents
from cotenant_loadtests.names import chooser
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.problems import ScenarioError, refused
from cotenant_loadtests.prompts import read_prompts
from cotenant_loadtests.seeded import Source
from cotenant_loadtests.shipped import find_file
from cotenant_loadtests.spec import Scenario, StreamSpec
from cotenant_loadtests.traces import TraceRow, trace_arrivals
from cotenant_loadtests.units import US_PER_S


class TraceEnd(NamedTuple):
    """A stream whose trace ends before it does: rates count the silence after that, too."""

    stream: str
    last_s: float
    """When the last request of the trace is sent."""
    to_s: float
    """When the stream ends."""
    covered: float
    """Share of the stream's time up to `last_s`."""

    def sentence(self) -> str:
        return (
            f"stream {self.stream}: the last request of its trace comes at {self.last_s:.6g} s of {self.to_s:.6g} s, "
            "and rates count the silence after it; lower duration_s or speed, end the stream with to_s, or take a "
            "longer trace"
        )


class Draft(NamedTuple):
    """A request without its place in the plan; the first four fields order drafts, and no two agree in them."""

    due_us: int
    """When it is sent, or the earliest time it can be."""
    stream: int
    arrival: int
    turn: int
    """From 0 within its conversation."""
    think_us: int
    fields: dict[str, Any]
    """Of `Planned`."""


def make_plan(scenario: Scenario, folder: Path) -> list[Planned]:
    """The plan, by time; ids are positions. `folder` is where the scenario's files are. Raises ScenarioError.

    A later turn of a conversation stands where it would be sent if answers took no time.
    """
    drafts: list[Draft] = []
    for index, stream in enumerate(scenario.streams):
        for draft in _stream_drafts(scenario, index, stream, folder):
            drafts.append(draft)
            if len(drafts) > scenario.limits.requests:
                raise _too_many(scenario, index)
    return _placed(drafts)


def trace_ends(scenario: Scenario, plan: Sequence[Planned]) -> Iterator[TraceEnd]:
    """Of each stream that replays a trace."""
    last_s: dict[str, float] = {}
    for request in plan:
        last_s[request.stream] = max(last_s.get(request.stream, 0.0), request.at_s or 0.0)
    for stream in scenario.streams:
        if stream.arrivals.process == "trace" and (found_s := last_s.get(stream.name)) is not None:
            to_s = _end_s(scenario, stream)
            yield TraceEnd(stream.name, found_s, to_s, (found_s - stream.from_s) / (to_s - stream.from_s))


def _end_s(scenario: Scenario, stream: StreamSpec) -> float:
    return min(stream.to_s or scenario.duration_s, scenario.duration_s)


def _too_many(scenario: Scenario, index: int) -> ScenarioError:
    message = (
        f"with stream {scenario.streams[index].name!r} the plan has more than {scenario.limits.requests} requests; "
        "lower rates or duration_s, or raise limits.requests"
    )
    return refused(scenario.name, 0, message, f"streams.{index}")


def _stream_drafts(scenario: Scenario, index: int, stream: StreamSpec, folder: Path) -> Iterator[Draft]:
    source = Source(scenario.seed, "stream", stream.name)
    tenant = chooser(stream.tenant.names, stream.tenant.zipf, source.child("tenant"))
    model = chooser(stream.model.names, stream.model.zipf, source.child("model"))
    file = stream.prompt.file if stream.prompt else None
    prompts = read_prompts(find_file(folder, file, f"streams.{stream.name}.prompt.file")) if file else ()
    contents, common = Contents(stream, source, prompts), _common_fields(stream)
    for arrival, (due_us, row) in enumerate(_arrivals(scenario, stream, source.child("arrivals"), folder)):
        who = {"tenant": tenant(), "model": model()}
        for turn, (think_us, messages, tensors, max_tokens) in enumerate(contents.turns(row)):
            due_us += think_us  # noqa: PLW2901 - the turns of one arrival
            said = {"messages": messages, "tensors": tensors, "max_tokens": max_tokens}
            yield Draft(due_us, index, arrival, turn, think_us, common | who | said)


def _arrivals(
    scenario: Scenario, stream: StreamSpec, source: Source, folder: Path
) -> Iterator[tuple[int, TraceRow | None]]:
    """Whole microseconds, so that the last bit of a logarithm, which no two machines need share, cannot show."""
    to_s = _end_s(scenario, stream)
    for at_s, row in _times(stream, source, to_s, folder):
        if (due_us := round(at_s * US_PER_S)) < to_s * US_PER_S:
            yield due_us, row


def _times(stream: StreamSpec, source: Source, to_s: float, folder: Path) -> Iterator[tuple[float, TraceRow | None]]:
    if stream.arrivals.process == "trace":
        return ((row.at_s, row) for row in trace_arrivals(stream.arrivals, folder, source, stream.from_s, to_s))
    return ((at_s, None) for at_s in arrival_times(stream.arrivals, source, stream.from_s, to_s))


def _common_fields(stream: StreamSpec) -> dict[str, Any]:
    """What all requests of a stream have alike."""
    streamed = stream.streamed and stream.api in ("chat", "completions")
    return {
        "stream": stream.name,
        "api": stream.api,
        "streamed": streamed,
        "include_usage": streamed and stream.include_usage,
        "cancel_after_tokens": stream.cancel_after_tokens,
        "deadline_s": stream.deadline_s,
        "check": stream.check,
        "body": dict(stream.body),
    }


def _placed(drafts: list[Draft]) -> list[Planned]:
    drafts.sort(key=lambda draft: draft[:4])
    plan: list[Planned] = []
    turn_before: dict[tuple[int, int], int] = {}
    for place, draft in enumerate(drafts):
        conversation = (draft.stream, draft.arrival)
        if draft.turn:
            after, think_s = turn_before[conversation], draft.think_us / US_PER_S
            plan.append(Planned(id=place, after=after, think_s=think_s, **draft.fields))
        else:
            plan.append(Planned(id=place, at_s=draft.due_us / US_PER_S, **draft.fields))
        turn_before[conversation] = place
    return plan
