"""A program pinned to one core, and what it and all that it starts take: CPU seconds over time, resident bytes."""

import bisect
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

EVERY_S = 0.2
PIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
try:
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
except PermissionError:
    pass
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""One core, and before all other programs where that is allowed: what else runs makes nobody late."""


def comes_first() -> bool:
    """May what is pinned have real-time priority here?"""
    attempt = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    return subprocess.run([sys.executable, "-c", attempt], stderr=subprocess.DEVNULL, check=False).returncode == 0


class Watch:
    """Samples a process and its descendants until it is stopped; what has ended keeps counting."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu: dict[int, float] = {}
        self._at_s: list[float] = []
        self._total_s: list[float] = []
        self.rss_bytes = 0
        """The most that all of them together had at one time. Shared pages count for each."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def wait_for_a_sample(self) -> None:
        time.sleep(EVERY_S)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def cpu_s(self, from_unix_s: float, to_unix_s: float) -> float:
        """CPU seconds, user and system, taken between these times."""
        return interpolate(self._at_s, self._total_s, to_unix_s) - interpolate(self._at_s, self._total_s, from_unix_s)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._sample()
            self._stop.wait(EVERY_S)

    def _sample(self) -> None:
        rss = 0
        try:
            family = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in family:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    rss += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            self._cpu[process.pid] = times.user + times.system
        self._at_s.append(time.time())
        self._total_s.append(sum(self._cpu.values()))
        self.rss_bytes = max(self.rss_bytes, rss)


def interpolate(at: Sequence[float], values: Sequence[float], when: float) -> float:
    """The value at `when`, on the straight line between the samples around it; the first or last one beyond them."""
    right = bisect.bisect_left(at, when)
    if right == 0 or right == len(at):
        return values[min(right, len(at) - 1)]
    share = (when - at[right - 1]) / (at[right] - at[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])


@contextmanager
def pinned(
    command: Sequence[str], core: int, log: Path, env: Mapping[str, str] | None = None
) -> "Iterator[tuple[subprocess.Popen[str], Watch]]":
    """A program that has only `core` for itself and its children; its output goes to `log`. Killed at the end."""
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", PIN, str(core), *command],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    watch = Watch(process.pid)
    try:
        yield process, watch
    finally:
        watch.stop()
        kill(process)


def kill(process: "subprocess.Popen[str]") -> None:
    """And everything of its session that is still there."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
    process.wait()


def run_pinned(command: Sequence[str], core: int, log: Path, *, env: Mapping[str, str], timeout_s: float) -> Watch:
    """Runs a program to its end. Raises RuntimeError with the end of its output when it took too long."""
    with pinned(command, core, log, env) as (process, watch):
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{command[0]} took more than {timeout_s:.0f} s: {log.read_text()[-2000:]}") from None
    return watch
