"""Everything goes wrong at random under load; every answer and every usage record is judged.

What must never be lost: a request that no engine had begun to answer; the error that ends a stream whose engine is
gone; a usage record, each exactly once. Only a gateway's worker that is killed takes something with it: its own
connections. Those are counted.
"""

import contextlib
import http.client
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.builders.bad_days import BadDays, Disk, conductor, may_mount, ready, workers
from tests.builders.load import LONGEST_S, Load, echo_chats, usage_since, whole_chats
from tests.builders.up import Up, echo, key_of, keys, kill, pool, tenant, until

from cotenant_loadtests.record import Record
from cotenant_serving.contract import EngineStatus

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

SEED = 20_260_101
MODELS = ("search/left", "search/right")
ENGINES, SLOTS = 3, 8
"""Of each model; of each engine."""
REQUESTS, RATE_PER_S, WORDS = 10_000, 40.0, (3, 30)
"""Some 25 are under way at a time, four at each engine."""
MOST_IN_FLIGHT = 100
"""When another fault comes."""
FAULTS = {
    "kill_engine": 50,
    "stop_engine": 20,
    "kill_conductor": 10,
    "kill_worker": 10,
    "fill_disk": 5,
    "starve_worker": 5,
    "starve_engine": 5,
}
DISK_BYTES = 48 << 20
CUT_OFF = ("connect", "reset", "cut_short")
"""What may become of a request when its gateway's worker is killed."""
CUT_WITHIN_S = 3.0
GROWTH_BYTES = 64 << 20
"""What a program that lives through all of it may take more."""
TENANTS = ("search", "ads", "maps", "news")
"""Several, so that on a slow machine the bound of one tenant's line is not what counts."""
KEYS = {name: key_of(name) for name in TENANTS}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk | None]:
    """The state directory, logs included, if we may mount one."""
    folder = tmp_path_factory.mktemp("up")
    if not may_mount(folder / "probe"):
        yield None
        return
    disk = Disk(folder / "state", DISK_BYTES)
    yield disk
    disk.close()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, disk: Disk | None) -> Iterator[Up]:
    folder = disk.folder.parent if disk else tmp_path_factory.mktemp("up")
    engines = {"replicas": {"min": ENGINES, "max": ENGINES}, "concurrency": SLOTS, "tokensPerSecond": 20}
    shared = {"gpu": {"memory": "512Mi"}, "tenants": list(TENANTS)}
    models = [echo(name.partition("/")[2], **engines, **shared) for name in MODELS]
    tenants = [tenant(name, accepts=[{"namespace": "search", "models": ["*"]}]) for name in TENANTS[1:]]
    documents = [pool(), tenant("search"), *tenants, keys(*TENANTS), *models]
    running = Up(folder, *documents, options=("--gateway-workers", "2"))
    running.start()
    try:
        all_is_well(running)
        yield running
    finally:
        running.stop()
    assert running.processes() == []


def test_nothing_is_lost_hangs_or_leaks_whatever_is_killed_stopped_or_starved(
    up: Up, disk: Disk | None, tmp_path: Path, full_size: Callable[[int], int]
):
    requests = full_size(REQUESTS)
    counts = {fault: full_size(count) for fault, count in FAULTS.items() if disk or fault != "fill_disk"}
    rng = random.Random(SEED)
    before = long_lived(up)
    with (
        Load(
            echo_chats(up.url, TENANTS, MODELS, rate_per_s=RATE_PER_S, seed=SEED, words=WORDS), KEYS, tmp_path
        ) as load,
        BadDays(up, rng, disk) as days,
    ):
        spread(days, counts, load, over_s=requests / RATE_PER_S)
        days.put_all_right()
        until(lambda: load.succeeded >= requests, f"{requests} answers", explain=up.said, limit_s=300)
    print(f"seed {SEED}: {dict(days.inflicted)}, {dict(load.outcomes)}")
    assert days.inflicted == counts
    judge_answers(up, load, days)
    judge_usage(up, load)
    all_is_well(up)
    every_slot_is_free(up)
    nothing_grew(before)


def test_requests_that_a_stopped_engine_has_not_begun_to_answer_are_answered_by_others(
    up: Up, tmp_path_factory: pytest.TempPathFactory
):
    all_is_well(up)
    victim = None
    try:
        whole = whole_chats(up.url, TENANTS, MODELS[:1], rate_per_s=10, seed=2, duration_s=LONGEST_S)
        with Load(whole, KEYS, tmp_path_factory.mktemp("whole")) as load:
            victim = until(lambda: one_that_serves(up, MODELS[0]), "an engine serves", explain=up.said)
            left = up.retries("silent")
            os.kill(victim.pid, signal.SIGSTOP)
            until(lambda: up.retries("silent") > left, "requests leave it", explain=up.said)
        assert load.wrong("ok") == [], errors_of_gateway(up)
        judge_usage(up, load)
        scenario = echo_chats(up.url, TENANTS, MODELS[:1], rate_per_s=10, seed=2, words=WORDS, duration_s=4)
        with Load(scenario, KEYS, tmp_path_factory.mktemp("streams")) as load:
            until(lambda: load.ended, "every request is answered")
        assert load.wrong("ok") == [], errors_of_gateway(up)
    finally:
        if victim is not None:
            with contextlib.suppress(ProcessLookupError):  # Serve kills it some day
                os.kill(victim.pid, signal.SIGCONT)
    judge_usage(up, load)


def test_a_full_disk_stops_nothing_and_what_waited_for_it_is_written(up: Up, disk: Disk | None, tmp_path: Path):
    """Even what is killed meanwhile comes back; only the records of a worker that is killed twice would be lost."""
    if disk is None:
        pytest.skip("mounting a small file system is not permitted here (it needs root)")
    all_is_well(up)
    rng = random.Random(SEED)
    with Load(echo_chats(up.url, TENANTS, MODELS, rate_per_s=10, seed=1, words=WORDS), KEYS, tmp_path) as load:
        disk.fill()
        with BadDays(up, rng) as days:
            for fault in ("kill_worker", "kill_engine", "kill_conductor"):
                days.inflict(fault)
                before = load.succeeded
                until(lambda: load.succeeded > before + 20, f"answers come after {fault}", explain=up.said)  # noqa: B023
        all_is_well(up)
    old = {worker.pid for worker in workers(up)}
    kill(first_process(up).pid)
    until(
        lambda: old.isdisjoint(one.pid for one in workers(up)) and answers(up), "a gateway is back", explain=up.said
    )
    disk.free()
    judge_answers(up, load, days)
    judge_usage(up, load)
    until(lambda: all(has_journal(up, one) for one in workers(up)), "requests in flight outlive workers again")
    assert up.chat("search", MODELS[0], "word")[0] == 200


def one_that_serves(up: Up, model: str) -> EngineStatus | None:
    """With a request at this moment, so the gateways know it and give it more."""
    return next((engine for engine in ready(up).values() if engine.model == model and engine.running), None)


def first_process(up: Up) -> psutil.Process:
    """Of the gateway."""
    (found,) = {worker.parent() for worker in workers(up)}
    assert found is not None
    return found


def answers(up: Up) -> bool:
    """The gateway does."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return "cotenant_gateway_workers" in up.metrics()
    return False


def has_journal(up: Up, worker: psutil.Process) -> bool:
    return any((up.state / "gateway" / "journals").glob(f"*-{worker.pid}-*.journal"))


def spread(days: BadDays, counts: Mapping[str, int], load: Load, *, over_s: float) -> None:
    """Inflicts them all, at random moments; later on a slow machine, whose engines would never be back in time."""
    faults = days.shuffled(counts)
    began_s = time.monotonic()
    for number, fault in enumerate(faults):
        due_s = began_s + over_s * (number + days.rng.random()) / len(faults)
        days.rest(max(0.0, due_s - time.monotonic()))
        days.await_that(lambda: load.in_flight <= MOST_IN_FLIGHT, "the load is served")
        days.inflict(fault)


def judge_answers(up: Up, load: Load, days: BadDays) -> None:
    """Broken streams end with an error event, and what a killed worker took had its connection there."""
    assert load.output is not None
    assert load.wrong("ok", "error_event", *CUT_OFF) == [], errors_of_gateway(up)
    for one in load.records:
        if one.outcome in CUT_OFF:
            ended_s = load.output.started_unix_s + one.end_us / 1e6
            assert any(-0.1 < ended_s - killed_s < CUT_WITHIN_S for killed_s in days.workers_killed_unix_s), one


def errors_of_gateway(up: Up) -> str:
    """The last of them."""
    lines = (up.state / "logs" / "gateway.log").read_text(errors="replace").splitlines()
    return "\n".join([line for line in lines if '"level":"error"' in line and "worker_" not in line][-5:])


def judge_usage(up: Up, load: Load) -> None:
    """One record for each request: exact for whole answers, estimated for those that broke, and no others.

    A request that a killed worker took may have reached it or not.
    """
    cut_off = [one for one in load.records if one.outcome in CUT_OFF]
    known = {one.request_id: one for one in load.records if one.outcome not in CUT_OFF}
    assert len(known) == len(load.records) - len(cut_off)
    records = usage_since(up, load.began_unix_s, len(known))
    by_id = {record["request_id"]: record for record in records}
    assert max(Counter(record["request_id"] for record in records).values()) == 1
    assert known.keys() <= by_id.keys()
    wrong = [(one, by_id[name]) for name, one in known.items() if counted(by_id[name]) != served(load, one)]
    assert wrong == []
    of_the_dead = [record for name, record in by_id.items() if name not in known]
    assert len(of_the_dead) <= len(cut_off)
    assert {record["outcome"] for record in of_the_dead} <= {"gateway_lost", "ok", "upstream_error", "client_closed"}
    exact = sum(
        record["completion_tokens"] for name, record in by_id.items() if name in known and not record["estimated"]
    )
    assert exact == sum(load.words(one) + 1 for one in known.values() if one.outcome == "ok")


def counted(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("outcome", "model", "status", "estimated", "completion_tokens"))


def served(load: Load, one: Record) -> tuple[Any, ...]:
    """What its usage record must say."""
    model = load.planned[one.id].model
    if one.outcome == "ok":
        return ("ok", model, 200, False, load.words(one) + 1)
    return ("upstream_error", model, 200, True, one.events)


def all_is_well(up: Up) -> None:
    """Every program runs, once; and no other."""
    until(lambda: len(ready(up)) == ENGINES * len(MODELS), "every engine is ready", explain=up.said)
    until(lambda: len(workers(up)) == 2 and conductor(up) is not None, "every program runs", explain=up.said)
    until(
        lambda: len(engine_lines(up)) == ENGINES * len(MODELS), "no other runs", explain=lambda: str(engine_lines(up))
    )


def engine_lines(up: Up) -> list[str]:
    """How processes of engines call themselves."""
    lines = []
    for process in up.processes():
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return [line for line in lines if line.startswith("ray::ServeReplica")]


def every_slot_is_free(up: Up) -> None:
    """As many streams as there are slots run at the same time, and nobody waits."""
    until(lambda: numbers(up) == (0, 0), "nothing runs or waits", explain=lambda: str(numbers(up)))
    with contextlib.ExitStack() as held:
        for model in MODELS:
            for _ in range(ENGINES * SLOTS):
                response = held.enter_context(up.request("search", model, "word", stream=True, max_tokens=1000))
                assert response.status == 200
        assert numbers(up) == (0, len(MODELS) * ENGINES * SLOTS)
    until(lambda: numbers(up) == (0, 0), "nothing runs or waits", explain=lambda: str(numbers(up)))


def numbers(up: Up) -> tuple[float, float]:
    """Requests that wait, and that run."""
    values = Counter[str]()
    for line in up.metrics().splitlines():
        name, _, rest = line.partition("{")
        values[name] += float(rest.rpartition(" ")[2]) if rest else 0
    return values["cotenant_queue_depth"], values["cotenant_requests_in_flight"]


def long_lived(up: Up) -> dict[psutil.Process, int]:
    """Programs that nothing is done to, with their memory in bytes."""
    names = ("cotenant_operator up", "cotenant_serving.gateway --", "ServeController")
    assert up.process is not None
    found = [psutil.Process(up.process.pid), *up.processes()]
    lines = {one: " ".join(one.cmdline()) for one in found}
    return {one: one.memory_info().rss for one, line in lines.items() if any(name in line for name in names)}


def nothing_grew(before: Mapping[psutil.Process, int]) -> None:
    assert len(before) >= 3
    grown = {one.name(): one.memory_info().rss - rss for one, rss in before.items()}
    assert max(grown.values()) < GROWTH_BYTES, grown
