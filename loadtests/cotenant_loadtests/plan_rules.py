"""What must hold within one request of a plan file beyond the bounds of its values. Pure."""

from collections.abc import Iterator
from math import prod

from cotenant_loadtests.bodies import reserved_fields
from cotenant_loadtests.names import name_problem
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.stream_rules import MAX_TENSOR_VALUES


def line_findings(planned: Planned, place: int, duration_s: float) -> Iterator[str]:
    """Sentences that begin with the field. `place`: of the request in the plan, which lasts `duration_s`."""
    yield from _when(planned, place, duration_s)
    for field, name in (("tenant", planned.tenant), ("model", planned.model)):
        if (problem := name_problem(field, name)) is not None:
            yield f"{field}: {problem}"
    yield from _contents(planned)
    for field in planned.body:
        if field in reserved_fields(planned.api):
            yield f"body.{field} is written by the harness itself; it comes from the other fields"


def _when(planned: Planned, place: int, duration_s: float) -> Iterator[str]:
    if planned.id != place:
        yield f"id is {planned.id}, but its place is {place}"
    if (planned.at_s is None) == (planned.after is None):
        yield "needs exactly one of at_s and after"
    if planned.after is not None and planned.after >= place:
        yield f"after is {planned.after}; it must be a request above"
    if planned.at_s is not None and planned.at_s >= duration_s:
        yield (
            f"at_s is {planned.at_s:.12g}, but its first line says that the plan lasts {duration_s:.12g} s "
            "(duration_s)"
        )


def _contents(planned: Planned) -> Iterator[str]:
    if planned.api == "oip":
        if not planned.tensors:
            yield "tensors are missing; oip needs one or more"
        if any(prod(tensor.shape) > MAX_TENSOR_VALUES for tensor in planned.tensors):
            yield f"tensors: one has more than {MAX_TENSOR_VALUES} values"
    elif not planned.messages or (planned.api == "completions" and len(planned.messages) > 1):
        wanted = "one" if planned.api == "completions" else "one or more"
        yield f"messages: {len(planned.messages)}; {planned.api} needs {wanted}"
