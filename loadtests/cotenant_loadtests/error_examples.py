"""What went wrong, by outcome, status, detail, tenant and model: the most frequent of them. Pure."""

from collections.abc import Iterable, Sequence

from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import Record
from cotenant_loadtests.results import ErrorExample

MOST_EXAMPLES = 50
MOST_DETAIL = 200


def error_examples(plan: Sequence[Planned], measured: Iterable[Record]) -> tuple[ErrorExample, ...]:
    """Most frequent first; at least one of each outcome, as far as MOST_EXAMPLES goes."""
    counts: dict[tuple[str, int, str, str, str], int] = {}
    first_us: dict[tuple[str, int, str, str, str], int] = {}
    for record in measured:
        if record.success:
            continue
        one = plan[record.id]
        kind = (record.outcome, record.status, record.detail[:MOST_DETAIL], one.tenant, one.model)
        counts[kind] = counts.get(kind, 0) + 1
        first_us[kind] = min(first_us.get(kind, record.scheduled_us), record.scheduled_us)
    kept = _some_of_each(sorted(counts, key=lambda kind: (-counts[kind], kind)))
    return tuple(
        ErrorExample(
            outcome=kind[0],
            status=kind[1],
            detail=kind[2],
            tenant=kind[3],
            model=kind[4],
            count=counts[kind],
            first_at_s=first_us[kind] / 1e6,
        )
        for kind in kept
    )


def _some_of_each(kinds: list[tuple[str, int, str, str, str]]) -> list[tuple[str, int, str, str, str]]:
    """The first of each outcome stay, then the most frequent; in the order given."""
    firsts = {kind[0]: kind for kind in reversed(kinds)}
    rest = [kind for kind in kinds if firsts[kind[0]] != kind]
    kept = {*firsts.values(), *rest[: max(0, MOST_EXAMPLES - len(firsts))]}
    return [kind for kind in kinds if kind in kept]
