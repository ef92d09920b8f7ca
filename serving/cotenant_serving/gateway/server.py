"""The composition root of one worker: builds the parts, serves them, and ends them in order.

A gateway that is told to end is not ready any more, its answers say that their connections end, and all else goes on
for `pre_stop_s`; the supervisor takes that time. Then a worker gets SIGTERM: no new connections; what runs gets
`drain_timeout_s`; what then still runs ends with an error (in the stream, where one was begun); usage is written;
exit status 0.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn

from cotenant_serving.accepting import use_every_descriptor
from cotenant_serving.gateway import metrics
from cotenant_serving.gateway.board import LEAVING, SIGNS_OF_LIFE, USAGE_DROPPED, Board, Count, SharedBoard
from cotenant_serving.gateway.conductors import Conductors
from cotenant_serving.gateway.config import Directory
from cotenant_serving.gateway.config_source import FileSource, Followed, SharedSource
from cotenant_serving.gateway.connections import Connections
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.journal import Journal
from cotenant_serving.gateway.memory import resident_bytes
from cotenant_serving.gateway.metrics import Metrics
from cotenant_serving.gateway.options import JOURNALS, METRICS, USAGE_FILE, Options, Place
from cotenant_serving.gateway.serving_http import client_connections, client_server, serve_clients, serving_admin
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.upstream_lean import LeanUpstream
from cotenant_serving.gateway.usage import RETRY_S, WRITE_S, UsageLog
from cotenant_serving.gateway.usage_file import UsageFile
from cotenant_serving.tracing import tracer_from

log = logging.getLogger("cotenant.gateway")

COLLECT_AFTER = 10_000
"""Objects that were made and are still there, before the garbage collector looks at them; Python's default is 700."""
SPARE_CELLS = 256
"""Of a journal, beside one per connection: their room is for usage lines that a full disk keeps waiting."""


def run(options: Options, place: Place) -> int:
    """Serves until SIGTERM or SIGINT. Exit status 1 when it cannot start."""
    use_every_descriptor()
    board = SharedBoard(place.board, column=place.worker, columns=options.workers + 1)
    metrics.use_files(options.state / METRICS, place.worker)
    try:
        usage = open_usage(options, board, place.worker)
    except OSError as problem:
        sys.stderr.write(f"gateway cannot start, state {options.state}: {problem}\n")
        return 1
    _spare_the_collector()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(options, place, board, usage))
    return 0


def _spare_the_collector() -> None:
    """Requests leave no cycles, so it finds nothing; each look at those under way and at all modules costs time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 50, 50)


def open_usage(options: Options, board: Board, worker: int) -> UsageLog:
    """Raises OSError when the usage file cannot be opened."""
    file = UsageFile(options.state / USAGE_FILE, board.usage_open)
    try:
        journal = create_journal(options, worker)
    except OSError as problem:
        log.error("requests in flight are not recovered if this worker is killed: no journal: %s", problem)
        journal = Journal.in_memory(_cells(options))
    return UsageLog(
        file,
        journal,
        waiting=board.count("usage waiting"),
        dropped=board.count(USAGE_DROPPED),
        later=lambda work: asyncio.get_running_loop().call_later(WRITE_S, work),
    )


def create_journal(options: Options, worker: int) -> Journal:
    """Raises OSError, also when the disk has no room for it."""
    return Journal.create(options.state / JOURNALS, worker, _cells(options))


def _cells(options: Options) -> int:
    return options.settings.max_connections + SPARE_CELLS


async def serve(options: Options, place: Place, board: Board, usage: UsageLog) -> None:
    """Runs the worker until a signal ends it; then closes what it was given."""
    source = FileSource(options.config) if place.config < 0 else SharedSource(place.config)
    config = Followed(source, options.pool_token_file)
    upstream = LeanUpstream(lambda: config.pool_token)
    news = asyncio.Event()
    rng = random.Random()  # noqa: S311 spreads load and retries, guards nothing
    dispatcher = Dispatcher(
        clock=time.monotonic,
        rng=rng,
        on_demand=news.set,
        board=board,
        worker=place.worker,
        wake=lambda worker: os.eventfd_write(place.wakes[worker], 1),
    )
    conductors = Conductors(
        dispatcher,
        token=lambda: config.pool_token,
        name=f"{place.gateway}-{place.worker}",
        table_file=options.state / "table.json",
        rng=rng,
        news=news,
        left_s=options.settings.request_timeout_s,
    )
    gateway = Gateway(
        settings=options.settings,
        clock=time.monotonic,
        board=board,
        dispatcher=dispatcher,
        upstream=upstream,
        usage=usage,
        metrics=Metrics(options.state / METRICS, partial(resident_bytes, place.parent)),
        pool_known=conductors.informed,
        tracer=tracer_from(os.environ, "gateway"),
    )

    def use(directory: Directory) -> None:
        gateway.use(directory)
        conductors.follow(directory.config.conductors)

    if config.poll() and config.directory is not None:
        use(config.directory)
    journal = partial(create_journal, options, place.worker)
    tasks = [asyncio.create_task(work) for work in (config.watch(use), conductors.report_forever())]
    connections = client_connections(gateway)
    tasks.append(asyncio.create_task(_live(gateway, connections, board.count(SIGNS_OF_LIFE), journal)))
    try:
        with _woken(dispatcher, place.wakes[place.worker]):
            server = client_server(gateway, connections, metrics=place.admin < 0)
            async with serving_admin(gateway, place):
                with _signals(gateway, server, connections):
                    await serve_clients(server, gateway, place)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await conductors.close()
        await upstream.close()
        usage.close(time.time())
        await asyncio.to_thread(gateway.tracer.close)


async def _live(gateway: Gateway, connections: Connections, signs: Count, journal: Callable[[], Journal]) -> None:
    """What is due twice a second. It shows, too, that the event loop turns: in the journal for the next start, in
    `signs` for the supervisor.
    """
    leaving = gateway.board.count(LEAVING)
    while True:
        signs.add(1)
        try:
            if leaving.total():
                gateway.leaving = connections.leaving = True
            gateway.usage.retry(time.time())
            gateway.usage.renew(journal)
            gateway.end_overdue()
            gateway.leave_silent_engines()
        except Exception:  # a worker whose loop turns must not be killed as one that hangs
            log.exception("what a worker does twice a second has failed")
        await asyncio.sleep(RETRY_S)


@contextlib.contextmanager
def _woken(dispatcher: Dispatcher, events: int) -> Iterator[None]:
    """While other workers may wake the dispatcher."""
    loop = asyncio.get_running_loop()

    def woken() -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(events)
        dispatcher.woken()

    loop.add_reader(events, woken)
    try:
        yield
    finally:
        loop.remove_reader(events)


@contextlib.contextmanager
def _signals(gateway: Gateway, server: uvicorn.Server, connections: Connections) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def drain() -> None:
        if gateway.draining:
            return
        log.info("draining: up to %g s for requests that run", gateway.settings.drain_timeout_s)
        gateway.draining = connections.draining = True
        server.should_exit = True
        loop.call_later(gateway.settings.drain_timeout_s, gateway.cut)

    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, drain)
    try:
        yield
    finally:
        for signal_ in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signal_)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop  # type: ignore[no-any-return]
