"""`coldstart`: wait until a model is cold, send one request, look how long its first token takes; many times; pure.

due ── late ── connect ── first byte ── first token ── rest ── end            what a client can tell of any server
                        └ start ─ load ─ engine ─ first token ┘               what cotenant tells: `server-timing`
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import msgspec

from cotenant_loadtests.extras import ColdStarts, ModelWakes, Phase, Wake
from cotenant_loadtests.histogram import histogram_of, quantiles_ms
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import NEVER, Record, decode_times, encode_times
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.results import ProcessLoad, Quantiles, Results
from cotenant_loadtests.run_output import Failed, RunOutput
from cotenant_loadtests.server_timing import timing_phases

Coldness = Literal["cold", "warm", "stopped"]
Wait = Callable[[str, bool], Coldness]
"""(model, is this the first wake?) → did it get cold?"""
GAP_US = 1_000_000
"""Between the wakes, in the results where they follow each other."""


def requests_by_model(plan: Sequence[Planned], models: Sequence[str] = ()) -> dict[str, list[Planned]]:
    """Those that open something (no later turns of conversations), by model; of the named ones, else of all.

    Raises RefusedError.
    """
    found: dict[str, list[Planned]] = {}
    for request in plan:
        if request.at_s is not None:
            found.setdefault(request.model, []).append(request)
    unknown = [model for model in models if model not in found]
    if unknown:
        raise RefusedError(f"--model {unknown[0]}: the plan has no such model; it has {', '.join(sorted(found))}")
    return {model: found[model] for model in models} if models else found


def schedule(by_model: dict[str, list[Planned]], times: int) -> list[Planned]:
    """Of each wake. Each model once, then each again: while one is awake, the others have time to get cold."""
    return [
        msgspec.structs.replace(requests[turn % len(requests)], id=0, at_s=0.0)
        for turn in range(times)
        for requests in by_model.values()
    ]


@dataclass(frozen=True, slots=True)
class Woken:
    requests: Sequence[Planned]
    outputs: Sequence[RunOutput]
    """Of each, its run; an interrupted one is the last."""
    problem: str
    """Why there are not all; empty when there are, or when it was interrupted."""


def wake_each(
    requests: Sequence[Planned],
    wait: Wait,
    run: Callable[[Planned], RunOutput | Failed],
    on_wake: Callable[[Wake], None] = lambda wake: None,
    why_warm: str = "it was still warm",
) -> Woken:
    """One after the other, each from cold. A run that fails ends it; those before it are kept."""
    sent, outputs = list[Planned](), list[RunOutput]()
    for request in requests:
        state = wait(request.model, not sent)
        if state == "warm":
            problem = f"model {request.model} did not get cold for wake {len(sent) + 1}: {why_warm}"
            return Woken(sent, outputs, problem)
        output = run(request)
        if isinstance(output, Failed):
            return Woken(sent, outputs, f"model {request.model}, wake {len(sent) + 1}: {output.why}")
        sent.append(request)
        outputs.append(output)
        wake = wake_of(request, outputs[-1])
        if wake is None or outputs[-1].interrupted:
            break
        on_wake(wake)
    return Woken(sent, outputs, "")


def cold_starts(woken: Woken, idle_s: float | None, results: Results) -> ColdStarts:
    """`results`: of all wakes `joined`."""
    pairs = zip(woken.requests, woken.outputs, strict=True)
    wakes = tuple(wake for request, output in pairs if (wake := wake_of(request, output)) is not None)
    return ColdStarts(
        cold_by="engines" if idle_s is None else "idle",
        idle_s=idle_s,
        phases_by="server" if any(_is_told(output) for output in woken.outputs) else "client",
        models=by_model(wakes),
        wakes=wakes,
        not_valid=(*((woken.problem,) if woken.problem else ()), *results.validity.reasons),
    )


def wake_of(request: Planned, output: RunOutput) -> Wake | None:
    """What one request's run gave; None where it was interrupted before its end."""
    if not output.records or output.records[0].outcome == "interrupted":
        return None
    record = output.records[0]
    first = record.first_token_us
    return Wake(
        tenant=request.tenant,
        model=request.model,
        at_unix_s=output.started_unix_s + record.scheduled_us / 1e6,
        outcome=record.outcome,
        status=record.status,
        first_token_ms=(first - record.scheduled_us) / 1000 if record.success and first != NEVER else None,
        phases=phases_of(record),
        detail=record.detail,
    )


def phases_of(record: Record) -> tuple[Phase, ...]:
    """What came when. Phases that never began are left out."""
    if record.sent_us == NEVER:
        return ()
    opened_us = record.sent_us - record.connect_us
    marks = [
        ("late", record.scheduled_us, opened_us),
        ("connect", opened_us, record.sent_us),
        *_until_first_token(record),
        ("rest", record.first_token_us, record.end_us),
    ]
    return tuple(
        Phase(name=name, from_ms=(begin - record.scheduled_us) / 1000, to_ms=(end - record.scheduled_us) / 1000)
        for name, begin, end in marks
        if NEVER not in (begin, end) and end > begin
    )


def _until_first_token(record: Record) -> list[tuple[str, int, int]]:
    """As the server tells it, one phase after the other from `sent` on; else what the client sees."""
    told = timing_phases(record.server_timing)
    if not told or record.first_token_us == NEVER:
        return [
            ("first byte", record.sent_us, record.first_byte_us),
            ("first token", record.first_byte_us, record.first_token_us),
        ]
    marks, now_us = list[tuple[str, int, int]](), record.sent_us
    for name, length_ms in told:
        end_us = min(now_us + round(1000 * length_ms), record.first_token_us)
        marks.append((name, now_us, end_us))
        now_us = end_us
    return [*marks, ("first token", now_us, record.first_token_us)]


def by_model(wakes: Sequence[Wake]) -> tuple[ModelWakes, ...]:
    return tuple(
        _of_model(model, [wake for wake in wakes if wake.model == model])
        for model in dict.fromkeys(wake.model for wake in wakes)
    )


def joined(requests: Sequence[Planned], outputs: Sequence[RunOutput]) -> RunOutput:
    """The runs of all wakes as one, a second between them, so that they can be summed up as one run is."""
    plan, records, now_us = list[Planned](), list[Record](), 0
    for request, output in zip(requests, outputs, strict=True):
        if not output.records:
            continue  # it was to be stopped before this one
        number = len(plan)
        plan.append(msgspec.structs.replace(request, id=number, at_s=now_us / 1e6))
        records += [shifted(record, number, now_us) for record in output.records]
        now_us += round(output.duration_s * 1e6) + GAP_US
    first = outputs[0]
    return RunOutput(
        plan=plan,
        records=records,
        processes=_busiest([load for output in outputs for load in output.processes]),
        server=first.server,
        started_unix_s=first.started_unix_s,
        duration_s=now_us / 1e6,
        interrupted=any(output.interrupted for output in outputs),
        problems=tuple(problem for output in outputs for problem in output.problems),
    )


def shifted(record: Record, number: int, by_us: int) -> Record:
    """The record as if its run had begun `by_us` later."""
    moved: dict[str, Any] = {
        name: value + by_us
        for name in ("scheduled_us", "sent_us", "first_byte_us", "first_token_us", "end_us")
        if (value := getattr(record, name)) != NEVER
    }
    if record.token_times:
        moved["token_times"] = encode_times(time_us + by_us for time_us in decode_times(record.token_times))
    return msgspec.structs.replace(record, id=number, **moved)


def _is_told(output: RunOutput) -> bool:
    return any(timing_phases(record.server_timing) for record in output.records)


def _busiest(loads: Sequence[ProcessLoad]) -> list[ProcessLoad]:
    """One process at a time had one request; all of them as one."""
    if not loads:
        return []
    busiest = max(loads, key=lambda load: load.cpu_share)
    return [msgspec.structs.replace(busiest, requests=sum(load.requests for load in loads))]


def _of_model(model: str, wakes: Sequence[Wake]) -> ModelWakes:
    awake = [wake for wake in wakes if wake.first_token_ms is not None]
    return ModelWakes(
        model=model,
        wakes=len(wakes),
        failed=len(wakes) - len(awake),
        first_token_ms=_quantiles([wake.first_token_ms for wake in awake if wake.first_token_ms is not None]),
        phases=_medians(awake),
    )


def _quantiles(times_ms: Sequence[float]) -> Quantiles:
    import numpy as np

    return quantiles_ms(histogram_of(np.array([round(time * 1000) for time in times_ms], np.int64)))


def _medians(wakes: Sequence[Wake]) -> tuple[Phase, ...]:
    """Of each phase's length; a wake without it counts as 0."""
    names = list(dict.fromkeys(phase.name for wake in wakes for phase in wake.phases))
    found, now_ms = list[Phase](), 0.0
    for name in names:
        lengths = [sum(phase.to_ms - phase.from_ms for phase in wake.phases if phase.name == name) for wake in wakes]
        found.append(Phase(name=name, from_ms=now_ms, to_ms=now_ms + median(lengths)))
        now_ms = found[-1].to_ms
    return tuple(found)
