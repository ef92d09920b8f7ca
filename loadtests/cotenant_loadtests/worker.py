"""One worker process: `python -m cotenant_loadtests.worker`, told everything on stdin (orders.py).

One event loop on one core does all. The garbage collector is off while it sends: nothing here makes cycles, and a
full collection over thousands of requests under way would stop everything for tens of milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from pathlib import Path
from time import monotonic_ns
from typing import Any

import uvloop

from cotenant_loadtests import open_files
from cotenant_loadtests.lifeline import end_with_parent
from cotenant_loadtests.orders import (
    Failed,
    FromWorker,
    Orders,
    Ready,
    Start,
    Stop,
    ToWorker,
    decode_orders,
    decode_to_worker,
    encode_line,
)
from cotenant_loadtests.plan_file import PlanError
from cotenant_loadtests.pool import EndpointError, make_endpoint
from cotenant_loadtests.records_file import RecordsWriter
from cotenant_loadtests.request_bytes import RequestWriter
from cotenant_loadtests.sending import Sender
from cotenant_loadtests.share_file import Share
from cotenant_loadtests.worker_ticks import Ticker

MAX_LINE_BYTES = 64 << 20
"""Orders have a key for each tenant."""
TICK_NS = 1_000_000_000


class Pipes:
    """stdin and stdout, neither of which may stop the loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader, self._writer = reader, writer

    async def orders(self) -> Orders:
        """Raises ValueError."""
        return decode_orders(await self._reader.readline())

    async def hear(self) -> ToWorker:
        """The end of stdin, and what is no message, is a Stop."""
        try:
            return decode_to_worker(await self._reader.readline())
        except ValueError:
            return Stop()

    def say(self, message: FromWorker) -> None:
        self._writer.write(encode_line(message))

    async def flush(self) -> None:
        """What was said is in the pipe; waits only for a reader that is there."""
        while self._writer.get_write_buffer_size() and not self._writer.is_closing():
            await asyncio.sleep(0.005)


async def open_pipes() -> Pipes:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(MAX_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    writer, _ = await loop.connect_write_pipe(asyncio.Protocol, sys.stdout)
    return Pipes(reader, writer)


class Worker:
    """Raises PlanError, EndpointError, ValueError, OSError when it cannot be made."""

    def __init__(self, orders: Orders, pipes: Pipes) -> None:
        self._pipes = pipes
        open_files.allow(orders.connections)
        self._share = Share(Path(orders.plan_file))
        endpoint = make_endpoint(orders.url, orders.addresses, ca_file=orders.ca_file, verify_tls=orders.verify_tls)
        writer = RequestWriter(endpoint.authority, endpoint.prefix, orders.keys)
        self._records = RecordsWriter(Path(orders.records_file))
        self._sender = Sender(orders, self._share, endpoint=endpoint, writer=writer, records=self._records)
        self._ticker: Ticker
        self._failed = False

    async def run(self) -> int:
        """The exit status."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._end_on_mistakes)
        gc.collect()
        gc.freeze()
        gc.disable()
        self._pipes.say(Ready(self._share.requests))
        message = await self._pipes.hear()
        if isinstance(message, Start):
            await self._send(message.start_ns)
        self._records.close()
        await self._pipes.flush()
        return 1 if self._failed else 0

    async def _send(self, start_ns: int) -> None:
        loop = asyncio.get_running_loop()
        self._ticker = Ticker(self._sender, start_ns)
        self._sender.start(start_ns)
        loop.add_signal_handler(signal.SIGTERM, self._sender.stop, "interrupted", "stopped")
        listening = loop.create_task(self._listen())
        ticking = loop.create_task(self._tick_each_second(start_ns))
        ending = await self._sender.end
        listening.cancel()
        ticking.cancel()
        self._tell()
        self._pipes.say(self._ticker.done(ending, self._records.count, monotonic_ns()))

    async def _listen(self) -> None:
        """Whoever is to end with patience ends at once when told again, or when stdin ends."""
        message = await self._pipes.hear()
        if isinstance(message, Stop) and message.drain_s:
            self._sender.drain(message.outcome, message.drain_s)
            message = await self._pipes.hear()
        self._sender.stop(message.outcome if isinstance(message, Stop) else "interrupted", "stopped")

    async def _tick_each_second(self, start_ns: int) -> None:
        due_ns = start_ns
        while True:
            due_ns += TICK_NS
            await asyncio.sleep((due_ns - monotonic_ns()) / 1e9)
            self._tell()

    def _tell(self) -> None:
        """Records first: who hears of a second may read it."""
        self._records.flush()
        self._pipes.say(self._ticker.tick(monotonic_ns()))

    def _end_on_mistakes(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What nobody caught is a mistake of this program: numbers measured after it could not be believed."""
        loop.default_exception_handler(context)
        if not isinstance(context.get("exception"), OSError):
            self._failed = True
            self._sender.stop("unfinished", "stopped", "tool")


async def _main() -> int:
    pipes = await open_pipes()
    try:
        worker = Worker(await pipes.orders(), pipes)
    except (PlanError, EndpointError, ValueError, OSError) as problem:
        pipes.say(Failed(f"A worker cannot begin: {problem}"))
        await pipes.flush()
        return 1
    return await worker.run()


def main() -> None:
    end_with_parent()
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(uvloop.run(_main()))


if __name__ == "__main__":
    main()
