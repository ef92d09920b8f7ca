"""`cotenant usage`: lines of usage.jsonl → one sum for each group. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from cotenant_operator.failure import FlagError
from cotenant_operator.instants import utc
from cotenant_operator.near import hint
from cotenant_operator.quantity import parse_seconds
from cotenant_serving.contract_usage import UsageLine

FIELDS = ("tenant", "model", "outcome", "day")
"""What can be summed by; `day` is a day of UTC."""
FINE = frozenset({"ok", "client_closed"})
"""Outcomes that are no errors: the client had its answer, or did not want it any more."""

Group = tuple[str, ...]


@dataclass(slots=True)
class Sum:
    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0
    """Requests whose tokens are estimated."""
    duration_s: float = 0.0
    first: float | None = None
    last: float | None = None

    def add(self, line: UsageLine) -> None:
        self.requests += 1
        self.errors += line.outcome not in FINE
        self.prompt_tokens += line.prompt_tokens
        self.completion_tokens += line.completion_tokens
        self.estimated += line.estimated
        self.duration_s += line.duration_s
        self.first = line.time if self.first is None else min(self.first, line.time)
        self.last = line.time if self.last is None else max(self.last, line.time)


@dataclass(slots=True)
class Usage:
    by: tuple[str, ...]
    since: float | None
    groups: dict[Group, Sum] = field(default_factory=dict)
    total: Sum = field(default_factory=Sum)
    damaged: int = 0
    """Lines that are no records; they are in no sum."""


def sum_up(lines: Iterable[bytes], by: Sequence[str], since: float | None) -> Usage:
    """Each request once, however often its line stands there. A last line without an end is still being written."""
    usage = Usage(tuple(by), since)
    decoder = msgspec.json.Decoder(UsageLine)
    seen: set[int] = set()
    for raw in lines:
        try:
            line = decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            usage.damaged += raw.endswith(b"\n") and bool(raw.strip())
            continue
        if not line.has_day:
            usage.damaged += 1
            continue
        if since is not None and line.time < since:
            continue
        mark = hash(line.request_id)  # a number for each of millions of ids
        if mark not in seen:
            seen.add(mark)
            usage.groups.setdefault(_group(line, usage.by), Sum()).add(line)
            usage.total.add(line)
    return usage


def parse_by(text: str) -> tuple[str, ...]:
    """`tenant,model` → its fields. Raises FlagError."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in FIELDS:
            raise FlagError(f"--by {name!r} is no field of usage; {hint(name, FIELDS)}")
    if not names:
        raise FlagError(f"--by names no field; say some of: {', '.join(FIELDS)}")
    return names


def parse_since(text: str, now_s: float) -> float:
    """`1h30m`, `7d` (before now), `2026-11-26`, `2026-11-26T10:00` (local, unless it says where) → Unix seconds.

    Raises FlagError.
    """
    try:
        since = _since(text, now_s)
        utc(since)  # it must be a moment that can be shown
    except (ValueError, OverflowError, OSError):
        raise FlagError(
            f"--since {text[:80]!r} is no time; say a duration such as 1h30m or 7d, or a date such as 2026-11-26 "
            "or 2026-11-26T10:00"
        ) from None
    return since


def _since(text: str, now_s: float) -> float:
    days, _, rest = text.partition("d")
    if days.isdigit() and not rest:
        return now_s - int(days) * 86_400
    if text[:1].isdigit() and text[-1:] in "hms":
        return now_s - parse_seconds(text)
    return datetime.fromisoformat(text).timestamp()


def usage_rows(usage: Usage, *, wide: bool) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row for each group, by name, and one for all when there are several."""
    columns = (*(name.upper() for name in usage.by), "REQUESTS", "ERRORS", "PROMPT", "COMPLETION", "ESTIMATED")
    columns += ("MEAN TIME", "FIRST", "LAST") if wide else ()
    rows = [(*group, *_cells(found, wide)) for group, found in sorted(usage.groups.items())]
    if len(rows) > 1:
        rows.append((*("total", *("" for _ in usage.by[1:])), *_cells(usage.total, wide)))
    return columns, rows


def usage_document(usage: Usage) -> dict[str, Any]:
    return {
        "by": list(usage.by),
        "since": _time(usage.since),
        "rows": [
            {**dict(zip(usage.by, group, strict=True)), **_values(found)}
            for group, found in sorted(usage.groups.items())
        ],
        "total": _values(usage.total),
        "damaged_lines": usage.damaged,
    }


def _group(line: UsageLine, by: Sequence[str]) -> Group:
    return tuple(utc(line.time)[:10] if name == "day" else getattr(line, name) for name in by)


def _cells(found: Sum, wide: bool) -> tuple[str, ...]:
    counts = (found.requests, found.errors, found.prompt_tokens, found.completion_tokens, found.estimated)
    mean = f"{found.duration_s / found.requests:.2f} s" if found.requests else "-"
    return (*map(str, counts), *((mean, _time(found.first) or "-", _time(found.last) or "-") if wide else ()))


def _values(found: Sum) -> dict[str, Any]:
    return {
        "requests": found.requests,
        "errors": found.errors,
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "total_tokens": found.prompt_tokens + found.completion_tokens,
        "estimated_requests": found.estimated,
        "duration_s": round(found.duration_s, 3),
        "first": _time(found.first),
        "last": _time(found.last),
    }


def _time(unix_s: float | None) -> str | None:
    return None if unix_s is None else utc(unix_s)
