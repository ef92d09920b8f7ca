"""Fetches of one file from a fake hub: what a test gives, and what it looks at afterwards."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cotenant_cache.backoff import Patience
from cotenant_cache.contract import ModelFile
from cotenant_cache.fetch import FetchLimits, fetch_file
from cotenant_cache.hub import resolve
from cotenant_cache.source import HubAccess, HubSource
from tests.builders.fake_hub import FakeHub, HubProcess
from tests.builders.partial import CountedPartial

TOKEN = "hf_thistokenisasecret"
LIMITS = FetchLimits(patience=Patience(attempts=5, first_s=1.0))
"""Waits of tests: those between attempts are not slept, those on the network do not come to their end."""
SHORT = FetchLimits(patience=LIMITS.patience, stall_s=0.05, slow_bytes_per_s=1000, slow_s=0.05)
"""By a StallClock."""


class StallClock:
    """Seconds in which answers stalled or dripped: a machine that is too busy to answer or to read is no stall."""

    _MOST_S = 0.02
    """Counted between two looks: a client that was kept from running reads what is there before time is up."""

    def __init__(self, hub: FakeHub, repo: str) -> None:
        self._stalls, self._repo = hub.stalls, repo
        self._passed_s, self._looked_at = 0.0, time.monotonic()

    def __call__(self) -> float:
        now = time.monotonic()
        if self._repo in self._stalls:
            self._passed_s += min(now - self._looked_at, self._MOST_S)
        self._looked_at = now
        return self._passed_s

    def stop(self) -> None:
        """Whoever noticed the stall has left it."""
        self._stalls.discard(self._repo)


def source_of(hub: FakeHub | HubProcess, repo: str, revision: str = "main") -> HubSource:
    return HubSource(repo, revision, HubAccess(endpoint=hub.url, token=TOKEN))


@dataclass
class Fetching:
    """`run` fetches; `slept_s` is what it would have waited between attempts."""

    source: HubSource
    file: ModelFile
    path: Path
    limits: FetchLimits = LIMITS
    clock: StallClock | None = None
    slept_s: float = 0.0
    reports: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    partial: CountedPartial | None = None

    @classmethod
    def of(cls, hub: FakeHub | HubProcess, repo: str, name: str, path: Path, **settings: Any) -> "Fetching":
        listing = resolve(source_of(hub, repo))
        return cls(source_of(hub, repo, listing.commit), listing.files[name], path, **settings)

    def run(self, random: Callable[[], float] = lambda: 0.5, **settings: Any) -> bytes:
        """The bytes of the whole file. Raises what fetch_file raises."""
        with CountedPartial(self.path, self.file.size_bytes) as self.partial:
            given = {"room": self.blocks.append, "report": self.reports.append, "sleep": self._sleep, **settings}
            if self.clock:
                given["clock"] = self.clock
            fetch_file(self.source, self.file, self.partial, limits=self.limits, random=random, **given)
        return self.path.read_bytes()

    def _sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        if self.clock:
            self.clock.stop()


def fetch_in_process(endpoint: str, repo: str, commit: str, name: str, path: str) -> None:
    """The target of a process that a test kills: fetches with usual limits."""
    source = HubSource(repo, commit, HubAccess(endpoint=endpoint, token=TOKEN))
    file = resolve(source).files[name]
    with CountedPartial(Path(path), file.size_bytes) as partial:
        fetch_file(source, file, partial)
