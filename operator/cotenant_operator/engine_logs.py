"""The engines' own logs in a state directory, found by model, read from either end, merged by time.

    <state>/logs/engines/NAMESPACE.MODEL-REVISION-SLOT.log         `2026-11-26 11:55:04,707 INFO …`, and raw lines
    <state>/logs/engines/NAMESPACE.MODEL-REVISION-SLOT.cause.json  contract.Heartbeat of one that failed

An app that starts again appends to its log. A line without a time belongs to the one before it.
"""

import contextlib
import heapq
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cotenant_serving.contract import Heartbeat

_APP = re.compile(r"(?P<namespace>[a-z0-9-]+)\.(?P<name>.+)-(?P<revision>[0-9a-f]{8})-(?P<slot>\d+)")
_TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")
START_TEXT = re.compile(r"\S+ \S+ INFO starting .* instance \w+,")
"""The first line of each run."""
_START = re.compile(rb"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) INFO starting .* instance (\w+),", re.MULTILINE)
_SETTLED = re.compile(_TIME.pattern + rb"(INFO ready after|ERROR (cannot load|ended by its guard))")
_BLOCK_BYTES = 1 << 16
_LINE_BYTES = 1 << 10
"""Of the block behind, so that a line which two blocks share is seen whole."""


@dataclass(frozen=True, slots=True)
class EngineLog:
    path: Path
    model: str
    """`namespace/name`."""
    revision: str
    slot: int

    @property
    def app(self) -> str:
        return self.path.name.removesuffix(".log")


@dataclass(frozen=True, slots=True)
class Start:
    """A start that a log tells of."""

    position: int
    """In the file, bytes."""
    time: str
    """As it stands in the log; sorts as text."""
    instance: str


@dataclass(frozen=True, slots=True, order=True)
class Line:
    time: str
    app: str
    text: str


def engine_logs(state: Path) -> list[EngineLog]:
    """Every engine's log, by name."""
    found = []
    for path in sorted((state / "logs" / "engines").glob("*.log")):
        if app := parse_app(path.name.removesuffix(".log")):
            found.append(EngineLog(path, *app))
    return found


def parse_app(app: str) -> tuple[str, str, int] | None:
    """`search.chat-0a1b2c3d-0` → (`search/chat`, its revision, its slot); None for what is no engine's name."""
    match = _APP.fullmatch(app)
    return (f"{match['namespace']}/{match['name']}", match["revision"], int(match["slot"])) if match else None


def newest_revision(logs: Sequence[EngineLog]) -> list[EngineLog]:
    """Those of the revision that was started last."""
    if not logs:
        return []

    def started(log: EngineLog) -> str:
        last = next(starts(log.path), None)
        return last.time if last else ""

    newest = max(logs, key=started).revision
    return [log for log in logs if log.revision == newest]


def starts(path: Path) -> Iterator[Start]:
    """Every start that a log tells of, the last one first; read from the end, as far as it is asked."""
    after = b""
    for position, block in _blocks_from_end(path):
        text = block + after
        found = [match for match in _START.finditer(text) if match.start() < len(block)]
        for match in reversed(found):
            yield Start(position + match.start(), match[1].decode(), match[2].decode())
        after = text[:_LINE_BYTES]


def begin_of_last_run(path: Path) -> int:
    """Where the last run begins, bytes; the one before it too while the last has neither loaded nor failed."""
    runs = starts(path)
    last = next(runs, None)
    if last is None:
        return 0
    with path.open("rb") as file:
        file.seek(last.position)
        if any(_SETTLED.match(line) for line in file):
            return last.position
    return next(runs, last).position


def begin_of_tail(path: Path, count: int) -> int:
    """Where the last `count` lines begin, bytes."""
    start, kept = path.stat().st_size, b""
    for position, block in _blocks_from_end(path):
        start, kept = position, block + kept
        if kept.count(b"\n") > count:
            break
    lines = kept.removesuffix(b"\n").split(b"\n")
    return start + sum(len(line) + 1 for line in lines[: max(0, len(lines) - count)])


def cause(log: EngineLog) -> Heartbeat | None:
    """The last words of the engine, if the start that its log tells of last is the one that failed."""
    path = log.path.with_name(f"{log.app}.cause.json")
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        heartbeat = msgspec.json.decode(path.read_bytes(), type=Heartbeat)
        last = next(starts(log.path), None)
        if last and last.instance == heartbeat.instance:
            return heartbeat
    return None


def merged(logs: Sequence[EngineLog], begin: Mapping[Path, int]) -> Iterator[Line]:
    """Lines of all in the order of their times; `begin`: where each file is read from, bytes."""
    return heapq.merge(*(_lines(log, begin.get(log.path, 0)) for log in logs), key=lambda line: line.time)


def parse(raw: bytes, app: str, before: str) -> Line:
    """One line; `before` is the time of the one before it, which a line without its own takes.

    Of a progress bar, which is written over and over with carriage returns, its last state.
    """
    time = raw[:23].decode() if _TIME.match(raw) else before
    return Line(time, app, raw.rstrip(b"\r\n").rpartition(b"\r")[2].decode(errors="replace"))


def _lines(log: EngineLog, begin: int) -> Iterator[Line]:
    time = ""
    with contextlib.suppress(FileNotFoundError), log.path.open("rb") as file:
        file.seek(begin)
        for raw in file:
            line = parse(raw, log.app, time)
            time = line.time
            yield line


def _blocks_from_end(path: Path) -> Iterator[tuple[int, bytes]]:
    """(where it begins, bytes) of each block, the last one first."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        while position > 0:
            size = min(_BLOCK_BYTES, position)
            position = file.seek(position - size)
            yield position, file.read(size)
