"""A worker that sends nothing: it tells and records what its one argument says, in no time.

python fake_worker.py good|fails|dies|hangs|never-ready|nonsense|deaf|endless|drains|full|heavy
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from cotenant_loadtests.lifeline import end_with_parent
from cotenant_loadtests.orders import (
    Done,
    Failed,
    FromWorker,
    Orders,
    Ready,
    Start,
    Stop,
    TenantTick,
    Tick,
    decode_orders,
    decode_to_worker,
    encode_line,
)
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import Record
from cotenant_loadtests.records_file import RecordsWriter

CPU_PER_S = 0.25
RSS_BYTES = 50_000_000
HEAVY = 0.18
"""Of the bound of bytes that it was told, each second, of `heavy`; two reach it together."""
LONG_S = 1.5
"""What is in flight takes, of `drains`: longer than a stop without patience waits."""


def tell(message: FromWorker) -> None:
    sys.stdout.buffer.write(encode_line(message))
    sys.stdout.buffer.flush()


def tick(orders: Orders, plan: list[Planned], at_s: float, bytes_in: int) -> Tick:
    due = [one for one in plan if one.at_s is None or one.at_s < at_s]
    tenants = {
        name: TenantTick(
            sent=sum(one.tenant == name for one in due),
            succeeded=sum(one.tenant == name for one in due),
            tokens=10 * sum(one.tenant == name for one in due),
            ttft_us=(1000 * (orders.process + 1),),
        )
        for name in {one.tenant for one in due}
    }
    return Tick(
        at_s=at_s,
        tenants=tenants,
        lateness_us=(100, 200 + orders.process),
        cpu_s=CPU_PER_S * at_s,
        rss_bytes=RSS_BYTES,
        bytes_in=bytes_in,
        bytes_out=0,
    )


def record(orders: Orders, one: Planned) -> Record:
    at_us = round((one.at_s or 0.0) * 1e6)
    detail = json.dumps(sorted(orders.keys.items()))
    return Record(
        id=one.id,
        process=orders.process,
        outcome="ok",
        status=200,
        scheduled_us=at_us,
        sent_us=at_us + 100,
        first_byte_us=at_us + 900,
        first_token_us=at_us + 1000,
        end_us=at_us + 2000,
        detail=detail,
    )


def main(kind: str) -> None:
    end_with_parent()
    orders = decode_orders(sys.stdin.buffer.readline())
    plan = [msgspec.json.decode(line, type=Planned) for line in Path(orders.plan_file).read_bytes().splitlines()[1:]]
    if kind == "fails":
        tell(Failed("the certificate is in no file"))
        return
    if kind == "never-ready":
        threading.Event().wait()
    tell(Ready(len(plan)))
    message = decode_to_worker(sys.stdin.buffer.readline())
    assert isinstance(message, Start), message
    writer = RecordsWriter(Path(orders.records_file))
    late = [record(orders, one) for one in plan[-1:] if kind == "drains"]
    for one in plan[: len(plan) - len(late)]:
        writer.write(record(orders, one))
    writer.flush()
    for second in range(1, 4):
        tell(tick(orders, plan, float(second), round(HEAVY * second * orders.bytes) if kind == "heavy" else 0))
    end(kind, orders, writer, late)


def end(kind: str, orders: Orders, writer: RecordsWriter, late: list[Record]) -> None:
    if kind == "dies" and orders.process == 0:
        print("Traceback: the disk is full", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hangs":
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "nonsense":
        sys.stdout.write("hello\n")
        sys.stdout.flush()
    if kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Event().wait()
    line = sys.stdin.buffer.readline() if kind in ("endless", "drains", "dies", "nonsense", "heavy") else b""
    if kind == "drains" and (message := decode_to_worker(line)):
        assert isinstance(message, Stop)
        if message.drain_s > LONG_S:
            threading.Event().wait(LONG_S)
            writer.write(late[0])
    stopped = bool(line) and isinstance(decode_to_worker(line), Stop)
    writer.close()
    tell(
        Done(
            ended="stopped" if stopped else "bytes" if kind == "full" else "finished",
            at_s=3.0,
            records=writer.count,
            cpu_s=3 * CPU_PER_S,
            max_rss_bytes=RSS_BYTES,
            bytes_in=0,
            bytes_out=0,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
