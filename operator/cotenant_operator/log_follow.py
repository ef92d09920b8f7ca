"""Following logs that grow: new lines of every engine of a model, also of engines that start later. Only reads."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cotenant_operator.engine_logs import EngineLog, Line, engine_logs, parse

STEP_S = 0.2


@dataclass(slots=True)
class _Tail:
    """One file, read up to `offset`; what stands behind the last line break is not a line yet."""

    path: Path
    app: str
    offset: int
    rest: bytes = b""
    time: str = ""

    def news(self) -> Iterator[Line]:
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            if file.seek(0, 2) < self.offset:  # somebody rotated it with copytruncate
                self.offset, self.rest = 0, b""
            file.seek(self.offset)
            data = file.read()
            self.offset += len(data)
            *whole, self.rest = (self.rest + data).split(b"\n")
            for raw in whole:
                line = parse(raw, self.app, self.time)
                self.time = line.time
                yield line


@dataclass(slots=True)
class Follower:
    """Lines of a model's engines: those that are there from `begin` on, then whatever comes."""

    state: Path
    model: str
    begin: Mapping[Path, int]
    """Where to begin in a file, bytes; the others that are there already begin at their end."""
    _tails: dict[Path, _Tail] = field(default_factory=dict)
    _began: bool = False

    def news(self) -> list[Line]:
        """What has come since the last call, in the order of time."""
        for log in engine_logs(self.state):
            if log.model == self.model and log.path not in self._tails:
                self._tails[log.path] = _Tail(log.path, log.app, self._offset(log))
        self._began = True
        lines = [line for tail in self._tails.values() for line in tail.news()]
        return sorted(lines, key=lambda line: line.time)

    def _offset(self, log: EngineLog) -> int:
        if self._began:
            return 0  # it did not exist at the last look
        return self.begin.get(log.path, log.path.stat().st_size)


def follow(follower: Follower, show: Callable[[Line], None]) -> None:
    """Until the caller is interrupted."""
    while True:
        for line in follower.news():
            show(line)
        time.sleep(STEP_S)
