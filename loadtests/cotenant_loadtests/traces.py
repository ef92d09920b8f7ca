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
from pathlib import Path
from typing import NamedTuple

import msgspec

from cotenant_loadtests.planned import MOST_TOKENS
from cotenant_loadtests.problems import check_size, one_of, read_errors, refused
from cotenant_loadtests.seeded import Source
from cotenant_loadtests.shipped import find_file
from cotenant_loadtests.spec_values import Trace
from cotenant_loadtests.units import US_PER_S

MAX_BYTES = 2**30
MAX_ROWS = 1_000_000
MOST_TIME_S = 1e12
"""Away from 0; the year 33,000 in seconds since 1970."""
BLOCK_TOKENS = 512
"""Of Mooncake's `hash_ids`: one block of the KV cache."""

_AZURE = {"time_s": "TIMESTAMP", "prompt_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"}
_CSV = {"time_s": "time_s", "prompt_tokens": "prompt_tokens", "output_tokens": "output_tokens"}
_MICROSECOND = timedelta(microseconds=1)
_Row = tuple[int, tuple[int, int, tuple[int, ...]]]
"""Time in microseconds, whole because seconds since a far day leave them no room; then the other fields."""


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
    path = find_file(folder, trace.file, "arrivals.file")
    columns = {str(field): name for field, name in (trace.columns or {}).items()}
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
    with read_errors(path):
        check_size(path, MAX_BYTES)
        with path.open(encoding="utf-8", newline="") as lines:
            rows = sorted(islice(_rows(path, lines, form, columns), MAX_ROWS + 1), key=lambda row: row[0])
    if not rows:
        raise refused(path, 0, "has no requests")
    if len(rows) > MAX_ROWS:
        raise refused(path, 0, f"has more than {MAX_ROWS} requests; cut it to the part that you replay")
    first_us = rows[0][0]
    return [TraceRow((time_us - first_us) / US_PER_S, *lengths) for time_us, lengths in rows]


def _rows(path: Path, lines: Iterable[str], form: str, columns: Mapping[str, str]) -> Iterator[_Row]:
    if form == "mooncake":
        return _mooncake(path, lines)
    if form == "azure":
        return _csv(path, lines, _AZURE, _azure_time)
    return _csv(path, lines, _CSV | dict(columns), _seconds)


def _csv(path: Path, lines: Iterable[str], names: Mapping[str, str], time: Callable[[str], int]) -> Iterator[_Row]:
    reader = csv.reader(lines, strict=True)
    try:
        header = [name.strip().removeprefix("\ufeff") for name in next(reader, [])]
        places = {field: _column(path, header, name) for field, name in names.items()}
        for row in reader:
            if not row:
                continue
            line, values = reader.line_num, {field: _cell(row, place) for field, place in places.items()}
            time_us = _value(path, line, names["time_s"], values["time_s"], time)
            prompt = _value(path, line, names["prompt_tokens"], values["prompt_tokens"], _tokens)
            output = _value(path, line, names["output_tokens"], values["output_tokens"], _tokens)
            yield time_us, (prompt, output, ())
    except csv.Error as error:
        raise refused(path, reader.line_num, f"is not CSV: {error}") from None


def _column(path: Path, header: list[str], name: str) -> int:
    if not header:
        raise refused(path, 1, "is empty; it begins with a line of the columns' names")
    if name not in header:
        raise refused(path, 1, f"has no column {name!r}; {one_of(name, header[:20])}")
    return header.index(name)


def _cell(row: list[str], place: int) -> str:
    return row[place] if place < len(row) else ""


def _value(path: Path, line: int, name: str, text: str, read: Callable[[str], int]) -> int:
    try:
        return read(text)
    except ValueError as error:
        raise refused(path, line, f"{name}: {text[:60]!r} {error}") from None


def _azure_time(text: str) -> int:
    """`2023-11-16 18:15:46.6805900`, UTC; more than whole microseconds are cut off."""
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise ValueError("is no time like 2023-11-16 18:15:46.6805900") from None
    return (moment - datetime(2000, 1, 1)) // _MICROSECOND


def _seconds(text: str) -> int:
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not abs(seconds) <= MOST_TIME_S:
        raise ValueError(f"is no number of seconds up to {MOST_TIME_S:g}")
    return round(seconds * US_PER_S)


def _tokens(text: str) -> int:
    if not (text.isascii() and text.strip().isdigit()) or len(text) > 9 or int(text) > MOST_TOKENS:
        raise ValueError(f"is no whole number from 0 to {MOST_TOKENS}")
    return int(text)


def _mooncake(path: Path, lines: Iterable[str]) -> Iterator[_Row]:
    decoder = msgspec.json.Decoder(MooncakeLine)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            read = decoder.decode(line)
        except (ValueError, RecursionError) as error:  # of msgspec: all that it raises
            raise refused(path, number, f"is no line of a Mooncake trace: {error}") from None
        if not abs(read.timestamp) <= MOST_TIME_S * 1000:
            raise refused(
                path, number, f"timestamp: {read.timestamp:g} is no number of ms up to {MOST_TIME_S * 1000:g}"
            )
        for name, tokens in (("input_length", read.input_length), ("output_length", read.output_length)):
            if not 0 <= tokens <= MOST_TOKENS:
                raise refused(path, number, f"{name}: {tokens} is no whole number from 0 to {MOST_TOKENS}")
        blocks = read.hash_ids[: -(-read.input_length // BLOCK_TOKENS)]
        yield round(read.timestamp * 1000), (read.input_length, read.output_length, blocks)
