"""Load on what is tested, by the project's own harness: open loop, seeded, a verdict on every single answer.

    with Load(echo_chats(up.url, "search", ["left", "right"], rate_per_s=10, seed=1), keys, folder) as load:
        …break something…
    assert set(load.outcomes) == {"ok", "error_event"}

Each request has words of its own, so an answer that is cut, mixed up with another or given by another model shows.
`error_event` is how a stream that had begun must end when its engine is lost: the right beginning, an error, nothing
after it and no `[DONE]`. The harness has another word for everything else (record.py).
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import Record
from cotenant_loadtests.run_output import Progress, RunOutput
from cotenant_loadtests.running import run_plan
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.words import text_of
from cotenant_loadtests.workload import make_plan
from tests.builders.up import Up, until

HANG_S = 60.0
"""An answer that takes longer counts as a hang, `timeout`; engines come back within a few seconds."""
LONGEST_S = 600.0
"""More than any test breaks things for; the load ends with its block."""
PATIENCE_S = 2 * HANG_S


def echo_chats(
    url: str,
    tenant: str | Sequence[str],
    models: Sequence[str],
    *,
    rate_per_s: float,
    seed: int,
    duration_s: float = LONGEST_S,
    words: tuple[int, int] = (5, 60),
) -> Scenario:
    """Seven of ten are streams of so many words, the others have 1 to 10 words and come whole.

    Several tenants send as much each, as several models get.
    """
    streams = [
        _stream(tenant, models, 0.7 * rate_per_s, words, streamed=True),
        _stream(tenant, models, 0.3 * rate_per_s, (1, 10), streamed=False),
    ]
    return scenario(url, *streams, seed=seed, duration_s=duration_s)


def whole_chats(
    url: str, tenant: str | Sequence[str], models: Sequence[str], *, rate_per_s: float, seed: int, duration_s: float
) -> Scenario:
    """1 to 10 words each, none streamed: no answer has begun before it is whole."""
    stream = _stream(tenant, models, rate_per_s, (1, 10), streamed=False)
    return scenario(url, stream, seed=seed, duration_s=duration_s)


def scenario(url: str, *streams: Mapping[str, Any], seed: int = 1, **fields: Any) -> Scenario:
    """`streams` and `fields` as they stand in YAML."""
    value = {"name": "test", "target": {"url": url}, "seed": seed, "drain_s": HANG_S, "streams": streams, **fields}
    return Scenario.model_validate(value)


def chats(url: str, rate_per_s: float) -> Scenario:
    """Short ones of tenant `search` for `echo`, which any fake engine may answer; half of them streamed."""

    def stream(name: str, *, streamed: bool) -> dict[str, Any]:
        return {
            "name": name,
            "tenant": "search",
            "model": "echo",
            "arrivals": {"process": "poisson", "rate_per_s": rate_per_s / 2},
            "prompt": {"tokens": 3},
            "streamed": streamed,
            "include_usage": False,
        }

    return scenario(url, stream("streamed", streamed=True), stream("whole", streamed=False), duration_s=LONGEST_S)


def _stream(
    tenant: str | Sequence[str], models: Sequence[str], rate_per_s: float, words: tuple[int, int], *, streamed: bool
) -> dict[str, Any]:
    return {
        "name": "streamed" if streamed else "whole",
        "streamed": streamed,
        "tenant": tenant if isinstance(tenant, str) else list(tenant),
        "model": list(models),
        "arrivals": {"process": "poisson", "rate_per_s": rate_per_s},
        "prompt": {"tokens": {"distribution": "uniform", "min": words[0], "max": words[1]}},
        "include_usage": False,
        "deadline_s": HANG_S,
        "check": "echo",
    }


class Load:
    """Sends the scenario's plan until the block ends, and waits for the answers that are on their way then.

    `records` and `outcomes` are whole once the block has ended; `succeeded` is up to a second old meanwhile.
    """

    def __init__(self, scenario: Scenario, keys: Mapping[str, str], folder: Path) -> None:
        self.planned: Sequence[Planned] = make_plan(scenario, folder)
        self.output: RunOutput | None = None
        self.began_unix_s = time.time()
        self._scenario, self._keys, self._folder = scenario, keys, folder
        self._stop = threading.Event()
        self._progress: Progress | None = None
        self._thread = ThreadPoolExecutor(1, "load")

    def __enter__(self) -> "Load":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._running = self._thread.submit(self._run)

    def stop(self) -> None:
        """Blocks until every answer has ended; may be called again. Raises RunError."""
        self._stop.set()
        self.output = self._running.result(PATIENCE_S)
        self._thread.shutdown()

    @property
    def succeeded(self) -> int:
        if self._running.done():
            self._running.result()  # raises what ended it too early
        return sum(self._progress.succeeded.values()) if self._progress else 0

    @property
    def in_flight(self) -> int:
        """Up to a second old, as `succeeded` is."""
        return sum(self._progress.in_flight.values()) if self._progress else 0

    @property
    def ended(self) -> bool:
        """Everything that was planned was sent, and has ended."""
        return self._running.done()

    @property
    def records(self) -> Sequence[Record]:
        assert self.output is not None, "the block has not ended"
        return self.output.records

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(record.outcome for record in self.records)

    def wrong(self, *right: str) -> list[str]:
        """What became of the requests that ended in no right way: a sentence for each kind.

        After an error nothing may follow. To the harness that is no failure of its own, as some servers send `[DONE]`
        there; its `detail` tells.
        """
        kinds = Counter(
            (one.outcome, one.status, one.detail)
            for one in self.records
            if one.outcome not in right or ", then " in one.detail
        )
        return [f"{count} × {outcome} ({status}) {detail}" for (outcome, status, detail), count in kinds.items()]

    def words(self, record: Record) -> int:
        """How many its prompt has; an echo model answers with one token more."""
        return len(text_of(self.planned[record.id].messages[-1]).split())

    def _run(self) -> RunOutput:
        return run_plan(
            self._scenario,
            self.planned,
            self._keys,
            folder=self._folder,
            stop=self._stop,
            stop_drain_s=HANG_S,
            on_progress=self._note,
        )

    def _note(self, progress: Progress) -> None:
        self._progress = progress


def usage_since(up: Up, began_unix_s: float, count: int) -> list[dict[str, Any]]:
    """The usage records of requests that ended after `began_unix_s`, once there are `count` of them.

    One more look shows records that should not be.
    """

    def written() -> list[dict[str, Any]]:
        return [record for record in up.usage() if record["time"] >= began_unix_s]

    until(lambda: len(written()) >= count, f"{count} usage records", explain=lambda: str(len(written())))
    time.sleep(0.5)
    return written()
