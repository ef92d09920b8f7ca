"""A worker against a server whose behaviour is exactly known: what it reports is the truth, whatever it is told."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean, quantiles

import pytest
from tests.builders.loadtest_worker import KEY, StartedWorker, WorkerRun, chat, run_worker
from tests.builders.reference_answers import FAULTS, RETRY_AFTER_S, STREAM_FAULTS
from tests.builders.reference_process import ReferenceServer, reference_server
from tests.builders.reference_server import Logged

from cotenant_loadtests.planned import Message, Planned, Tensor
from cotenant_loadtests.record import Record, decode_times

pytestmark = pytest.mark.integration

GRID_MS = 1.0
"""The reference server's answers are due at whole milliseconds."""
ATTEMPTS = 4
"""To find a moment in which a busy machine leaves server and worker alone."""
PRIMES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceServer]:
    """A quick one, without faults: ten tokens in 20 ms."""
    with reference_server(tmp_path_factory.mktemp("reference") / "log", ttft_ms=10, itl_ms=1) as started:
        yield started


def truth_of(run: WorkerRun, server: ReferenceServer) -> list[tuple[Record, Logged]]:
    log = server.log()
    return [(record, log[record.request_id]) for record in run.records]


def noise_ms(run: WorkerRun) -> float:
    """How late the worker's own timers were at worst: a busy machine holds up what it reads just as long.

    A part of a millisecond on a quiet machine, where the comparisons below are thus as sharp as they claim.
    """
    return max(record.lateness_us + record.connect_us for record in run.records) / 1e3


def close(measured_ms: float, truth_ms: float, noise_ms: float) -> bool:
    """Within 2 % or 1 ms, and never earlier than it was for any noise."""
    tolerance_ms = max(0.02 * truth_ms, 1.0)
    return -tolerance_ms <= measured_ms - truth_ms <= tolerance_ms + noise_ms


def percentiles(values: list[float]) -> list[float]:
    """p50, p90, p99."""
    cuts = quantiles(values, n=100, method="inclusive")
    return [cuts[49], cuts[89], cuts[98]]


# Every API, whole and streamed


def test_every_api_is_asked_and_its_answer_counted(server: ReferenceServer, tmp_path: Path) -> None:
    inputs = (Message(role="user", text="one two"), Message(role="user", text="three"))
    tensor = Tensor(name="x", datatype="FP32", shape=(2, 2), seed=1)
    plan = [
        chat(0),
        chat(1, streamed=False),
        chat(2, api="completions"),
        chat(3, api="completions", streamed=False),
        chat(4, api="embeddings", messages=inputs, max_tokens=None, streamed=False, check="shape"),
        chat(5, api="oip", messages=(), tensors=(tensor,), max_tokens=None, streamed=False, check="shape"),
        chat(6, max_tokens=None),
        chat(7, include_usage=False),
    ]
    run = run_worker(plan, server.port, tmp_path)
    assert run.outcomes() == {"ok": len(plan)}
    assert [record.events for record in run.records] == [10, 1, 10, 1, 1, 1, 21, 10]
    assert [record.completion_tokens for record in run.records] == [10, 10, 10, 10, -1, -1, 21, -1]
    assert [record.prompt_tokens for record in run.records] == [20, 20, 20, 20, 3, -1, 20, -1]
    assert {record.status for record in run.records} == {200}
    assert {record.process for record in run.records} == {3}


def test_what_happened_is_kept_in_order(server: ReferenceServer, tmp_path: Path) -> None:
    run = run_worker([chat(number, at_s=0.02 * number) for number in range(20)], server.port, tmp_path)
    for record in run.records:
        times = [record.sent_us, record.first_byte_us, record.first_token_us, record.end_us]
        assert times == sorted(times)
        assert record.scheduled_us <= record.sent_us
        assert decode_times(record.token_times)[0] == record.first_token_us
        assert record.lateness_us + record.connect_us <= record.sent_us - record.scheduled_us
    assert sum(record.bytes_in for record in run.records) == run.done.bytes_in
    assert sum(record.bytes_out for record in run.records) == run.done.bytes_out


# Errors are counted exactly


@pytest.mark.parametrize("streamed", [True, False])
def test_each_fault_is_called_what_it_is_and_counted_exactly(tmp_path: Path, streamed: bool) -> None:
    faults = tuple(zip(PRIMES, FAULTS, strict=True))
    plan = [chat(number, at_s=0.0005 * number, streamed=streamed) for number in range(400)]
    with reference_server(tmp_path / "log", faults=faults) as server:
        run = run_worker(plan, server.port, tmp_path)
        by_id = server.log()
    unnamed = [record for record in run.records if record.request_id not in by_id]
    assert not unnamed, "the server's request ids arrive before whatever goes wrong"
    expected = {kind: outcome for kind, outcome in FAULTS.items() if streamed or kind not in STREAM_FAULTS}
    wrong = [
        (by_id[record.request_id].fault, record.outcome, record.detail)
        for record in run.records
        if record.outcome != expected.get(by_id[record.request_id].fault or "", "ok")
    ]
    assert wrong == []
    assert set(Counter(logged.fault for logged in by_id.values())) == {None, *FAULTS}
    limited = [record.retry_after_s for record in run.records if record.outcome == "rate_limited"]
    assert set(limited) == {RETRY_AFTER_S}
    details = {record.detail for record in run.records if record.outcome == "error_event"}
    assert details == ({"engine_lost"} if streamed else set())


# Times are the truth


def test_no_token_is_seen_before_it_was_sent_and_half_of_them_within_a_millisecond(
    server: ReferenceServer, tmp_path: Path
) -> None:
    worker = StartedWorker([chat(number, at_s=0.01 * number) for number in range(60)], server.port, tmp_path)
    run = worker.end()
    delays_ms: list[float] = []
    for record, logged in truth_of(run, server):
        seen_ns = [worker.start_ns + 1000 * time_us for time_us in decode_times(record.token_times)]
        assert len(seen_ns) == len(logged.sent_ns)
        before_ns = [logged.asked_ns, *logged.sent_ns]
        assert all(seen >= before - 1000 for seen, before in zip(seen_ns, before_ns, strict=False))
        delays_ms += [(seen - sent) / 1e6 for seen, sent in zip(seen_ns, logged.sent_ns, strict=True)]
    assert percentiles(delays_ms)[0] <= 1.0 + noise_ms(run)


def test_percentiles_are_within_two_percent_or_a_millisecond_of_the_servers_own(tmp_path: Path) -> None:
    """The server works on one request after the other, so times to the first token spread over some 100 ms.

    A machine that holds the worker up while it reads, and not while it sends, is asked again.
    """
    plan = [chat(number, at_s=at_s, max_tokens=3) for number, at_s in enumerate(_poisson(50, count=100, seed=3))]
    wrong = []
    for attempt in range(ATTEMPTS):
        (folder := tmp_path / str(attempt)).mkdir()
        with reference_server(folder / "log", service_ms=16, itl_ms=20) as server:
            worker = StartedWorker(plan, server.port, folder)
            run = worker.end()
            pairs = truth_of(run, server)
        figures = _ttft_percentiles(pairs, worker.start_ns) + _gap_percentiles(pairs)
        wrong = [(measured, truth) for measured, truth in figures if not close(measured, truth, noise_ms(run))]
        if not wrong:
            return
    raise AssertionError((wrong, noise_ms(run)))


def _poisson(rate_per_s: float, count: int, seed: int) -> list[float]:
    rng, times, at_s = random.Random(seed), [], 0.0
    for _ in range(count):
        times.append(at_s)
        at_s += rng.expovariate(rate_per_s)
    return times


def _ttft_percentiles(pairs: list[tuple[Record, Logged]], start_ns: int) -> list[tuple[float, float]]:
    measured = [(record.first_token_us - record.scheduled_us) / 1e3 for record, _ in pairs]
    truth = [(logged.sent_ns[0] - start_ns) / 1e6 - record.scheduled_us / 1e3 for record, logged in pairs]
    return list(zip(percentiles(measured), percentiles(truth), strict=True))


def _gap_percentiles(pairs: list[tuple[Record, Logged]]) -> list[tuple[float, float]]:
    measured = [(b - a) / 1e3 for record, _ in pairs for a, b in pairwise(decode_times(record.token_times))]
    truth = [(b - a) / 1e6 for _, logged in pairs for a, b in pairwise(logged.sent_ns)]
    return list(zip(percentiles(measured), percentiles(truth), strict=True))


def test_a_queue_of_one_server_is_seen_as_lindley_says(tmp_path: Path) -> None:
    """M/D/1: each request waits for what the one before left of its wait and service.

    A machine that holds the server up is asked again.
    """
    service_ms, schedule = 12.0, _poisson(rate_per_s=50, count=100, seed=4)
    expected_ms = [service_ms]
    for before_s, at_s in pairwise(schedule):
        expected_ms.append(max(0.0, expected_ms[-1] - (at_s - before_s) * 1e3) + service_ms)
    plan = [chat(number, at_s=at_s, max_tokens=1) for number, at_s in enumerate(schedule)]
    measured_ms = held_up_ms = 0.0
    for attempt in range(ATTEMPTS):
        with reference_server(service_ms=service_ms) as server:
            run = run_worker(plan, server.port, tmp_path / str(attempt))
        measured_ms = mean((record.first_token_us - record.scheduled_us) / 1e3 for record in run.records)
        assert measured_ms >= mean(expected_ms) - 0.01, "neither an early request nor a lost wait"
        # The server's timers are held up too, and those who wait in its queue with them.
        held_up_ms = 2 * noise_ms(run)
        if close(measured_ms - GRID_MS / 2, mean(expected_ms), held_up_ms):
            return
    raise AssertionError((measured_ms, mean(expected_ms), held_up_ms))


@pytest.mark.parametrize("connections", [500, 5])
def test_a_stall_is_seen_in_p99_whether_or_not_connections_run_out(tmp_path: Path, connections: int) -> None:
    """At a constant rate over T seconds, a stall of s makes the slowest share 1 - q of requests wait s - (1 - q) T.

    A client that sends less while it waits would see only as many slow requests as it has connections. A machine
    that holds the worker up is asked again.
    """
    length_s, stall_s, per_s = 1.6, 0.6, 250
    plan = [chat(number, at_s=number / per_s, max_tokens=1) for number in range(round(length_s * per_s))]
    figures: tuple[float, ...] = ()
    for attempt in range(ATTEMPTS):
        (folder := tmp_path / str(attempt)).mkdir()
        with reference_server(folder / "log", ttft_ms=2, stall_at_s=0.5, stall_s=stall_s) as server:
            worker = StartedWorker(plan, server.port, folder, connections=connections)
            run = worker.end()
            pairs = truth_of(run, server)
        assert run.outcomes() == {"ok": len(plan)}
        measured_ms = [(record.first_token_us - record.scheduled_us) / 1e3 for record in run.records]
        for quantile, seen_ms in zip((0.5, 0.9, 0.99), percentiles(measured_ms), strict=True):
            assert seen_ms >= 0.98 * 1e3 * (stall_s - (1 - quantile) * length_s)
        truth_ms = [
            (logged.sent_ns[0] - worker.start_ns) / 1e6 - record.scheduled_us / 1e3 for record, logged in pairs
        ]
        longest_ms = max(record.lateness_us for record in run.records) / 1e3
        figures = (percentiles(measured_ms)[2], percentiles(truth_ms)[2], longest_ms)
        busy_machine_ms = 0.1 * stall_s * 1e3
        of_tool = longest_ms > 0.5 * stall_s * 1e3
        if close(*figures[:2], busy_machine_ms) and of_tool == (connections == 5):
            return
    raise AssertionError((figures, "a lack of connections is the tool's own"))


# Plans are followed


def test_cancelling_hangs_up_after_so_many_tokens(server: ReferenceServer, tmp_path: Path) -> None:
    run = run_worker(
        [chat(number, max_tokens=200, cancel_after_tokens=4) for number in range(5)], server.port, tmp_path
    )
    assert run.outcomes() == {"cancelled": 5}
    assert {record.events for record in run.records} == {4}


def test_a_conversation_goes_on_after_thinking_and_even_after_an_error(tmp_path: Path) -> None:
    plan = [chat(0), chat(1, at_s=None, after=0, think_s=0.05), chat(2, at_s=None, after=1), chat(3, at_s=0.01)]
    with reference_server(faults=((3, "503"),)) as server:
        run = run_worker(plan, server.port, tmp_path)
    first, second, third, _ = run.records
    assert second.scheduled_us - first.end_us == pytest.approx(50_000, abs=1)
    assert third.scheduled_us - second.end_us == pytest.approx(0, abs=1)
    assert run.outcomes() == {"ok": 3, "overloaded": 1}


def test_turns_that_would_come_after_the_end_are_not_sent(server: ReferenceServer, tmp_path: Path) -> None:
    plan = [chat(0), chat(1, at_s=None, after=0, think_s=5.0)]
    run = run_worker(plan, server.port, tmp_path, duration_s=0.5)
    assert [record.id for record in run.records] == [0]


def test_connections_are_kept_and_never_more_than_agreed(server: ReferenceServer, tmp_path: Path) -> None:
    run = run_worker([chat(number) for number in range(6)], server.port, tmp_path, connections=2)
    assert run.outcomes() == {"ok": 6}
    assert sum(record.connect_us > 0 for record in run.records) == 2
    late = sorted(record.lateness_us for record in run.records)
    assert late[2] >= 15_000, "who waits for a connection is late"
    assert late[4] >= 30_000


def test_ids_of_a_share_are_those_of_the_whole_plan(server: ReferenceServer, tmp_path: Path) -> None:
    run = run_worker([chat(41, at_s=0.02), chat(7, at_s=0.01)], server.port, tmp_path)
    assert [record.id for record in run.records] == [7, 41]


# It tells


def test_ticks_add_up_to_the_records(server: ReferenceServer, tmp_path: Path) -> None:
    plan: list[Planned] = [
        chat(number, at_s=0.05 * number, tenant="search" if number % 3 else "ads", max_tokens=30)
        for number in range(40)
    ]
    run = run_worker(plan, server.port, tmp_path, keys={"search": KEY, "ads": "sk-other"})
    last = run.ticks[-1]
    assert {name: tick.succeeded for name, tick in last.tenants.items()} == {"search": 26, "ads": 14}
    assert {name: tick.tokens for name, tick in last.tenants.items()} == {"search": 780, "ads": 420}
    assert {tick.in_flight for tick in last.tenants.values()} == {0}
    late = [late_us for tick in run.ticks for late_us in tick.lateness_us]
    assert sorted(late) == pytest.approx(sorted(record.lateness_us for record in run.records), abs=2)
    ttft = [ttft_us for tick in run.ticks for ttft_us in tick.tenants["ads"].ttft_us]
    expected = [record.first_token_us - record.scheduled_us for record in run.records if record.id % 3 == 0]
    assert sorted(ttft) == pytest.approx(sorted(expected), abs=1)
    assert run.done.records == 40
    assert run.done.cpu_s >= last.cpu_s > 0
    assert [tick.at_s for tick in run.ticks] == sorted(tick.at_s for tick in run.ticks)
