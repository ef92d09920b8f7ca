"""Traces: when requests came somewhere, and how long they were. The only place that reads such files.

| format | a row |
| --- | --- |
| `azure` | CSV: `TIMESTAMP`, `ContextTokens`, `GeneratedTokens` (Azure LLM inference traces, 2023 and 2024) |
| `mooncake` | JSON: `timestamp` (ms), `input_length`, `output_length`, and `hash_ids` of blocks that prompts share |
| `csv` | CSV: `time_s`, `prompt_tokens`, `output_tokens`, or what `columns` calls them |

A trace names neither tenants nor models: each of its requests draws them as the scenario says.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from cotenant_loadtests.problems import one_of, refused
from cotenant_loadtests.seeded import Source
from cotenant_loadtests.shipped import find_file
from cotenant_loadtests.spec_values import Trace

MAX_BYTES = 2**30
MAX_ROWS = 1_000_000
MAX_TOKENS = 10_000_000
BLOCK_TOKENS = 512
"""Of Mooncake's `hash_ids`: one block of the KV cache."""

_AZURE = {"time_s": "TIMESTAMP", "prompt_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"}
_CSV = {"time_s": "time_s", "prompt_tokens": "prompt_tokens", "output_tokens": "output_tokens"}
_MICROSECOND = timedelta(microseconds=1)
_Number = TypeVar("_Number", int, float)


class TraceRow(NamedTuple):
    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    """Hash ids of the prompt's blocks: equal ids are equal text."""


class MooncakeLine(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


def trace_arrivals(trace: Trace, folder: Path, source: Source, from_s: float, to_s: float) -> list[TraceRow]:
    """The rows that come in [from_s, to_s) of the run, in order, with that time. Raises ScenarioError.

    Every row of the file draws whether it is kept, so that the same ones are whatever is skipped.
    """
    path, columns = find_file(folder, trace.file), {str(field): name for field, name in (trace.columns or {}).items()}
    rows = [
        row._replace(at_s=from_s + (row.at_s - trace.skip_s) / trace.speed)
        for row in read_trace(path, trace.format, columns)
        if trace.share == 1 or source.unit() < trace.share
    ]
    if found := [row for row in rows if from_s <= row.at_s < to_s]:
        return found
    end_s = trace.skip_s + (to_s - from_s) * trace.speed
    raise refused(path, 0, f"has no request from {trace.skip_s:g} to {end_s:g} s that is kept; see skip_s and share")


def read_trace(path: Path, form: str, columns: Mapping[str, str]) -> list[TraceRow]:
    """The rows by time, in seconds from the first. Raises ScenarioError with file, line and value."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise refused(path, 0, f"has more than {MAX_BYTES} bytes; cut it to the part that you replay")
        with path.open(encoding="utf-8", newline="") as lines:
            if form == "mooncake":
                rows = list(islice(_mooncake(path, lines), MAX_ROWS + 1))
            else:
                names = _AZURE if form == "azure" else _CSV | dict(columns)
                time = _azure_time if form == "azure" else _seconds
                rows = list(islice(_csv(path, lines, names, time), MAX_ROWS + 1))
    except UnicodeDecodeError:
        raise refused(path, 0, "is not text in UTF-8") from None
    except OSError as error:
        raise refused(path, 0, f"cannot be read: {error.strerror}") from None
    if not rows or len(rows) > MAX_ROWS:
        reason = (
            f"has more than {MAX_ROWS} requests; cut it to the part that you replay" if rows else "has no requests"
        )
        raise refused(path, 0, reason)
    rows.sort(key=lambda row: row.at_s)
    first_s = rows[0].at_s
    return [row._replace(at_s=row.at_s - first_s) for row in rows]


def _csv(
    path: Path, lines: Iterable[str], names: Mapping[str, str], time: Callable[[str], float]
) -> Iterator[TraceRow]:
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip().removeprefix("\ufeff") for name in next(reader, [])]
        places = {field: _column(path, header, name) for field, name in names.items()}
        for row in reader:
            if not row:
                continue
            found = {field: row[place] if place < len(row) else "" for field, place in places.items()}
            yield TraceRow(
                _value(path, reader.line_num, names["time_s"], found["time_s"], time),
                _value(path, reader.line_num, names["prompt_tokens"], found["prompt_tokens"], _tokens),
                _value(path, reader.line_num, names["output_tokens"], found["output_tokens"], _tokens),
            )
    except csv.Error as error:
        raise refused(path, reader.line_num, f"is not CSV: {error}") from None


def _column(path: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise refused(path, 1, f"has no column {name!r}; {one_of(name, header[:20])}")
    return header.index(name)


def _value(path: Path, line: int, name: str, text: str, read: Callable[[str], _Number]) -> _Number:
    try:
        return read(text)
    except ValueError as error:
        raise refused(path, line, f"{name}: {text[:60]!r} {error}") from None


def _azure_time(text: str) -> float:
    """`2023-11-16 18:15:46.6805900`, UTC; more than whole microseconds are cut off."""
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise ValueError("is no time like 2023-11-16 18:15:46.6805900") from None
    return (moment - datetime(2000, 1, 1)) // _MICROSECOND / 1_000_000


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not isfinite(seconds):
        raise ValueError("is no number of seconds")
    return seconds


def _tokens(text: str) -> int:
    if not (text.isascii() and text.strip().isdigit()) or len(text) > 9 or int(text) > MAX_TOKENS:
        raise ValueError(f"is no whole number from 0 to {MAX_TOKENS}")
    return int(text)


def _mooncake(path: Path, lines: Iterable[str]) -> Iterator[TraceRow]:
    decoder = msgspec.json.Decoder(MooncakeLine)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            read = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise refused(path, number, f"is no line of a Mooncake trace: {error}") from None
        for name, tokens in (("input_length", read.input_length), ("output_length", read.output_length)):
            if not 0 <= tokens <= MAX_TOKENS:
                raise refused(path, number, f"{name}: {tokens} is no whole number from 0 to {MAX_TOKENS}")
        blocks = read.hash_ids[: -(-read.input_length // BLOCK_TOKENS)]
        yield TraceRow(read.timestamp / 1000, read.input_length, read.output_length, blocks)
