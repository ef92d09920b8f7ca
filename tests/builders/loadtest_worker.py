"""A worker of a load test as its run sees it, and requests for it: `run_worker(plan, port)` → what came of them."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cotenant_loadtests.orders import Done, FromWorker, Orders, Ready, Start, Tick, decode_from_worker, encode_line
from cotenant_loadtests.planned import Message, PlanHeader, Planned, Segment
from cotenant_loadtests.record import Record
from cotenant_loadtests.records_file import iterate_records

START_IN_NS = 50_000_000
KEY = "sk-secret-of-search"


def chat(number: int, **fields: Any) -> Planned:
    """A streamed chat request of 20 words for 10 tokens, due at once, checked as an echo."""
    usual: dict[str, Any] = {
        "at_s": 0.0,
        "stream": "s",
        "tenant": "search",
        "model": "echo",
        "api": "chat",
        "messages": (Message(role="user", segments=(Segment(seed=number, tokens=20),)),),
        "max_tokens": 10,
        "streamed": True,
        "include_usage": True,
        "check": "echo",
    }
    return Planned(id=number, **{**usual, **fields})


@dataclass(frozen=True, slots=True)
class WorkerRun:
    records: list[Record]
    """By id."""
    ticks: list[Tick]
    done: Done
    stderr: str

    def outcomes(self) -> Counter[str]:
        return Counter(record.outcome for record in self.records)


class StartedWorker:
    """A worker that has been told to start."""

    def __init__(self, plan: Sequence[Planned], port: int, folder: Path, **orders: Any) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_share(folder / "plan", plan)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cotenant_loadtests.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        usual: dict[str, Any] = {
            "url": f"http://127.0.0.1:{port}",
            "addresses": ("127.0.0.1",),
            "keys": {"search": KEY},
            "duration_s": 5.0,
        }
        paths = {"plan_file": str(folder / "plan"), "records_file": str(folder / "records")}
        self.tell(Orders(process=3, **{**paths, **usual, "drain_s": 10.0, **orders}))
        self.first = self.hear()
        self.start_ns = time.monotonic_ns() + START_IN_NS
        if isinstance(self.first, Ready):
            self.tell(Start(self.start_ns))

    def tell(self, message: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(encode_line(message))
        self.process.stdin.flush()

    def hear(self) -> FromWorker:
        assert self.process.stdout is not None
        return decode_from_worker(self.process.stdout.readline())

    def end(self) -> WorkerRun:
        """What it says until it has ended by itself."""
        assert self.process.stdout is not None
        *ticks, done = [decode_from_worker(line) for line in self.process.stdout]
        _, stderr = self.process.communicate(timeout=30)
        assert isinstance(done, Done), (done, stderr)
        assert self.process.returncode == 0, stderr
        records = sorted(iterate_records(self._folder / "records"), key=lambda record: record.id)
        return WorkerRun(records, [tick for tick in ticks if isinstance(tick, Tick)], done, stderr.decode())


def run_worker(plan: Sequence[Planned], port: int, folder: Path, **orders: Any) -> WorkerRun:
    return StartedWorker(plan, port, folder, **orders).end()


def write_share(path: Path, plan: Sequence[Planned]) -> None:
    header = PlanHeader(scenario="test", seed=1, requests=len(plan), duration_s=1)
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in [header, *plan]))
