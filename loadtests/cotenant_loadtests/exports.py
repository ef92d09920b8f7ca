"""One row per request, as CSV or Parquet: every request of a run, measured or not. The only writer of these files."""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cotenant_loadtests.columns import Columns, columns_of, event_times
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import NEVER, Record
from cotenant_loadtests.run_output import RunOutput

Kind = Literal["integer", "number", "text", "yes or no", "numbers"]
_ROWS_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class _Rows:
    planned: Sequence[Planned]
    records: Sequence[Record]
    columns: Columns


@dataclass(frozen=True, slots=True)
class Column:
    """`values`: of some rows at once; None where there is none."""

    name: str
    kind: Kind
    about: str
    values: Callable[[_Rows], list[Any]]


def _of_plan(name: str, kind: Kind, about: str) -> Column:
    return Column(name, kind, about, lambda rows: [getattr(one, name) for one in rows.planned])


def _of_record(name: str, kind: Kind, about: str, *, none: float | None = None) -> Column:
    def values(rows: _Rows) -> list[Any]:
        found = [getattr(record, name) for record in rows.records]
        return [None if value == none else value for value in found] if none is not None else found

    return Column(name, kind, about, values)


def _since_scheduled(name: str, field: str, about: str) -> Column:
    def values(rows: _Rows) -> list[float | None]:
        at_us = getattr(rows.columns, field)
        return _in_ms(at_us - rows.columns.scheduled_us, at_us != NEVER)

    return Column(name, "number", about, values)


def _latency(name: str, field: str, about: str) -> Column:
    def values(rows: _Rows) -> list[float | None]:
        latency_us = getattr(rows.columns, field)
        return _in_ms(latency_us, latency_us != NEVER)

    return Column(name, "number", about, values)


def _in_ms(values_us: NDArray[np.int64], known: NDArray[np.bool_]) -> list[float | None]:
    pairs = zip((values_us / 1000).tolist(), known.tolist(), strict=True)
    return [value if there else None for value, there in pairs]


def _token_times_ms(rows: _Rows) -> list[list[float]]:
    of, at_us, _ = event_times(rows.columns.token_times.tolist())
    since_ms = ((at_us - rows.columns.scheduled_us[of]) / 1000).tolist()
    ends = np.cumsum(np.bincount(of, minlength=len(rows.records))).tolist()
    return [since_ms[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


COLUMNS: tuple[Column, ...] = (
    _of_record("id", "integer", "Its place in the plan, from 0."),
    _of_plan("stream", "text", "Of the scenario."),
    _of_plan("tenant", "text", "Whose key was sent."),
    _of_plan("model", "text", "Of the request's body."),
    _of_plan("api", "text", "`chat`, `completions`, `embeddings` or `oip`."),
    _of_plan("streamed", "yes or no", "Asked for server-sent events."),
    _of_record("process", "integer", "Worker process that sent it."),
    _of_record("outcome", "text", "What became of it; see [outcomes](#outcomes)."),
    _of_record("status", "integer", "HTTP status; 0: none came."),
    _of_record("detail", "text", "A word on what went wrong."),
    _of_record("request_id", "text", "The server's `x-request-id`."),
    _of_record("retry_after_s", "number", "The server's `retry-after`; empty: none came.", none=-1.0),
    _of_record("server_timing", "text", "The server's `server-timing`: phases until its answer began."),
    Column(
        "scheduled_s",
        "number",
        "When it was due, in seconds from the start of the run.",
        lambda rows: (rows.columns.scheduled_us / 1e6).tolist(),
    ),
    _since_scheduled("sent_ms", "sent_us", "Scheduled to sent; empty: never sent."),
    _latency("lateness_ms", "lateness_us", "Scheduled to sent, less the wait for a connection to open."),
    Column(
        "connect_ms",
        "number",
        "How long it waited for a connection to open.",
        lambda rows: (rows.columns.connect_us / 1000).tolist(),
    ),
    _since_scheduled("first_byte_ms", "first_byte_us", "Scheduled to the first byte of the answer."),
    _since_scheduled("first_token_ms", "first_token_us", "Scheduled to the first event with text, also of failures."),
    _since_scheduled("end_ms", "end_us", "Scheduled to the end, also of failures."),
    _latency("ttft_ms", "ttft_us", "TTFT as in the results; empty where the request has none."),
    _latency("tpot_ms", "tpot_us", "TPOT as in the results."),
    _latency("e2e_ms", "e2e_us", "E2E as in the results."),
    _of_record("prompt_tokens", "integer", "By the server's usage; empty: it told none.", none=NEVER),
    _of_record("completion_tokens", "integer", "By the server's usage; empty: it told none.", none=NEVER),
    _of_record("events", "integer", "Events with text, as counted here."),
    _of_record("bytes_in", "integer", "Received."),
    _of_record("bytes_out", "integer", "Sent."),
    Column(
        "token_times_ms",
        "numbers",
        "Scheduled to each event with text; not in CSV.",
        _token_times_ms,
    ),
)


def write_requests(path: Path, output: RunOutput) -> None:
    """`path` ends in `.csv` or `.parquet`; raises ValueError for any other. Rows in the order of the records."""
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise ValueError(f"writing requests to {path}: a name ends in .csv or .parquet")
    writers[path.suffix](path, output)


def _write_csv(path: Path, output: RunOutput) -> None:
    columns = [column for column in COLUMNS if column.kind != "numbers"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in columns])
        for rows in _in_parts(output):
            writer.writerows(zip(*(_as_text(column, rows) for column in columns), strict=True))


def _as_text(column: Column, rows: _Rows) -> list[Any]:
    values = column.values(rows)
    return [str(value).lower() for value in values] if column.kind == "yes or no" else values


def _write_parquet(path: Path, output: RunOutput) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "integer": pa.int64(),
        "number": pa.float64(),
        "text": pa.string(),
        "yes or no": pa.bool_(),
        "numbers": pa.list_(pa.float64()),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in COLUMNS])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _in_parts(output):
            arrays = [pa.array(column.values(rows), types[column.kind]) for column in COLUMNS]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _in_parts(output: RunOutput) -> Iterator[_Rows]:
    """Bounds the memory that a long run's rows take."""
    for start in range(0, len(output.records), _ROWS_AT_ONCE):
        records = output.records[start : start + _ROWS_AT_ONCE]
        yield _Rows([output.plan[record.id] for record in records], records, columns_of(output.plan, records))
