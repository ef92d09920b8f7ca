"""A worker's share of the plan, left on disk: in memory are only times and places in the file."""

from __future__ import annotations

import mmap
from array import array
from pathlib import Path

import msgspec

from cotenant_loadtests.plan_file import PlanError
from cotenant_loadtests.planned import PLAN_SCHEMA, PlanHeader, Planned
from cotenant_loadtests.units import NS_PER_S


class _When(msgspec.Struct, frozen=True, gc=False):
    id: int
    at_s: float | None = None
    after: int | None = None
    think_s: float = 0.0


class Share:
    """`arrivals`: (ns from the start, place) in order of time. Ids are those of the whole plan."""

    def __init__(self, path: Path) -> None:
        """Raises PlanError, OSError."""
        self._planned = msgspec.json.Decoder(Planned).decode
        self._at_ns, self._places = array("q"), array("q")
        self._followers: dict[int, list[tuple[int, int]]] = {}
        self._lines = 0
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._read()
        except ValueError as problem:  # of mmap: an empty file; of msgspec: anything else
            raise PlanError(f"{path}:{self._lines + 1}: is no line of a plan: {problem}") from None
        self._order = sorted(range(len(self._at_ns)), key=self._at_ns.__getitem__)

    @property
    def requests(self) -> int:
        return self._lines - 1

    @property
    def arrivals(self) -> int:
        return len(self._order)

    def arrival(self, number: int) -> tuple[int, int]:
        """(ns from the start, place) of the number-th arrival, from 0."""
        index = self._order[number]
        return self._at_ns[index], self._places[index]

    def followers(self, request: int) -> list[tuple[int, int]]:
        """(ns of thinking, place) of the turns that come after this one; asked once."""
        return self._followers.pop(request, [])

    def planned(self, place: int) -> Planned:
        return self._planned(self._line(place))

    def _read(self) -> None:
        header = msgspec.json.decode(self._line(0), type=PlanHeader)
        if header.schema != PLAN_SCHEMA:
            raise msgspec.ValidationError(f"schema is {header.schema!r}; this version reads {PLAN_SCHEMA!r}")
        decode, size = msgspec.json.Decoder(_When).decode, len(self._map)
        self._lines = 1
        place = self._map.find(b"\n") + 1
        while 0 < place < size:
            line = self._line(place)
            when = decode(line)
            if when.after is not None:
                self._followers.setdefault(when.after, []).append((round(when.think_s * NS_PER_S), place))
            elif when.at_s is not None:
                self._at_ns.append(round(when.at_s * NS_PER_S))
                self._places.append(place)
            place += len(line)
            self._lines += 1

    def _line(self, place: int) -> bytes:
        end = self._map.find(b"\n", place) + 1
        return self._map[place : end or len(self._map)]
