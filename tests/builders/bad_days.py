"""Faults for a running `up`, drawn from a seed: what dies, hangs, or finds no room; each is put right again later.

with BadDays(up, random.Random(seed), disk) as days:
    for fault in days.shuffled({"kill_engine": 5, "stop_engine": 2}):
        days.rest(pause_s)
        days.inflict(fault)
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import psutil

from cotenant_operator.control import ControlError
from cotenant_serving.contract import EngineStatus
from tests.builders.up import Up, kill, until

STOPPED_S = (0.5, 8.0)
"""How long an engine is stopped: less and more than its heartbeats may stay away."""
SHORT_S = (1.0, 4.0)
"""How long descriptors are short."""
FULL_S = (4.0, 10.0)
STEP_S = 0.05

T = TypeVar("T")


class Disk:
    """A small file system on `folder`, that can be full. Needs root."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._filler = folder, folder / "filler"
        options = f"size={size_bytes},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True)

    def fill(self) -> None:
        """To the last byte."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"0"):
                pass

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.folder], check=True, capture_output=True)


def may_mount(folder: Path) -> bool:
    try:
        Disk(folder, 1 << 16).close()
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@dataclass(slots=True)
class Later:
    """What puts something right, and when."""

    due_s: float
    act: Callable[[], None]
    victim: str = ""


@dataclass(slots=True)
class BadDays:
    """Times are seconds of the monotonic clock."""

    up: Up
    rng: random.Random
    disk: Disk | None = None
    inflicted: Counter[str] = field(default_factory=Counter)
    workers_killed_unix_s: list[float] = field(default_factory=list)
    """When each was, by the wall's clock, as in the records of a load."""
    _later: list[Later] = field(default_factory=list)
    _mourned: set[str] = field(default_factory=set)
    """Workers, by number, killed since the disk is full."""

    def __enter__(self) -> "BadDays":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.put_all_right()

    def put_all_right(self) -> None:
        for later in self._later:
            later.act()
        self._later.clear()

    def shuffled(self, counts: Mapping[str, int]) -> list[str]:
        faults = [name for name, count in counts.items() for _ in range(count)]
        self.rng.shuffle(faults)
        return faults

    def inflict(self, fault: str) -> None:
        getattr(self, fault)()
        self.inflicted[fault] += 1

    def rest(self, seconds: float) -> None:
        """Meanwhile what is due is put right."""
        end_s = time.monotonic() + seconds
        while True:
            now_s = time.monotonic()
            for later in [one for one in self._later if one.due_s <= now_s]:
                self._later.remove(later)
                later.act()
            if now_s >= end_s:
                return
            time.sleep(min(STEP_S, end_s - now_s))

    # The faults.

    def kill_engine(self) -> None:
        kill(self._engine().pid)

    def stop_engine(self) -> None:
        """With SIGSTOP. It goes on later, or is killed as it stands."""
        engine = self._engine()
        os.kill(engine.pid, signal.SIGSTOP)
        number = self.rng.choice((signal.SIGCONT, signal.SIGKILL))
        self._put_right(STOPPED_S, lambda: _signal(engine.pid, number), engine.instance)

    def kill_conductor(self) -> None:
        kill(self.await_that(lambda: conductor(self.up), "a conductor runs").pid)

    def kill_worker(self) -> None:
        """One that serves; never the same one a second time while the disk is full.

        Nowhere would be told then what it had served: the first one's journal takes the room that there is.
        """
        victim = self.rng.choice(self.await_that(self._killable, "a worker runs"))
        self.workers_killed_unix_s.append(time.time())
        victim.kill()
        if self.disk_full:
            self._mourned.add(worker_number(victim))

    def fill_disk(self) -> None:
        assert self.disk is not None
        self.disk.fill()
        self._mourned.clear()
        self._put_right(FULL_S, self.disk.free, "disk")

    def starve_worker(self) -> None:
        """No descriptor is left to it."""
        self._starve(self.rng.choice(self.await_that(lambda: workers(self.up), "a worker runs")))

    def starve_engine(self) -> None:
        engine = self._engine()
        self._starve(psutil.Process(engine.pid), engine.instance)

    # How.

    @property
    def disk_full(self) -> bool:
        return any(later.victim == "disk" for later in self._later)

    def _killable(self) -> list[psutil.Process]:
        return [
            worker for worker in workers(self.up) if not (self.disk_full and worker_number(worker) in self._mourned)
        ]

    def _engine(self) -> EngineStatus:
        """One that is ready and suffers nothing yet."""
        spared = {later.victim for later in self._later}
        found = self.await_that(
            lambda: [one for name, one in sorted(ready(self.up).items()) if name not in spared], "an engine is ready"
        )
        return self.rng.choice(found)

    def _starve(self, process: psutil.Process, victim: str = "") -> None:
        with contextlib.suppress(psutil.Error):
            before = process.rlimit(psutil.RLIMIT_NOFILE)
            process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), before[1]))
            self._put_right(SHORT_S, lambda: _limit(process, before), victim)

    def _put_right(self, after_s: tuple[float, float], act: Callable[[], None], victim: str) -> None:
        self._later.append(Later(time.monotonic() + self.rng.uniform(*after_s), act, victim))

    def await_that(self, found: Callable[[], T], what: str) -> T:
        """Polls until it is true, and meanwhile puts right what is due."""

        def look() -> T:
            self.rest(0)
            return found()

        result: T = until(look, what, explain=self.up.said)
        return result


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _limit(process: psutil.Process, limits: tuple[int, int]) -> None:
    with contextlib.suppress(psutil.Error):
        process.rlimit(psutil.RLIMIT_NOFILE, limits)


def ready(up: Up) -> dict[str, EngineStatus]:
    """instance → engine, without those just killed that the conductor has not missed yet.

    Empty while no conductor answers.
    """
    try:
        models = up.status().models
    except ControlError:
        return {}
    engines = [engine for model in models for engine in model.engines if engine.state == "ready"]
    return {engine.instance: engine for engine in engines if psutil.pid_exists(engine.pid)}


def workers(up: Up) -> list[psutil.Process]:
    """Of the gateway."""
    return [process for process in up.processes() if "cotenant_serving.gateway.worker" in _line(process)]


def worker_number(process: psutil.Process) -> str:
    return _line(process).partition('"worker":')[2].partition(",")[0]


def conductor(up: Up) -> psutil.Process | None:
    return next((one for one in up.processes() if "cotenant_serving.conductor" in _line(one)), None)


def _line(process: psutil.Process) -> str:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    return "" if "tether" in line else line
