"""How a worker and its requests end: stopped, too late, without a connection. Nothing is left behind."""

import asyncio
import gc
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns

import pytest
import uvloop
from tests.builders.loadtest_worker import StartedWorker, chat, run_worker, write_share
from tests.builders.reference_answers import FAULTS
from tests.builders.reference_process import ReferenceServer, reference_server

from cotenant_loadtests.orders import Failed, Orders, Stop
from cotenant_loadtests.pool import make_endpoint
from cotenant_loadtests.records_file import RecordsWriter
from cotenant_loadtests.request_bytes import RequestWriter
from cotenant_loadtests.sending import Sender
from cotenant_loadtests.share_file import Share

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[ReferenceServer]:
    with reference_server(ttft_ms=10, itl_ms=1) as started:
        yield started


@pytest.fixture(scope="module")
def slow() -> Iterator[ReferenceServer]:
    with reference_server(ttft_ms=60_000) as started:
        yield started


def started_slow(slow: ReferenceServer, folder: Path) -> StartedWorker:
    """Three requests wait for ever, one is due in an hour."""
    plan = [*(chat(number, deadline_s=3600) for number in range(3)), chat(3, at_s=3600.0)]
    worker = StartedWorker(plan, slow.port, folder, duration_s=4000)
    worker.hear()  # the first second has passed
    return worker


def test_stop_ends_what_is_under_way_as_interrupted(slow: ReferenceServer, tmp_path: Path) -> None:
    worker = started_slow(slow, tmp_path)
    worker.tell(Stop())
    run = worker.end()
    assert (run.outcomes(), run.done.ended) == ({"interrupted": 3}, "stopped")


def test_a_run_that_goes_away_takes_its_workers_along(slow: ReferenceServer, tmp_path: Path) -> None:
    worker = started_slow(slow, tmp_path)
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    worker.process.stdin = None
    assert worker.end().outcomes() == {"interrupted": 3}


def test_a_terminated_worker_keeps_its_records(slow: ReferenceServer, tmp_path: Path) -> None:
    worker = started_slow(slow, tmp_path)
    worker.process.terminate()
    assert worker.end().outcomes() == {"interrupted": 3}


def test_what_has_not_ended_when_draining_is_over_is_unfinished(slow: ReferenceServer, tmp_path: Path) -> None:
    run = run_worker([chat(0)], slow.port, tmp_path, duration_s=0.1, drain_s=0.1)
    assert (run.outcomes(), run.done.ended) == ({"unfinished": 1}, "finished")


def test_the_bound_of_bytes_ends_a_run(server: ReferenceServer, tmp_path: Path) -> None:
    plan = [chat(number, at_s=0.001 * number, max_tokens=2000) for number in range(200)]
    run = run_worker(plan, server.port, tmp_path, bytes=300_000)
    assert run.done.ended == "bytes"
    assert run.outcomes()["unfinished"] > 0


def test_a_deadline_counts_from_the_schedule(slow: ReferenceServer, tmp_path: Path) -> None:
    run = run_worker([chat(0, deadline_s=2), chat(1, deadline_s=2)], slow.port, tmp_path, connections=1)
    assert [(record.outcome, record.detail) for record in run.records] == [
        ("timeout", "no_answer"),
        ("timeout", "not_sent"),
    ]
    assert all(record.end_us >= 2_000_000 for record in run.records)
    assert run.records[1].sent_us == -1


def test_no_answer_after_its_deadline_is_a_success(server: ReferenceServer, tmp_path: Path) -> None:
    """The first token comes after 10 ms, the last 9 ms later."""
    late = [chat(number, at_s=0.007 * number, deadline_s=0.015) for number in range(20)]
    cut = [chat(20 + number, at_s=0.007 * number, deadline_s=0.005, cancel_after_tokens=1) for number in range(20)]
    outcomes = run_worker([*late, *cut], server.port, tmp_path).outcomes()
    assert outcomes["ok"] + outcomes["cancelled"] == 0
    assert (outcomes.total(), outcomes["timeout"] >= 10) == (40, True), outcomes  # a busy machine may not connect


# No connection


def test_a_port_where_nobody_listens_refuses(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        run = run_worker([chat(0), chat(1)], unused.getsockname()[1], tmp_path)
    assert [(record.outcome, record.detail) for record in run.records] == [("connect", "ECONNREFUSED")] * 2


def test_an_unknown_host_is_no_connection(tmp_path: Path) -> None:
    run = run_worker([chat(0)], 1, tmp_path, url="http://no-such-host.invalid:80", addresses=())
    assert [(record.outcome, record.detail) for record in run.records] == [("connect", "unknown_host")]


def test_a_name_is_not_looked_up_again(server: ReferenceServer, tmp_path: Path) -> None:
    """It might say another address by now, which nobody has checked."""
    run = run_worker([chat(0)], 1, tmp_path, url=f"http://no-such-host.invalid:{server.port}")
    assert run.outcomes() == {"ok": 1}


def test_a_host_that_does_not_answer_in_time_is_no_connection(tmp_path: Path) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):  # the only one that may wait
            run = run_worker([chat(0, deadline_s=2)], full.getsockname()[1], tmp_path)
    assert [(record.outcome, record.detail) for record in run.records] == [("connect", "no_answer")]


def test_an_address_that_does_not_answer_is_left_for_the_next(server: ReferenceServer, tmp_path: Path) -> None:
    """Once, and not again by the requests after."""
    plan = [chat(0), chat(1, at_s=4.0), chat(2, at_s=4.0)]
    with unanswering(server.port) as address:
        run = run_worker(plan, server.port, tmp_path, addresses=(address, "127.0.0.1"))
    assert run.outcomes() == {"ok": 3}
    first, *later = sorted(record.connect_us for record in run.records)[::-1]
    assert first >= 2_900_000
    assert 0 < max(later) < 2_000_000  # one of the two took the connection that was open


@contextmanager
def unanswering(port: int) -> Iterator[str]:
    """An address where a connection to that port is neither taken nor refused."""
    with socket.socket() as full:
        full.bind(("127.0.0.2", port))
        full.listen(0)
        with socket.create_connection(full.getsockname()):  # the only one that may wait
            yield "127.0.0.2"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path) + ".crt"]
    subprocess.run(["openssl", *request.split(), *names], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(str(path) + ".crt").read_bytes())
    return path


def test_tls_is_spoken_and_certificates_are_judged(certificate: Path, tmp_path: Path) -> None:
    with reference_server(certificate=certificate, itl_ms=1) as server:
        url = f"https://127.0.0.1:{server.port}"
        trusted = run_worker(
            [chat(0), chat(1, at_s=None, after=0)], 1, tmp_path / "a", url=url, ca_file=str(certificate)
        )
        unverified = run_worker([chat(0)], 1, tmp_path / "b", url=url, verify_tls=False)
        unknown = run_worker([chat(0)], 1, tmp_path / "c", url=url)
    assert (trusted.outcomes(), unverified.outcomes()) == ({"ok": 2}, {"ok": 1})
    assert [record.connect_us > 0 for record in trusted.records] == [True, False]
    assert [(record.outcome, record.detail) for record in unknown.records] == [("tls", "certificate")]


def test_a_server_without_tls_is_a_tls_error(server: ReferenceServer, tmp_path: Path) -> None:
    run = run_worker([chat(0)], 1, tmp_path, url=f"https://127.0.0.1:{server.port}")
    assert run.outcomes() == {"tls": 1}


# Before it begins


@pytest.mark.parametrize(
    ("orders", "names"),
    [
        ({"url": "http://nowhere:port"}, "target.url"),
        ({"url": "ftp://127.0.0.1"}, "target.url"),
        ({"url": "https://127.0.0.1:1", "ca_file": "/no/such/file.pem"}, "target.ca_file"),
        ({"keys": {"search": "with\r\nline"}}, "key of tenant 'search'"),
        ({"records_file": "/no/such/folder/records"}, "/no/such/folder"),
    ],
)
def test_orders_that_cannot_be_followed_are_refused_in_words(
    tmp_path: Path, orders: dict[str, object], names: str
) -> None:
    worker = StartedWorker([chat(0)], 1, tmp_path, **orders)
    _, stderr = worker.process.communicate(timeout=30)
    assert isinstance(worker.first, Failed)
    assert names in worker.first.problem
    assert "line" not in worker.first.problem or "key" not in names
    assert (worker.process.returncode, stderr) == (1, b"")


# Memory


def test_no_request_leaves_a_cycle_for_the_garbage_collector(certificate: Path, tmp_path: Path) -> None:
    """A worker has turned it off: what only it could free would pile up for hours."""
    kinds = tuple((number + 2, kind) for number, kind in enumerate(FAULTS))
    plan = [chat(number, at_s=0.002 * number, deadline_s=1, streamed=number % 2 == 0) for number in range(200)]
    write_share(tmp_path / "plan", [*plan, chat(200, cancel_after_tokens=2, max_tokens=50)])
    # No handshake of TLS is given up: uvloop itself leaves a cycle of each, and a busy machine takes long for many.
    patient = [chat(number, at_s=0.02 * number, deadline_s=60, streamed=number % 2 == 0) for number in range(60)]
    write_share(tmp_path / "patient", [*patient, chat(60, cancel_after_tokens=2, max_tokens=50)])
    with reference_server(itl_ms=1, faults=kinds) as server:
        with unanswering(server.port) as address:
            left = uvloop.run(_left_after_sending(tmp_path / "plan", server.url, address=address))
        refused = uvloop.run(_left_after_sending(tmp_path / "plan", "http://127.0.0.1:1"))
    with reference_server(certificate=certificate, itl_ms=1, faults=kinds) as server:
        url = f"https://127.0.0.1:{server.port}"
        encrypted = uvloop.run(_left_after_sending(tmp_path / "patient", url, str(certificate)))
        untrusted = uvloop.run(_left_after_sending(tmp_path / "patient", url))
    assert (left, refused) == (Counter(), Counter())
    assert (encrypted, untrusted) == (Counter(), Counter())


async def _left_after_sending(
    plan: Path, url: str, ca_file: str | None = None, address: str = "127.0.0.1"
) -> Counter[str]:
    """Objects that only the garbage collector finds, by type."""
    orders = Orders(process=0, plan_file="", records_file="", url=url, addresses=(), duration_s=2, drain_s=60)
    endpoint = make_endpoint(url, (address, "127.0.0.1"), ca_file=ca_file, verify_tls=True)
    records, writer = RecordsWriter(plan.with_name("records")), RequestWriter("host", "", {})
    sender = Sender(orders, Share(plan), endpoint=endpoint, writer=writer, records=records)
    sender.pool.address_s = 0.05
    gc.collect()
    gc.disable()
    sender.start(monotonic_ns())
    await sender.end
    while sender.pool._open:  # for the loop to close what was dropped
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.05)
    sender.new.clear()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return Counter(type(found).__name__ for found in gc.garbage)
    finally:  # uvloop does not close while anything is open, where warnings are errors: it would show here
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        records.close()
