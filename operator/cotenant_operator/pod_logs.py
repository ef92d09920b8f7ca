"""What pods have written → the lines of one model's engines. Pure.

Engines write to the output of their container, each line as `[NAMESPACE.MODEL-REVISION-SLOT] line`; other engines of
the pod and Ray write there too. The API server puts a time in front of each line, for those who go on reading later.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from cotenant_operator.engine_logs import START_TEXT, Line, parse, parse_app
from cotenant_operator.kinds import Object
from cotenant_operator.kube_objects import condition, full_name, items_at, time_of
from cotenant_operator.quantity import show_seconds

_LINE = re.compile(rb"(?P<time>\S+Z) \[(?P<app>[^\]\s]+)\] (?P<text>.*)", re.DOTALL)
_EVENTS = 5


def lines_of(raw: Iterable[bytes], model: str) -> Iterator[tuple[str, Line]]:
    """(the server's time, the line) of each line that an engine of `namespace/name` has written."""
    before: dict[str, str] = {}
    for one in raw:
        match = _LINE.match(one)
        app = match["app"].decode(errors="replace") if match else ""
        found = parse_app(app)
        if match and found and found[0] == model:
            line = parse(match["text"], app, before.get(app, ""))
            before[app] = line.time
            yield match["time"].decode(errors="replace"), line


def last_runs(lines: Sequence[Line]) -> list[Line]:
    """Those of the revision that started last, each of its engines from its last start on."""
    starts: dict[str, int] = {}
    for index, line in enumerate(lines):
        if line.app not in starts or START_TEXT.match(line.text):
            starts[line.app] = index
    if not starts:
        return []
    newest = max(starts, key=lambda app: (lines[starts[app]].time, app))
    revision = (parse_app(newest) or ("", "", 0))[1]
    return [
        line
        for index, line in enumerate(lines)
        if index >= starts[line.app] and (parse_app(line.app) or ("", "", 0))[1] == revision
    ]


def last_of_each(lines: Sequence[Line], count: int) -> list[Line]:
    """The last `count` lines of each engine."""
    left: dict[str, int] = {}
    kept = []
    for line in reversed(lines):
        left[line.app] = left.get(line.app, count) - 1
        if left[line.app] >= 0:
            kept.append(line)
    return kept[::-1]


def pods_of(model: Object) -> list[str]:
    """Where its engines are now, by its status."""
    return sorted({str(place["pod"]) for place in items_at(model, "status", "placements") if place.get("pod")})


def last_words(model: Object, events: Sequence[Object], *, now_s: float) -> list[str]:
    """What its object says, for somebody who sees no log: its state, then its events, the newest one last."""
    ready = condition(model, "Ready")
    said = f"Ready is {ready.get('status', 'Unknown')} ({ready.get('reason', 'NotSeenYet')})"
    lines = [f"{full_name(model)}: {said}" + (f": {ready['message']}" if ready.get("message") else "")]
    newest = sorted(events, key=time_of)[-_EVENTS:]
    return lines + [
        f"event {show_seconds(max(0.0, now_s - time_of(event)))} ago, {event.get('type', 'Normal')} "
        f"{event.get('reason', '?')}: {event.get('message') or event.get('note') or ''}"
        for event in newest
    ]
