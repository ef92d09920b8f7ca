"""Usage lines → the totals that are sent to the operator. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from cotenant_serving.contract_usage import UsageLine, UsageTotal

_DAY_S = 86_400


class Seen:
    """Ids of the last requests that were counted: a line may stand there twice, soon after each other."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._ids: dict[int, None] = {}

    def add(self, request_id: str) -> bool:
        """False when it was there."""
        mark = hash(request_id)  # a number for each
        if mark in self._ids:
            return False
        self._ids[mark] = None
        if len(self._ids) > self._most:
            del self._ids[next(iter(self._ids))]
        return True


def totals_of(lines: Iterable[bytes], seen: Seen) -> tuple[tuple[UsageTotal, ...], int]:
    """Each request once. Returns the totals, and how many lines are damaged and in no total."""
    decoder = msgspec.json.Decoder(UsageLine)
    found: dict[tuple[int, str, str, str], list[UsageLine]] = {}
    damaged = 0
    for raw in lines:
        try:
            line = decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            damaged += bool(raw.strip())
            continue
        if not line.has_day:
            damaged += 1
        elif seen.add(line.request_id):
            key = (int(line.time // _DAY_S), line.tenant, line.model, line.outcome)
            found.setdefault(key, []).append(line)
    return tuple(_total(key, found[key]) for key in sorted(found)), damaged


def _total(key: tuple[int, str, str, str], lines: list[UsageLine]) -> UsageTotal:
    day, tenant, model, outcome = key
    return UsageTotal(
        day=datetime.fromtimestamp(day * _DAY_S, UTC).date().isoformat(),
        tenant=tenant,
        model=model,
        outcome=outcome,
        requests=len(lines),
        prompt_tokens=sum(line.prompt_tokens for line in lines),
        completion_tokens=sum(line.completion_tokens for line in lines),
        estimated=sum(line.estimated for line in lines),
        duration_s=round(sum(line.duration_s for line in lines), 3),
        first=min(line.time for line in lines),
        last=max(line.time for line in lines),
    )
