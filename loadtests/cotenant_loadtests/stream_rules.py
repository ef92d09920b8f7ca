"""What must hold within one stream of a scenario beyond its schema. Pure."""

from collections.abc import Iterator, Mapping
from math import ceil, floor, isfinite, prod
from typing import Any

from cotenant_loadtests.bodies import reserved_fields
from cotenant_loadtests.names import expand, name_problem
from cotenant_loadtests.spec import Scenario, StreamSpec
from cotenant_loadtests.spec_values import Amounts, Choice, Fixed, FromTrace, Trace, Uniform

MAX_TENSOR_VALUES = 1_000_000
MAX_AMOUNT = 1_000_000
"""Tokens of one text, seconds of one pause."""
MAX_INPUTS = 2048
"""The most that OpenAI's API takes."""
MAX_GROUPS = 100_000
LEAST_PHASE_S = 0.01
MAX_TURNS = 100
"""A turn sends all before it, so that their number counts squared."""

Finding = tuple[str, str]
"""The dotted field within the stream, and what is wrong with it."""


def stream_findings(scenario: Scenario, stream: StreamSpec) -> Iterator[Finding]:
    yield from _when(scenario, stream)
    yield from _who("tenant", stream.tenant)
    yield from _who("model", stream.model)
    yield from {"oip": _oip, "embeddings": _embeddings}.get(stream.api, _generate)(stream)
    yield from _prompt(stream)
    yield from _amounts(stream)
    yield from _answers(stream)
    yield from _body(stream)


def _when(scenario: Scenario, stream: StreamSpec) -> Iterator[Finding]:
    end_s = min(stream.to_s or scenario.duration_s, scenario.duration_s)
    if stream.from_s >= end_s:
        yield "from_s", f"{stream.from_s:g} is not before the stream's end at {end_s:g} s, so it would send nothing"
    arrivals = stream.arrivals
    if arrivals.process == "steps" and stream.from_s < end_s:
        steps_s, time_s = len(arrivals.rates_per_s) * arrivals.step_s, end_s - stream.from_s
        if steps_s > time_s:
            yield (
                "arrivals.step_s",
                (
                    f"{len(arrivals.rates_per_s)} steps of {arrivals.step_s:g} s are {steps_s:g} s, "
                    f"but the stream has {time_s:g} s; raise duration_s or shorten the steps"
                ),
            )
    if arrivals.process == "on_off" and min(arrivals.on_s, arrivals.off_s) < LEAST_PHASE_S:
        yield "arrivals", f"on_s and off_s must be at least {LEAST_PHASE_S:g} s; use poisson with the mean rate"
    if arrivals.process == "trace" and arrivals.columns and arrivals.format != "csv":
        yield "arrivals.columns", f"is for format csv only; the columns of {arrivals.format} are known"


def _who(field: str, choice: Choice) -> Iterator[Finding]:
    try:
        names = expand(choice.names)
    except ValueError as error:
        yield field, str(error)
        return
    for name in names:
        if (problem := name_problem(field, name)) is not None:
            yield field, problem


def _generate(stream: StreamSpec) -> Iterator[Finding]:
    if stream.prompt is None:
        yield "prompt", f"is missing; {stream.api} needs it: {{tokens: 100}}"
    if stream.output is None and stream.conversation:
        yield "output", "is missing; a conversation needs it, because answers stand in later turns: {tokens: 50}"
    if stream.inputs:
        yield "inputs", f"are tensors of oip; this stream is {stream.api}"
    if stream.prompt and stream.prompt.inputs > 1:
        yield "prompt.inputs", f"is for embeddings only; this stream is {stream.api}"
    if stream.conversation and stream.api != "chat":
        yield "conversation", f"is for chat only; this stream is {stream.api}"


def _embeddings(stream: StreamSpec) -> Iterator[Finding]:
    if stream.prompt is None:
        yield "prompt", "is missing; embeddings need it: {tokens: 100}"
    for field in ("output", "conversation", "inputs"):
        if getattr(stream, field):
            yield field, "is not for embeddings; remove it"


def _oip(stream: StreamSpec) -> Iterator[Finding]:
    if not stream.inputs:
        yield "inputs", "are missing; oip needs tensors: [{name: x, datatype: FP32, shape: [1, 4]}]"
    for field in ("prompt", "output", "conversation"):
        if getattr(stream, field):
            yield field, "is not for oip, which takes inputs; remove it"
    names = [tensor.name for tensor in stream.inputs]
    for index, tensor in enumerate(stream.inputs):
        if tensor.name in names[:index]:
            yield f"inputs.{index}.name", f"{tensor.name!r} stands there twice"
        if prod(tensor.shape) > MAX_TENSOR_VALUES:
            yield f"inputs.{index}.shape", f"has {prod(tensor.shape)} values; at most {MAX_TENSOR_VALUES} are allowed"


def _prompt(stream: StreamSpec) -> Iterator[Finding]:
    prompt = stream.prompt
    if prompt is None:
        return
    if (prompt.tokens is None) == (prompt.file is None):
        yield "prompt", "needs exactly one of tokens and file"
    if prompt.inputs > MAX_INPUTS:
        yield "prompt.inputs", f"{prompt.inputs} is more than {MAX_INPUTS}"
    if prompt.shared_prefix and prompt.shared_prefix.groups > MAX_GROUPS:
        yield "prompt.shared_prefix.groups", f"{prompt.shared_prefix.groups} is more than {MAX_GROUPS}"
    if prompt.file and prompt.shared_prefix and stream.api != "chat":
        yield "prompt.shared_prefix", "goes with a file in chat only, where it is the system message"


def _amounts(stream: StreamSpec) -> Iterator[Finding]:
    prompt, conversation = stream.prompt, stream.conversation
    from_trace = isinstance(stream.arrivals, Trace) and not conversation
    shared = prompt.shared_prefix if prompt else None
    yield from _amount("prompt.tokens", prompt.tokens if prompt else None, from_trace)
    yield from _amount("output.tokens", stream.output.tokens if stream.output else None, from_trace)
    yield from _amount("prompt.shared_prefix.tokens", shared.tokens if shared else None, False)
    yield from _amount("conversation.turns", conversation.turns if conversation else None, False)
    if conversation and (most := _most(conversation.turns)) > MAX_TURNS:
        yield "conversation.turns", f"may be up to {most:g}; give it a max of at most {MAX_TURNS}"
    yield from _amount("conversation.think_s", conversation.think_s if conversation else None, False, whole=False)


def _amount(field: str, amount: Amounts | None, from_trace: bool, *, whole: bool = True) -> Iterator[Finding]:
    if amount is None:
        return
    if isinstance(amount, FromTrace):
        if not from_trace:
            yield field, "trace is for prompt and output where arrivals are {process: trace}, without a conversation"
        return
    if _most(amount) > MAX_AMOUNT:
        yield field, f"may be up to {_most(amount):g}; give it a max of at most {MAX_AMOUNT}"
    if not isinstance(amount, Fixed) and amount.min > amount.max:
        yield f"{field}.min", f"{amount.min:g} is above max, {amount.max:g}"
    elif whole and isinstance(amount, Uniform) and ceil(amount.min) > floor(amount.max):
        yield field, f"there is no whole number from {amount.min:g} to {amount.max:g}"


def _most(amount: Amounts) -> float:
    return 0 if isinstance(amount, FromTrace) else amount.value if isinstance(amount, Fixed) else amount.max


def _answers(stream: StreamSpec) -> Iterator[Finding]:
    generates = stream.api in ("chat", "completions")
    if stream.cancel_after_tokens and not (generates and stream.streamed):
        yield "cancel_after_tokens", "needs a streamed answer: api chat or completions, and streamed: true"
    if stream.check == "echo" and not generates:
        yield "check", f"echo is for chat and completions; this stream is {stream.api}: use shape"


def _body(stream: StreamSpec) -> Iterator[Finding]:
    for field in stream.body:
        if field in reserved_fields(stream.api):
            yield f"body.{field}", "is written by the harness itself; it comes from the stream's other fields"
    if not _finite(stream.body):
        yield "body", "has a number that JSON does not know: nan or infinity"


def _finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or isfinite(value)
