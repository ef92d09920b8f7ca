"""The ledger of a cluster's usage: what gateways have sent, as the data of ConfigMaps. Pure.

    cotenant-usage-2026-11-26      labels cotenant.dev/usage: "true", cotenant.dev/usage-day: 2026-11-26
      day        2026-11-26 (UTC)
      totals     JSON, one array for each tenant, model and outcome, in the order of `Row`
      sequences  JSON, "GATEWAY/BOOT" → number of its last batch that is in `totals`
    cotenant-usage-2026-11-26-2    the day's next part, once the first has no room for new rows

Totals and sequences change in one write, so a batch is in a part wholly or not at all, and a second time never.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cotenant_operator.instants import utc
from cotenant_operator.usage_report import FINE, Sum, Usage
from cotenant_serving.contract_usage import UsageBatch, UsageTotal

LABEL, DAY_LABEL = "cotenant.dev/usage", "cotenant.dev/usage-day"
CLOSED_BYTES = 512 << 10
"""A part of so many bytes takes no new rows; a ConfigMap may have twice as many."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAY_S = 86_400


class LedgerError(Exception):
    """A batch or a ConfigMap is not what it should be; the message says which field."""


class Row(msgspec.Struct, array_like=True):
    """As `UsageTotal`, of one day."""

    tenant: str
    model: str
    outcome: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0
    duration_s: float = 0.0
    first: float = 0.0
    last: float = 0.0

    def add(self, total: UsageTotal) -> None:
        self.first = min(self.first, total.first) if self.requests else total.first
        self.last = max(self.last, total.last)
        self.requests += total.requests
        self.prompt_tokens += total.prompt_tokens
        self.completion_tokens += total.completion_tokens
        self.estimated += total.estimated
        self.duration_s = round(self.duration_s + total.duration_s, 3)


Key = tuple[str, str, str]


class Part:
    """One ConfigMap's data, read."""

    def __init__(self, day: str, data: Mapping[str, str]) -> None:
        """Raises LedgerError."""
        self.day = day
        try:
            rows = msgspec.json.decode(data.get("totals", "[]"), type=list[Row])
            self.sequences = msgspec.json.decode(data.get("sequences", "{}"), type=dict[str, int])
        except msgspec.MsgspecError as problem:
            raise LedgerError(f"usage of {day}: the ConfigMap's data is damaged: {problem}") from None
        self.rows = {(row.tenant, row.model, row.outcome): row for row in rows}
        self.bytes = len(data.get("totals", ""))

    def data(self) -> dict[str, str]:
        rows = [self.rows[key] for key in sorted(self.rows)]
        return {
            "day": self.day,
            "totals": msgspec.json.encode(rows).decode(),
            "sequences": msgspec.json.encode(self.sequences, order="sorted").decode(),
        }


def ledger_name(day: str, part: int = 0) -> str:
    """Of a ConfigMap. `part` counts from 0."""
    return f"cotenant-usage-{day}-{part + 1}" if part else f"cotenant-usage-{day}"


def ledger_labels(day: str) -> dict[str, str]:
    return {LABEL: "true", DAY_LABEL: day}


def days_of(batch: UsageBatch) -> tuple[str, ...]:
    """Raises LedgerError: a day becomes part of a name."""
    for total in batch.totals:
        if not _DAY.fullmatch(total.day):
            raise LedgerError(f"totals: day {total.day[:40]!r} is no date such as 2026-11-26")
    return tuple(sorted({total.day for total in batch.totals}))


def changes(
    batch: UsageBatch, day: str, parts: Sequence[Mapping[str, str]], *, closed_bytes: int = CLOSED_BYTES
) -> list[tuple[int, dict[str, str]]]:
    """The parts of this day that get new data, with their numbers; none when the batch is there already.

    `parts`: the data of the day's ConfigMaps, from the first on. Write in the order given, each only if it is still
    what was read, or not there yet; when one is not, read the day again and ask again. Raises LedgerError.
    """
    known = [Part(day, data) for data in parts]
    totals = [total for total in batch.totals if total.day == day]
    marker = f"{batch.gateway}/{batch.boot}"
    placed: dict[int, list[UsageTotal]] = {}
    for total in totals:
        placed.setdefault(_place(total, known, closed_bytes), []).append(total)
    result = []
    for number in sorted(placed):
        part = known[number]
        if part.sequences.get(marker, 0) < batch.sequence:
            for total in placed[number]:
                key = (total.tenant, total.model, total.outcome)
                part.rows.setdefault(key, Row(*key)).add(total)
            part.sequences[marker] = batch.sequence
            result.append((number, part.data()))
    return result


def _place(total: UsageTotal, parts: list[Part], closed_bytes: int) -> int:
    """The part that has the row, or the first with room for a new one: a closed part stays closed, so a batch that
    was added in part finds its rows where they were put."""
    key = (total.tenant, total.model, total.outcome)
    for number, part in enumerate(parts):
        if key in part.rows:
            return number
    for number, part in enumerate(parts):
        if part.bytes < closed_bytes:
            return number
    parts.append(Part(total.day, {}))
    return len(parts) - 1


def whole_days(since: float | None) -> float | None:
    """The beginning of the day (UTC) of `since`: the ledger knows no more."""
    return None if since is None else since // _DAY_S * _DAY_S


def begins_later(ledgers: Iterable[Mapping[str, str]], since: float | None) -> str:
    """The first day of the ConfigMaps' data, if `since` is before it; else empty."""
    days = [data["day"] for data in ledgers if data.get("day")]
    return min(days) if days and since is not None and utc(since)[:10] < min(days) else ""


def usage_of(ledgers: Iterable[Mapping[str, str]], by: Sequence[str], since: float | None) -> Usage:
    """The ConfigMaps' data → what `usage_rows` and `usage_document` show. `since`: see `whole_days`.

    `damaged` counts the ConfigMaps that cannot be read; they are in no sum.
    """
    usage = Usage(tuple(by), whole_days(since))
    first_day = "" if since is None else utc(since)[:10]
    for data in ledgers:
        day = data.get("day", "")
        try:
            part = Part(day, data)
        except LedgerError:
            usage.damaged += 1
            continue
        if day >= first_day:
            for row in part.rows.values():
                group = tuple(day if name == "day" else getattr(row, name) for name in by)
                _add(usage.groups.setdefault(group, Sum()), row)
                _add(usage.total, row)
    return usage


def _add(found: Sum, row: Row) -> None:
    found.requests += row.requests
    found.errors += 0 if row.outcome in FINE else row.requests
    found.prompt_tokens += row.prompt_tokens
    found.completion_tokens += row.completion_tokens
    found.estimated += row.estimated
    found.duration_s += row.duration_s
    found.first = row.first if found.first is None else min(found.first, row.first)
    found.last = row.last if found.last is None else max(found.last, row.last)
