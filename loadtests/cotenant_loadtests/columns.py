"""Records as columns, one row for each: what the analysis reckons with. Pure.

    plan + records ─▶ columns.py ─▶ measures · timeline · steps · fairness_index ─▶ summary

Latencies count from the scheduled time, in whole microseconds, NEVER (-1) where there is none:

- **TTFT**: the first event with text; of an answer that is not streamed, its end. Of successes.
- **E2E**: the end. Of whole answers: `ok`, not `cancelled`.
- **TPOT**: (end - first token) / (tokens - 1). Of whole streamed answers with two tokens or more; tokens as the
  server counted them, or else our own count of events with text.
- **ITL**: the gaps between events with text, of streamed successes.

A request that failed has no latency: it counts in the success rate and in goodput instead.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from cotenant_loadtests.histogram import Ints
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import NEVER, SUCCESSES, Outcome, Record
from cotenant_loadtests.spec import Goodput

Bools = NDArray[np.bool_]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_CODES = {outcome: code for code, outcome in enumerate(OUTCOMES)}
_SUCCESS = np.array([outcome in SUCCESSES for outcome in OUTCOMES])
_GENERATES = ("chat", "completions")
_ROWS_AT_ONCE = 2_000
"""Token times of so many fit into a core's cache, which halves the time of decoding; and the memory is bounded."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the numbers of the columns `tenant`, `model` and `stream` stand for; each sorted."""

    tenants: tuple[str, ...]
    models: tuple[str, ...]
    streams: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Arrays of equal length; rows in the order of the records. Tokens are completion tokens."""

    names: Names
    tenant: Ints
    model: Ints
    stream: Ints
    process: Ints
    outcome: Ints
    """Index into OUTCOMES."""
    streamed: Bools
    generates: Bools
    """Its API writes tokens: chat and completions do, embeddings and OIP do not."""
    scheduled_us: Ints
    sent_us: Ints
    connect_us: Ints
    first_byte_us: Ints
    first_token_us: Ints
    end_us: Ints
    lateness_us: Ints
    prompt_tokens: Ints
    tokens: Ints
    token_times: NDArray[np.object_]
    """As record.py encodes them."""

    def __len__(self) -> int:
        return len(self.outcome)

    def rows(self, wanted: Bools | Ints) -> "Columns":
        """Those of a mask, or of indices in their order."""
        arrays = {item.name: getattr(self, item.name)[wanted] for item in fields(self) if item.name != "names"}
        return Columns(names=self.names, **arrays)

    def had(self, *outcomes: Outcome) -> Bools:
        return np.isin(self.outcome, [_CODES[outcome] for outcome in outcomes])

    @property
    def success(self) -> Bools:
        return _SUCCESS[self.outcome]

    @property
    def whole(self) -> Bools:
        return self.had("ok")

    @property
    def ttft_us(self) -> Ints:
        first = np.where(self.streamed, self.first_token_us, self.end_us)
        return np.where(self.success & (first != NEVER), first - self.scheduled_us, NEVER)

    @property
    def e2e_us(self) -> Ints:
        return np.where(self.whole, self.end_us - self.scheduled_us, NEVER)

    @property
    def tpot_us(self) -> Ints:
        has = self.whole & self.streamed & (self.tokens > 1) & (self.first_token_us != NEVER)
        per_token = (self.end_us - self.first_token_us) / np.maximum(self.tokens - 1, 1)
        return np.where(has, np.rint(per_token).astype(np.int64), NEVER)

    def good(self, goodput: Goodput | None) -> Bools:
        """Succeeded within all limits; a limit on a latency that a request does not have is met."""
        good = self.success
        if goodput is None:
            return good
        limits = ((goodput.ttft_ms, self.ttft_us), (goodput.tpot_ms, self.tpot_us), (goodput.e2e_ms, self.e2e_us))
        for limit_ms, latency_us in limits:
            if limit_ms is not None:
                good = good & (latency_us <= limit_ms * 1000)
        return good


def columns_of(plan: Sequence[Planned], records: Sequence[Record]) -> Columns:
    """`plan[record.id]` is what a record is of."""
    planned = [plan[record.id] for record in records]
    names = Names(*(tuple(sorted({getattr(one, name) for one in planned})) for name in ("tenant", "model", "stream")))
    numbers = [
        {name: number for number, name in enumerate(some)} for some in (names.tenants, names.models, names.streams)
    ]
    times = np.empty(len(records), np.object_)
    times[:] = [record.token_times for record in records]
    return Columns(
        names=names,
        tenant=_ints(planned, lambda one: numbers[0][one.tenant]),
        model=_ints(planned, lambda one: numbers[1][one.model]),
        stream=_ints(planned, lambda one: numbers[2][one.stream]),
        process=_ints(records, lambda record: record.process),
        outcome=_ints(records, lambda record: _CODES[record.outcome]),
        streamed=_ints(planned, lambda one: one.streamed).astype(np.bool_),
        generates=_ints(planned, lambda one: one.api in _GENERATES).astype(np.bool_),
        scheduled_us=_ints(records, lambda record: record.scheduled_us),
        sent_us=_ints(records, lambda record: record.sent_us),
        connect_us=_ints(records, lambda record: record.connect_us),
        first_byte_us=_ints(records, lambda record: record.first_byte_us),
        first_token_us=_ints(records, lambda record: record.first_token_us),
        end_us=_ints(records, lambda record: record.end_us),
        lateness_us=_ints(records, lambda record: record.lateness_us),
        prompt_tokens=np.array(list(map(_prompt_tokens, planned, records)), np.int64),
        tokens=np.array(list(map(completion_tokens, planned, records)), np.int64),
        token_times=times,
    )


def completion_tokens(planned: Planned, record: Record) -> int:
    """By the server's usage where it told, else our count of events with text; none where nothing is generated."""
    if planned.api not in _GENERATES:
        return 0
    return record.events if record.completion_tokens == NEVER else record.completion_tokens


@dataclass(frozen=True, slots=True)
class Tokens:
    """Events with text. Their `tokens` sum to the row's: a server may put several into one event."""

    row: Ints
    at_us: Ints
    gap_us: Ints
    """From the event before; NEVER for the first of a row."""
    tokens: NDArray[np.float64]


def tokens_in_parts(columns: Columns) -> Iterator[Tokens]:
    """Every event with text of all rows, some thousand rows at a time; a row without token times has one, at its end.

    A row whose server told no token and whose events none has none.
    """
    for start in range(0, len(columns), _ROWS_AT_ONCE):
        yield _tokens(columns, np.arange(start, min(start + _ROWS_AT_ONCE, len(columns))))


def _tokens(columns: Columns, rows: Ints) -> Tokens:
    of, at_us, gap_us = event_times(columns.token_times[rows].tolist())
    counts = np.bincount(of, minlength=len(rows))
    share = columns.tokens[rows] / np.maximum(counts, 1)
    lumps = rows[(counts == 0) & (columns.tokens[rows] > 0) & (columns.end_us[rows] != NEVER)]
    return Tokens(
        row=np.concatenate([rows[of], lumps]),
        at_us=np.concatenate([at_us, columns.end_us[lumps]]),
        gap_us=np.concatenate([gap_us, np.full(len(lumps), NEVER)]),
        tokens=np.concatenate([share[of], columns.tokens[lumps].astype(np.float64)]),
    )


def event_times(encoded: Sequence[bytes]) -> tuple[Ints, Ints, Ints]:
    """`decode_times` of many: (which of `encoded` an event is of, its time, the gap from the one before or NEVER)."""
    steps, counts = decode_steps(encoded)
    firsts = (np.cumsum(counts) - counts)[counts > 0]
    reached = np.cumsum(steps)
    at_us = reached - np.repeat(reached[firsts] - steps[firsts], counts[counts > 0])
    steps[firsts] = NEVER
    return np.repeat(np.arange(len(encoded)), counts), at_us, steps


def decode_steps(encoded: Sequence[bytes]) -> tuple[Ints, Ints]:
    """What `record.encode_times` wrote, many at once → (differences, how many of them each of `encoded` has).

    The first difference of each counts from 0, so it is a time.
    """
    raw = np.frombuffer(b"".join(encoded), np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    steps = (raw[starts] & 0x7F).astype(np.int64)
    lengths = ends - starts
    for place in range(1, int(lengths.max(initial=0)) + 1):
        longer = np.flatnonzero(lengths >= place)
        steps[longer] |= (raw[starts[longer] + place] & 0x7F).astype(np.int64) << (7 * place)
    edges = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    return steps, np.diff(np.searchsorted(ends, edges), prepend=0)


def _prompt_tokens(planned: Planned, record: Record) -> int:
    """By the server's usage, else the words that were sent: a token each for most tokenizers."""
    if record.prompt_tokens != NEVER:
        return record.prompt_tokens
    return sum(
        len(message.text.split()) if message.text is not None else sum(segment.tokens for segment in message.segments)
        for message in planned.messages
    )


def _ints(items: Sequence[Any], value: Callable[[Any], int]) -> Ints:
    return np.fromiter(map(value, items), np.int64, len(items))
