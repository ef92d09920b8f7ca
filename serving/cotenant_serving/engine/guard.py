"""The memory guard: an engine that takes more than its share is ended, never its neighbour.

An engine whose use cannot be measured is not trusted for long: it is ended too.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cotenant_serving.contract import Reason

TOLERANCE = 0.10
"""Part of the share by which an engine may exceed it: allocators round up, and RSS counts shared pages."""
SAMPLES = 2
"""Consecutive samples over the limit that end an engine: one alone may be a short peak."""
PERIOD_S = 0.2
FAILURES = 25
"""Consecutive samples that could not be taken, 5 s, that end an engine: without them it has no limit."""

log = logging.getLogger("cotenant.engine")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one sample. `over` counts consecutive samples above the limit."""

    over: int
    kill: bool
    message: str = ""


def judge(used_bytes: int, share_bytes: int, over: int) -> Verdict:
    """Pure. `over` is the count of the verdict before. A share of 0 means that there is none to exceed."""
    limit_bytes = int(share_bytes * (1 + TOLERANCE))
    if share_bytes <= 0 or used_bytes <= limit_bytes:
        return Verdict(over=0, kill=False)
    over += 1
    if over < SAMPLES:
        return Verdict(over=over, kill=False)
    return Verdict(
        over=over,
        kill=True,
        message=(
            f"the engine uses {used_bytes} bytes ({_mib(used_bytes)}), its share is {share_bytes} bytes "
            f"({_mib(share_bytes)}) and the limit is {TOLERANCE:.0%} above it: it was ended so that its neighbours "
            f"keep theirs. Give the model more memory (spec.gpu.memory), or less context, concurrency or maxBatch."
        ),
    )


def judge_failures(failures: int, cause: str, over: int) -> Verdict:
    """Pure. `failures` counts consecutive samples that could not be taken, `cause` is the last one's."""
    if failures < FAILURES:
        return Verdict(over=over, kill=False)
    return Verdict(
        over=over,
        kill=True,
        message=(
            f"the engine could not be guarded: its memory in use could not be measured {failures} times in a row "
            f"({failures * PERIOD_S:.0f} s), at last by {cause}. It was ended so that its neighbours keep their "
            "shares, and is started again by itself. Look at the node's open files, driver and device."
        ),
    )


class Guard:
    """Samples every 0.2 s in a thread of its own; `report` gets every sample, `end` the reason and message of a kill.

    `used_bytes` may raise anything: file descriptors run out, drivers and torch fail.
    """

    def __init__(
        self,
        used_bytes: Callable[[], int],
        share_bytes: int,
        report: Callable[[int], None],
        end: Callable[[Reason, str], None],
    ) -> None:
        self._used_bytes = used_bytes
        self._share_bytes = share_bytes
        self._report = report
        self._end = end
        self._over = 0
        self._failures = 0
        self._logged: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=1.0)

    def sample(self) -> Verdict:
        """One sample; calls `end` when it says kill. Never raises for a sample that cannot be taken."""
        try:
            used = self._used_bytes()
            self._report(used)
        except Exception as error:  # whatever it is, a guard that ended would leave the neighbours unprotected
            return self._failed(error)
        self._failures = 0
        verdict = judge(used, self._share_bytes, self._over)
        self._over = verdict.over
        if verdict.kill:
            self._end(Reason.MEMORY_EXCEEDED, verdict.message)
        return verdict

    def _failed(self, error: Exception) -> Verdict:
        """Counts and logs a sample that could not be taken. What was over the limit before still counts."""
        self._failures += 1
        kind = f"{type(error).__name__} {getattr(error, 'errno', None) or ''}".strip()
        if kind not in self._logged:
            self._logged.add(kind)
            log.warning("memory in use cannot be measured, trying on: %s: %s", type(error).__name__, error)
        verdict = judge_failures(self._failures, f"{type(error).__name__}: {error}", self._over)
        if verdict.kill:
            self._end(Reason.ENGINE_DIED, verdict.message)
        return verdict

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            if self.sample().kill:
                return


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"
