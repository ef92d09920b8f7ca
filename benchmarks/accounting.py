"""`make bench-accounting`: what the gateway does for one request beside moving its bytes, in CPU microseconds.

Each part is measured in turns `in process`, as for one gateway process without a journal, and `shared`, as the
workers of a gateway do it: limits and slots in shared memory with a lock, the request in a journal, its usage line in
a file, metrics in files. A request has a body of BODY_BYTES, its answer EVENTS events, its tenant all three limits.
What reads the request is the same on both sides.
"""

import argparse
import hashlib
import random
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.measuring import finish, machine, markdown, median
from cotenant_serving.contract_gateway import EngineRow, GatewayConfig, GatewayModel, GatewayTenant, Limits, Table
from cotenant_serving.gateway import catalog, routes
from cotenant_serving.gateway.admission import TenantLimits
from cotenant_serving.gateway.auth import Keyring, authenticate
from cotenant_serving.gateway.board import Board, LocalBoard, SharedBoard
from cotenant_serving.gateway.config import index
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.journal import Entry, Journal
from cotenant_serving.gateway.lane import Ticket
from cotenant_serving.gateway.metric_files import make_files
from cotenant_serving.gateway.metrics import Metrics, use_files
from cotenant_serving.gateway.request_ids import RequestIds
from cotenant_serving.gateway.routes import Incoming
from cotenant_serving.gateway.table import combine, merge
from cotenant_serving.gateway.usage import UsageLog, UsageRecord
from cotenant_serving.gateway.usage_file import UsageFile

EVENTS = 64
BODY_BYTES = 1000
WORKERS = 4
BATCH = 20
"""Usage lines written together: 1,000 requests a second."""
TENANT, MODEL = "search", "search/chat"
LIMITS = Limits(requests_per_minute=10**12, tokens_per_minute=10**12, concurrent_requests=10**6)
ROW = EngineRow(instance="i1", model=MODEL, revision="0badcafe", host="127.0.0.1", port=8800, slots=8)

Work = Callable[[], object]


@dataclass(frozen=True)
class Part:
    name: str
    in_process: Work
    shared: Work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--requests", type=int, default=2000, help="per round and side")
    given = parser.parse_args()
    print(f"{machine()}\n\n{given.rounds} rounds of {given.requests} requests on each side, in turns; medians.\n")
    with tempfile.TemporaryDirectory() as folder, parts(Path(folder)) as measured:
        took = {part.name: compare(part, given.rounds, given.requests) for part in measured}
    took["all"] = [sum(of_part[side] for of_part in took.values()) for side in range(2)]
    rows = [(name, *(f"{one:.1f}" for one in of_part)) for name, of_part in took.items()]
    print(markdown(("Part", "in process, µs", "shared, µs"), rows) + "\n")
    in_process, shared = took["all"]
    finish({"shared_vs_in_process": shared / in_process, "shared_us": shared, "in_process_us": in_process})


def compare(part: Part, rounds: int, requests: int) -> list[float]:
    """CPU microseconds per request, in process and shared."""
    sides: list[tuple[Work, list[float]]] = [(part.in_process, []), (part.shared, [])]
    for turn in range(rounds):
        for work, took in sides if turn % 2 else reversed(sides):
            took.append(cpu_us(work, requests))
    return [median(took) for _, took in sides]


def cpu_us(work: Work, requests: int) -> float:
    began = time.process_time_ns()
    for _ in range(requests):
        work()
    return (time.process_time_ns() - began) / requests / 1000


@contextmanager
def parts(folder: Path) -> Iterator[list[Part]]:
    local, shared = LocalBoard(), SharedBoard.create(column=0, columns=WORKERS + 1)
    kept = Journal.create(folder, 0, 64)
    buffered: list[bytes] = []
    log = UsageLogged(folder, kept, shared)
    with metrics(folder / "metrics") as (alone, together):
        yield [
            Part("identity", identity(), identity()),
            Part("parse", parse(), parse()),
            Part("limits", limits(local), limits(shared)),
            Part("slot of an engine", slot(local), slot(shared)),
            Part("journal", lambda: None, lambda: journal(kept)),
            Part(f"{EVENTS} events in the journal", lambda: None, events(kept)),
            Part("usage line", lambda: buffer(buffered), log.add),
            Part("metrics", lambda: count(alone), lambda: count(together)),
        ]
    log.close()
    shared.close()


def identity() -> Work:
    """Key → tenant, and the request's own id."""
    key = secrets.token_hex(32)
    keyring = Keyring([(hashlib.sha256(key.encode()).hexdigest(), TENANT)])
    headers = [
        (b"host", b"gateway:8080"),
        (b"user-agent", b"OpenAI/Python 2.9.0"),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json"),
        (b"authorization", b"Bearer " + key.encode()),
        (b"content-length", b"%d" % BODY_BYTES),
    ]
    ids = RequestIds()

    def work() -> None:
        authenticate(headers, keyring)
        ids.new()

    return work


def parse() -> Work:
    """Body → what is routed on and charged for, and the model as the tenant sees it."""
    said = {"role": "user", "content": "word " * (BODY_BYTES // 10 - 15)}
    body = orjson.dumps({"model": MODEL, "messages": [said, said], "max_tokens": EVENTS, "stream": True})
    model = GatewayModel(name=MODEL, task="generate")
    tenant = GatewayTenant(name=TENANT, models=(MODEL,))
    view = index(GatewayConfig(generation=1, tenants=(tenant,), models=(model,))).tenants[TENANT]
    headers: list[tuple[bytes, bytes]] = []

    def work() -> None:
        found = routes.find("/v1/chat/completions")
        assert found is not None
        wanted = found[0].read(Incoming(headers, body, found[1]))
        routes.check_task(found[0], catalog.resolve(view, wanted.model))

    return work


def limits(board: Board) -> Work:
    tenant = TenantLimits(TENANT, LIMITS, board.account(TENANT), time.monotonic())

    def work() -> None:
        tenant.admit(300, time.monotonic())
        tenant.fields(time.monotonic())
        tenant.settle(300, 80, time.monotonic())

    return work


def slot(board: Board) -> Work:
    """`acquire` and `release` without waiting; driven by hand, so that the event loop's own cost is left out."""
    dispatcher = Dispatcher(clock=time.monotonic, rng=random.Random(1), board=board)
    dispatcher.set_reachable(True)
    dispatcher.set_view(combine([merge(None, Table(epoch="e", sequence=1, engines=(ROW,)))]))

    def work() -> None:
        now = time.monotonic()
        try:
            dispatcher.acquire(Ticket(MODEL, TENANT, 300, entered=now, deadline=now + 60)).send(None)
        except StopIteration as ended:
            dispatcher.release(ended.value)

    return work


def journal(kept: Journal) -> None:
    entry = kept.begin("req-0123456789abcdef01234567", TENANT, MODEL, prompt_tokens=300, now=time.time())
    entry.sent(True)
    entry.first_byte(0.1)
    entry.end()


def events(kept: Journal) -> Work:
    entry = kept.begin("req-0123456789abcdef01234567", TENANT, MODEL, prompt_tokens=300, now=time.time())

    def work() -> None:
        for event in range(EVENTS):
            entry.forwarded(event)

    return work


class UsageLogged:
    """The usage log of a worker that ends BATCH requests within the time that lines wait."""

    def __init__(self, folder: Path, kept: Journal, board: SharedBoard) -> None:
        self._due: list[Work] = []
        file = UsageFile(folder / "usage.jsonl", board.usage_open)
        counts = {"waiting": board.count("waiting"), "dropped": board.count("dropped")}
        self._log = UsageLog(file, kept, **counts, later=self._due.append)
        self._nobodys = Entry(kept, kept.nobodys)
        self._added = 0

    def add(self) -> None:
        self._log.add(record(), self._nobodys)
        self._added += 1
        if self._added % BATCH == 0:
            self._due.pop()()

    def close(self) -> None:
        self._log.close(time.time())


def record() -> UsageRecord:
    return UsageRecord(
        time=time.time(),
        tenant=TENANT,
        model=MODEL,
        request_id="req-0123456789abcdef01234567",
        prompt_tokens=20,
        completion_tokens=EVENTS,
        estimated=False,
        outcome="ok",
        status=200,
        duration_s=1.234567,
        time_to_first_byte_s=0.123456,
    )


def buffer(lines: list[bytes]) -> None:
    """As it was: lines are collected, and written together from time to time."""
    lines.append(record().line())
    if len(lines) >= 1000:
        lines.clear()


def count(counted: Metrics) -> None:
    counted.first_byte(MODEL, 0.1)
    counted.ended(TENANT, MODEL, "ok", 200, duration_s=1.2, prompt=20, completion=EVENTS)


@contextmanager
def metrics(folder: Path) -> Iterator[tuple[Metrics, Metrics]]:
    """In process, and in files. The library's choice is made when a metric is first counted."""
    alone = Metrics()
    alone.allow([TENANT], [MODEL])
    count(alone)
    make_files(folder, 1)
    use_files(folder, 0)
    together = Metrics(folder)
    together.allow([TENANT], [MODEL])
    count(together)
    yield alone, together


if __name__ == "__main__":
    main()
