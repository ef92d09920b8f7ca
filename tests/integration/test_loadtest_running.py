"""A run over worker processes that are programmed: what they tell is merged, and none of them outlives it."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from tests.builders import fake_worker
from tests.builders.up import until

from cotenant_loadtests.planned import Planned
from cotenant_loadtests.running import Progress, RunError, RunOutput, run_plan
from cotenant_loadtests.spec import Scenario

pytestmark = pytest.mark.integration

FAKE = str(Path(fake_worker.__file__))


def scenario(processes: int = 2, **fields: object) -> Scenario:
    stream = {"name": "s", "tenant": "t", "model": "m", "arrivals": {"process": "constant", "rate_per_s": 1}}
    values = {"name": "x", "streams": [stream], "duration_s": 3, "processes": processes, **fields}
    return Scenario.model_validate(values)


def planned(number: int, tenant: str = "search", after: int | None = None) -> Planned:
    at_s = 0.5 * number if after is None else None
    return Planned(id=number, at_s=at_s, after=after, stream="s", tenant=tenant, model="m", api="chat")


PLAN = [planned(0), planned(1, "ads"), planned(2), planned(3, "ads", after=1), planned(4), planned(5, after=0)]
KEYS = {"search": "key-of-search", "ads": "key-of-ads", "other": "key-of-other"}


def run(
    kind: str,
    folder: Path,
    *,
    stop: threading.Event | None = None,
    stop_drain_s: float = 0.0,
    silence_s: float = 30.0,
) -> RunOutput:
    return run_plan(
        scenario(),
        PLAN,
        KEYS,
        folder=folder,
        stop=stop,
        stop_drain_s=stop_drain_s,
        command=[sys.executable, "-P", FAKE, kind],
        silence_s=silence_s,
    )


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_records_of_all_workers_come_back_by_id_and_nothing_is_left(tmp_path: Path) -> None:
    output = run("good", tmp_path)

    assert [record.id for record in output.records] == [0, 1, 2, 3, 4, 5]
    assert [load.requests for load in output.processes] == [3, 3]
    assert [record.process for record in output.records] == [0, 1, 0, 1, 1, 0]  # with the turn before
    assert (output.interrupted, output.problems, output.duration_s) == (False, (), 2.002)
    assert list(tmp_path.iterdir()) == []
    assert children() == []


def test_a_worker_has_the_keys_of_its_tenants_and_no_other(tmp_path: Path) -> None:
    one, two = (output.detail for output in run("good", tmp_path).records[:2])

    assert one == '[["search", "key-of-search"]]'
    assert two == '[["ads", "key-of-ads"], ["search", "key-of-search"]]'


def test_each_second_is_told_once_with_the_sums_of_all_workers(tmp_path: Path) -> None:
    told: list[Progress] = []

    run_plan(
        scenario(),
        PLAN,
        KEYS,
        folder=tmp_path,
        on_progress=told.append,
        command=[sys.executable, "-P", FAKE, "endless"],
        stop=later(told),
    )

    last = told[-1]
    assert last.at_s == 3.0
    assert last.sent == last.succeeded
    assert last.tokens == {"search": 40, "ads": 20}
    assert {tenant for progress in told for tenant in progress.ttft_p50_ms} == {"search", "ads"}
    assert max(progress.lateness_p99_ms for progress in told) == 0.201
    assert [progress.at_s for progress in told] == sorted({progress.at_s for progress in told})


def later(told: list[Progress]) -> threading.Event:
    """Set once the last second of both workers was told."""
    stop = threading.Event()

    def press() -> None:
        until(lambda: told and told[-1].sent == {"search": 4, "ads": 2}, "the last second is told")
        stop.set()

    threading.Thread(target=press).start()
    return stop


def test_processes_say_how_busy_they_were(tmp_path: Path) -> None:
    for load in run("good", tmp_path).processes:
        assert (load.cpu_share, load.cpu_share_peak, load.saturated_share) == (0.25, 0.25, 0.0)
        assert load.max_rss_bytes == fake_worker.RSS_BYTES


def test_a_worker_that_cannot_begin_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^the certificate is in no file$"):
        run("fails", tmp_path)
    assert children() == []


def test_a_worker_that_dies_is_named_with_its_last_words_and_records_are_kept(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        run("dies", tmp_path)

    assert "worker 0 " in str(caught.value)
    assert "killed by signal 9; it wrote to stderr: Traceback: the disk is full" in str(caught.value)
    assert caught.value.output is not None
    assert [record.id for record in caught.value.output.records] == [0, 1, 2, 3, 4, 5]
    assert children() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["hangs", "never-ready"])
def test_a_worker_that_hangs_ends_the_run(kind: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has said nothing for"):
        run(kind, tmp_path, silence_s=0.5)
    assert children() == []


def test_a_worker_that_talks_nonsense_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="said what is no message"):
        run("nonsense", tmp_path)


def test_a_program_that_is_no_worker_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="ended too early, exit code 3; it wrote to stderr: nothing"):
        run_plan(scenario(), PLAN, {}, folder=tmp_path, command=[sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize("kind", ["endless", "deaf", "hangs"])
def test_a_stop_ends_everything_within_two_seconds_with_what_was_recorded(kind: str, tmp_path: Path) -> None:
    ended_after_s: list[float] = []
    for attempt in range(3):  # a machine that is busy with other tests may be slower
        (folder := tmp_path / str(attempt)).mkdir()
        ended_after_s.append(stopped_run(kind, folder))
        if ended_after_s[-1] < 4.0:
            return
    raise AssertionError(ended_after_s)


def stopped_run(kind: str, folder: Path) -> float:
    """Seconds from the stop to the end of the run."""
    stop = threading.Event()
    stopped: list[float] = []

    def press() -> None:
        until(lambda: list(folder.glob("run-*/*.records")), "workers have begun")
        time.sleep(0.3)
        stopped.append(time.monotonic())
        stop.set()

    threading.Thread(target=press).start()
    output = run(kind, folder, stop=stop)
    took_s = time.monotonic() - stopped[0]

    assert output.interrupted
    assert len(output.records) == len(PLAN)
    assert children() == []
    return took_s


def test_a_stop_with_patience_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    stop = threading.Event()

    def press() -> None:
        until(lambda: list(tmp_path.glob("run-*/*.records")), "workers have begun")
        stop.set()

    threading.Thread(target=press).start()
    output = run("drains", tmp_path, stop=stop, stop_drain_s=60.0)

    assert output.interrupted
    assert len(output.records) == len(PLAN)


def test_a_stop_before_the_start_measures_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()

    output = run("never-ready", tmp_path, stop=stop)

    assert (output.interrupted, list(output.records), output.duration_s) == (True, [], 0.0)
    assert children() == []


def test_a_run_that_reaches_its_bound_of_bytes_says_so(tmp_path: Path) -> None:
    (problem,) = run("full", tmp_path).problems

    assert problem.startswith("limits.bytes: 20,000,000,000 bytes were sent and received")


def test_the_bound_of_bytes_is_that_of_all_workers_together(tmp_path: Path) -> None:
    """A busy one may use what the others leave."""
    (problem,) = run("heavy", tmp_path, silence_s=30.0).problems

    assert problem.startswith("limits.bytes: 20,000,000,000 bytes were sent and received")


def test_what_workers_need_is_private_while_the_run_lasts(tmp_path: Path) -> None:
    stop = threading.Event()
    modes: list[int] = []
    texts: list[bytes] = []

    def look() -> None:
        (plan_file,) = until(lambda: list(tmp_path.glob("run-*/1.plan.jsonl")), "a plan is written")
        until(lambda: list(tmp_path.glob("run-*/1.records")), "workers have begun")
        modes.append(stat.S_IMODE(plan_file.parent.stat().st_mode))
        texts.extend(path.read_bytes() for path in plan_file.parent.glob("*.plan.jsonl"))
        texts.extend(" ".join(child.cmdline()).encode() for child in children())
        stop.set()

    threading.Thread(target=look).start()
    run("endless", tmp_path, stop=stop)

    assert modes == [0o700]
    assert texts
    assert not any(key.encode() in text for key in KEYS.values() for text in texts)


RUNNER = """
import sys, threading
from pathlib import Path
from tests.integration.test_loadtest_running import run
run("deaf", Path(sys.argv[1]))
"""


def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, os.getcwd()])}
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], env=environment)
    try:
        until(lambda: len(list(tmp_path.glob("run-*/*.records"))) == 2, "workers have begun")
        workers = psutil.Process(runner.pid).children()
        assert len(workers) == 2
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()

    until(lambda: not any(worker.is_running() for worker in workers), "the workers have ended")
