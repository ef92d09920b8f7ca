"""A plan divided over worker processes. Pure."""

from collections.abc import Sequence

from cotenant_loadtests.planned import Planned


def shares(plan: Sequence[Planned], processes: int) -> list[list[Planned]]:
    """At most `processes` shares, none of them empty: in turn by arrival, the turns of a conversation together."""
    parts: list[list[Planned]] = [[] for _ in range(processes)]
    part_of: dict[int, int] = {}
    arrivals = 0
    for request in plan:
        if request.after is None:
            part_of[request.id] = arrivals % processes
            arrivals += 1
        else:
            part_of[request.id] = part_of[request.after]
        parts[part_of[request.id]].append(request)
    return [part for part in parts if part]
