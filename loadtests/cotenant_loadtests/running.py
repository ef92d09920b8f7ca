"""Run a plan: worker processes send it, this one starts, watches and ends them, and gathers what they recorded.

```
FOLDER/run-…/            0700, removed at the end
    N.plan.jsonl         worker N's share of the plan
    N.records            what worker N records
    N.stderr             what worker N complains about
```
Workers end when this process does, however it ends: they watch their stdin, and the kernel kills them.
"""

import contextlib
import selectors
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from cotenant_loadtests.observing import Observer
from cotenant_loadtests.orders import Done, Failed, Orders, Ready, Start, Stop, Tick
from cotenant_loadtests.plan_file import write_plan
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import Record
from cotenant_loadtests.records_file import iterate_records
from cotenant_loadtests.run_output import Progress, RunError, RunOutput
from cotenant_loadtests.safety import addresses_of
from cotenant_loadtests.shares import shares
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.step_search import StepSearch
from cotenant_loadtests.ticks import TickBook
from cotenant_loadtests.worker_process import WORKER, WorkerProcess

__all__ = ["Progress", "RunError", "RunOutput", "run_plan"]

AHEAD_S = 0.3
"""From the last Ready to second 0: every worker has its Start by then."""
SILENCE_S = 30.0
"""A worker tells something each second; so long without a word, it hangs."""
READ_S = 0.001
"""More patience for each request, while it reads its plan."""
STOP_S = 1.0
"""From Stop to the last record."""
LOOK_S = 0.05
"""How soon a wish to stop is seen."""
OnProgress = Callable[[Progress], None]


def run_plan(
    scenario: Scenario,
    plan: Sequence[Planned],
    keys: Mapping[str, str],
    *,
    folder: Path,
    addresses: Sequence[str] | None = None,
    stop: threading.Event | None = None,
    stop_drain_s: float = 0.0,
    on_progress: OnProgress | None = None,
    command: Sequence[str] = WORKER,
    silence_s: float = SILENCE_S,
) -> RunOutput:
    """Send the plan, and return what came of it; blocks. `keys`: tenant → key.

    `addresses`: those of the target's host that were checked, dialled by all workers; None: looked up here.
    `folder` must exist; what workers need is in a private folder inside it while the run lasts. `stop`, once set,
    ends the run within 2 s with what was measured, or lets what is on its way end first, for `stop_drain_s` at most.
    `on_progress` is called each second, in this thread. Raises RunError when a worker fails, dies or hangs.
    """
    private = Path(tempfile.mkdtemp(prefix="run-", dir=folder))  # 0700
    workers: list[WorkerProcess] = []
    dialled = tuple(_addresses_of(scenario) if addresses is None else addresses)
    try:
        for number, share in enumerate(shares(plan, scenario.processes)):
            orders = _orders(scenario, number, min(scenario.processes, len(plan)), private, keys, share)
            orders = msgspec.structs.replace(orders, addresses=dialled)
            write_plan(Path(orders.plan_file), scenario, share)
            workers.append(WorkerProcess(orders, private / f"{number}.stderr", command))
            workers[-1].tell(orders)
        stopping = stop or threading.Event(), stop_drain_s
        return _Run(scenario, plan, workers, stopping, on_progress, silence_s).output()
    finally:
        for worker in workers:
            worker.end()
        shutil.rmtree(private, ignore_errors=True)


def _orders(
    scenario: Scenario, number: int, processes: int, private: Path, keys: Mapping[str, str], share: Sequence[Planned]
) -> Orders:
    tenants = {request.tenant for request in share}
    return Orders(
        process=number,
        plan_file=str(private / f"{number}.plan.jsonl"),
        records_file=str(private / f"{number}.records"),
        url=scenario.target.url,
        addresses=(),
        ca_file=scenario.target.ca_file,
        verify_tls=scenario.target.verify_tls,
        keys={tenant: key for tenant, key in keys.items() if tenant in tenants},
        connections=max(1, scenario.limits.connections // processes),
        bytes=scenario.limits.bytes,
        duration_s=scenario.duration_s,
        drain_s=scenario.drain_s,
    )


def _addresses_of(scenario: Scenario) -> Sequence[str]:
    """Empty where the name is unknown."""
    try:
        return addresses_of(urlsplit(scenario.target.url).hostname or "")
    except (OSError, UnicodeError, ValueError):
        return ()


class _Run:
    """Workers that have their orders, until each has told Done."""

    def __init__(
        self,
        scenario: Scenario,
        plan: Sequence[Planned],
        workers: Sequence[WorkerProcess],
        stopping: tuple[threading.Event, float],
        on_progress: OnProgress | None,
        silence_s: float,
    ) -> None:
        """`stopping`: the wish to stop, and how long what is on its way may go on then."""
        self._scenario, self._plan, self._workers = scenario, plan, workers
        self._stop, self._stop_drain_s = stopping
        self._on_progress, self._silence_s = on_progress, silence_s
        self._ready: set[int] = set()
        self._done: dict[int, Done] = {}
        self._ticks = TickBook(worker.number for worker in workers)
        self._search = StepSearch(scenario, plan)
        self._last_s: float | None = None
        """When what still runs after a Stop is killed; None: no Stop was told."""
        self._heard_s = {worker.number: time.monotonic() for worker in workers}
        self._start_ns = 0
        self._observer = Observer(scenario, self._now_s)
        self._problems: list[str] = []

    def output(self) -> RunOutput:
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker, selectors.EVENT_READ, worker)
            self._prepare(selector)
            started_unix_s = time.time() + AHEAD_S
            self._start_ns = time.monotonic_ns() + round(AHEAD_S * 1e9)
            if not self._stop.is_set():
                self._watch(selector)
        return self._gathered(started_unix_s)

    def _prepare(self, selector: selectors.BaseSelector) -> None:
        """Until every worker could send."""
        patience_s = self._silence_s + READ_S * len(self._plan)
        while len(self._ready) < len(self._workers) and not self._stop.is_set():
            self._listen(selector)
            self._refuse_silence([one for one in self._workers if one.number not in self._ready], patience_s)

    def _watch(self, selector: selectors.BaseSelector) -> None:
        """From Start until every worker is done, or has had its time after a Stop."""
        self._tell_all(Start(self._start_ns))
        self._observer.start()
        self._heard_s = dict.fromkeys(self._heard_s, time.monotonic())
        everything_s = self._scenario.duration_s + self._scenario.drain_s + self._silence_s
        stopping = False
        while len(self._done) < len(self._workers):
            self._listen(selector)
            self._show()
            if self._stop.is_set() and not stopping:
                stopping = True
                self._halt(Stop(drain_s=self._stop_drain_s))
            if self._last_s is None:
                self._refuse_silence(self._running(), self._silence_s)
                if self._now_s() > everything_s:
                    raise self._failure(self._running()[0], "goes on after everything was over")
            elif self._now_s() > self._last_s:
                return
        for worker in self._workers:
            if code := worker.ended(STOP_S):
                raise self._failure(worker, f"was mistaken somewhere, {_status(code)}")

    def _halt(self, stop: Stop) -> None:
        """Those that do not end by themselves now are killed a little later."""
        self._last_s = self._now_s() + stop.drain_s + STOP_S
        self._tell_all(stop)

    def _listen(self, selector: selectors.BaseSelector) -> None:
        for key, _ in selector.select(LOOK_S):
            worker: WorkerProcess = key.data
            self._heard_s[worker.number] = time.monotonic()
            try:
                heard = worker.hear()
            except msgspec.MsgspecError as error:
                raise self._failure(worker, f"said what is no message ({error})") from None
            if heard is None:
                selector.unregister(worker)
                if worker.number not in self._done and not self._stop.is_set():
                    raise self._failure(worker, f"ended too early, {_status(worker.ended(1.0))}")
            for message in heard or ():
                self._take(worker, message)

    def _take(self, worker: WorkerProcess, message: Ready | Tick | Done | Failed) -> None:
        match message:
            case Ready():
                self._ready.add(worker.number)
            case Tick():
                self._ticks.take(worker.number, message)
                if self._ticks.bytes > self._scenario.limits.bytes:
                    self._end_at_bytes()
                self._look_at_steps(worker)
            case Done():
                self._done[worker.number] = message
                if message.ended == "bytes":
                    self._end_at_bytes()
            case Failed():
                raise RunError(message.problem)

    def _end_at_bytes(self) -> None:
        """Of all workers together; by itself one ends only when it has reached the bound alone."""
        if not self._problems:
            limit = f"{self._scenario.limits.bytes:,}"
            self._problems.append(f"limits.bytes: {limit} bytes were sent and received; raise it, or send less")
            self._halt(Stop("unfinished"))

    def _show(self) -> None:
        progress = self._ticks.progress([worker.number for worker in self._running()])
        if progress is not None and self._on_progress is not None:
            self._on_progress(progress)

    def _look_at_steps(self, worker: WorkerProcess) -> None:
        """With each tick a worker's records can be read up to there."""
        if self._search.active and self._last_s is None:
            self._search.read(worker.records_file)
            if self._search.is_over(self._now_s()):
                self._halt(Stop("unfinished", drain_s=self._scenario.drain_s))

    def _refuse_silence(self, workers: Sequence[WorkerProcess], patience_s: float) -> None:
        for worker in workers:
            if time.monotonic() - self._heard_s[worker.number] > patience_s:
                raise self._failure(worker, f"has said nothing for {patience_s:.0f} s")

    def _running(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker.number not in self._done]

    def _tell_all(self, message: Start | Stop) -> None:
        """One that cannot be told has gone, which shows when it is listened to."""
        for worker in self._running():
            worker.tell(message, 0.2)

    def _failure(self, worker: WorkerProcess, what: str) -> RunError:
        said = worker.said() or "nothing"
        self._tell_all(Stop())
        deadline_s = time.monotonic() + STOP_S
        for other in self._running():
            if other is not worker:
                other.ended(max(0.0, deadline_s - time.monotonic()))
        problem = f"worker {worker.number} (process {worker.pid}) {what}; it wrote to stderr: {said}"
        output = self._gathered(time.time() - self._now_s()) if self._start_ns else None
        return RunError(problem, output)

    def _gathered(self, started_unix_s: float) -> RunOutput:
        records = sorted((record for worker in self._workers for record in _records(worker)), key=lambda one: one.id)
        scenario = self._scenario
        window = (scenario.warmup_s, scenario.duration_s - scenario.cooldown_s)
        counts = {worker.number: 0 for worker in self._workers}
        for record in records:
            counts[record.process] += 1
        return RunOutput(
            plan=self._plan,
            records=records,
            processes=[self._ticks.load(number, window, requests=count) for number, count in counts.items()],
            server=self._observer.stop(),
            started_unix_s=started_unix_s,
            duration_s=max((record.end_us for record in records), default=0) / 1e6,
            interrupted=self._stop.is_set(),
            problems=tuple(self._problems),
        )

    def _now_s(self) -> float:
        return (time.monotonic_ns() - self._start_ns) / 1e9


def _records(worker: WorkerProcess) -> Iterator[Record]:
    """As far as they are whole."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        yield from iterate_records(worker.records_file)


def _status(code: int | None) -> str:
    if code is None:
        return "without an end of its process"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
