"""One engine put together: HTTP, heartbeats, guard and model, without Ray.

Order of a start: HTTP answers, heartbeats run, the model's files are fetched and checked; then the engine waits for
the start lease of its device and loads.
"""

import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from cotenant_serving.contract import ENGINE_PORTS, EchoOptions, EngineArgs, Reason
from cotenant_serving.engine.base import LoadError, StreamingEngine, UnaryEngine
from cotenant_serving.engine.device import Device, open_device
from cotenant_serving.engine.guard import Guard
from cotenant_serving.engine.heartbeat import (
    ConductorClient,
    ConductorUnreachableError,
    HeartbeatThread,
    post_reliably,
)
from cotenant_serving.engine.load_errors import explain
from cotenant_serving.engine.own_log import log_to_file, write_cause
from cotenant_serving.engine.server import EngineServer
from cotenant_serving.engine.status import EngineStatus
from cotenant_serving.tokens import TokenFile
from cotenant_serving.tracing import tracer_from

FAILED_POST_S = 5.0
KILLED_POST_S = 1.0
DRAIN_STEP_S = 0.05
KEEP_ALIVE_S = 75
CACHE_SOCKET = "COTENANT_CACHE_SOCKET"
"""In the environment of worker pods: where the weight cache beside this process listens."""

log = logging.getLogger("cotenant.engine")


def make_engine(args: EngineArgs) -> StreamingEngine | UnaryEngine:
    """The engine for the task. Imports no torch: that happens when it loads."""
    task = args.spec.task
    if task == "echo":
        from cotenant_serving.engine.echo import EchoEngine

        return EchoEngine(args.spec.echo or EchoOptions(), args.spec.context_tokens)
    if task == "embed":
        from cotenant_serving.engine.embed import EmbedEngine

        return EmbedEngine(args)
    if task in ("rerank", "classify"):
        from cotenant_serving.engine.classify import ClassifyEngine, RerankEngine

        return RerankEngine(args) if task == "rerank" else ClassifyEngine(args)
    if task == "tensor":
        from cotenant_serving.engine.tensor import TensorEngine

        return TensorEngine(args)
    from cotenant_serving.engine.generate import GenerateEngine

    return GenerateEngine(args)


def with_cache(args: EngineArgs, environment: Mapping[str, str]) -> EngineArgs:
    """The arguments, with the socket of the weight cache beside this process where they name none."""
    return msgspec.structs.replace(args, cache_socket=args.cache_socket or environment.get(CACHE_SOCKET, ""))


def bind_free_port(host: str, ports: Iterable[int] = ENGINE_PORTS) -> socket.socket:
    """A listening socket on a free port, tried in random order. Raises OSError when all are taken."""
    shuffled = list(ports)
    random.shuffle(shuffled)
    for port in shuffled:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1024)  # at once: before it, two processes may both hold a port with SO_REUSEADDR
        except OSError:
            listener.close()
            continue
        return listener
    raise OSError(f"all ports {min(shuffled)}-{max(shuffled)} of {host} are taken; stop an engine on this node")


class EngineProcess:
    """Everything of one engine in this process.

    It listens on `args.host`, else on `host`, and tells gateways to use that address.
    """

    def __init__(self, args: EngineArgs, host: str = "127.0.0.1") -> None:
        host = args.host or host
        self._args = args = with_cache(args, os.environ)
        token = TokenFile(Path(args.pool_token_file))
        self._conductor = ConductorClient(args.conductor_url, token)
        self._listener = bind_free_port(host)
        self.port: int = self._listener.getsockname()[1]
        self.status = EngineStatus(
            args,
            instance=secrets.token_hex(8),
            host=host,
            port=self.port,
            node=os.environ.get("NODE_NAME", ""),
            pod=os.environ.get("POD_NAME", ""),
        )
        self._engine = make_engine(args)
        self._tracer = tracer_from(os.environ, "engine")
        self._server = EngineServer(self._engine, self.status, token, tracer=self._tracer)
        self._heartbeats: HeartbeatThread | None = None
        self._guard: Guard | None = None
        self._uvicorn: asyncio.Task[None] | None = None
        self._log_file = log_to_file(args)
        log.info(
            "starting %s: process %d, instance %s, port %d, %s, share %d MiB",
            args.app,
            os.getpid(),
            self.status.snapshot().instance,
            self.port,
            args.device_id,
            args.share_bytes >> 20,
        )

    async def start(self) -> None:
        """Returns when the model is loaded. Raises LoadError, after the conductor has been told."""
        loop = asyncio.get_running_loop()
        lease = asyncio.Event()
        await self._serve()

        def granted() -> None:
            loop.call_soon_threadsafe(lease.set)

        self._heartbeats = HeartbeatThread(self.status, self._conductor.post, granted)
        self._heartbeats.start()
        try:
            device = open_device(self._args, os.environ)
            self._start_guard(device)
            await run_in_daemon(partial(self._engine.fetch, self.status.progress), name="fetch")
            self.status.waiting()
            await lease.wait()
            self.status.loading()
            await run_in_daemon(partial(self._engine.load, self.status.progress), name="load")
            with contextlib.suppress(Exception):  # a sample that fails is for the guard to judge
                self.status.used(device.used_bytes())
        except Exception as error:
            await self._give_up(error)
        self.status.ready()

    async def end(self, drain_s: float) -> None:
        """Drains for `drain_s` seconds at most and stops. A load that still runs is left behind, not waited for."""
        if self.status.state == "ready":
            await self.drain(drain_s)
        await self.stop()

    async def drain(self, timeout_s: float) -> None:
        """Takes no more requests, waits for those that run, cancels what is left after `timeout_s`."""
        self.status.draining()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._server.running:
                    await asyncio.sleep(DRAIN_STEP_S)
        self._server.cancel_all()

    async def stop(self) -> None:
        """Ends server, threads and model. May be called twice."""
        if self._uvicorn is not None:
            self._web.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await self._uvicorn
            self._uvicorn = None
        for thread in (self._guard, self._heartbeats):
            if thread is not None:
                await asyncio.to_thread(thread.stop)
        self._engine.close()
        await asyncio.to_thread(self._tracer.close)
        self._listener.close()
        if self._log_file is not None:
            log.info("stopped")
            log.removeHandler(self._log_file)
            self._log_file.close()
            self._log_file = None

    def check_health(self) -> None:
        """Raises RuntimeError when only a new process can help."""
        if self._uvicorn is None or self._uvicorn.done():
            raise RuntimeError(f"the HTTP server of {self._args.app} on port {self.port} has ended")
        if not self._engine.healthy():
            raise RuntimeError(f"the model of {self._args.app} cannot generate any more; see the engine's log")

    async def _serve(self) -> None:
        import uvicorn

        from cotenant_serving.accepting import PatientServer
        from cotenant_serving.engine.protocol import EngineProtocol

        # log_config=None: uvicorn's default closes the log handlers of Ray Serve, which then loses its replicas.
        config = uvicorn.Config(
            self._server,
            interface="asgi3",
            loop="none",
            http=EngineProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=2,
        )
        self._web = PatientServer(config)
        self._uvicorn = asyncio.create_task(self._web.serve(sockets=[self._listener]))
        while not self._web.started and not self._uvicorn.done():
            await asyncio.sleep(0.005)

    def _start_guard(self, device: Device) -> None:
        self._guard = Guard(device.used_bytes, self._args.share_bytes, self.status.used, self._end_myself)
        self._guard.start()

    async def _give_up(self, error: Exception) -> None:
        """Reports the cause wherever it can be read, ends everything, and raises it as LoadError."""
        cause = error if isinstance(error, LoadError) else explain(error, self._args)
        log.error("cannot load %s: %s", self._args.spec.model, cause, exc_info=error)
        if self._heartbeats is not None:
            await asyncio.to_thread(self._heartbeats.stop)  # so that no older heartbeat arrives after the last one
        self.status.failed(cause.reason, cause.message)
        await asyncio.to_thread(self._report_failure, FAILED_POST_S)
        await self.stop()
        raise cause from error

    def _report_failure(self, for_s: float) -> None:
        heartbeat = self.status.snapshot()
        write_cause(self._args.log_dir, heartbeat)
        post = partial(self._conductor.post, timeout_s=min(2.0, for_s))
        if not post_reliably(post, heartbeat, for_s=for_s):
            log.error("the conductor could not be told why %s failed", self._args.app)

    def _end_myself(self, reason: Reason, message: str) -> None:
        """From the guard's thread: memory is going to the neighbours' cost, so there is no time to tidy up."""
        try:
            log.error("ended by its guard, %s: %s", reason, message)
            self.status.failed(reason, message)
            heartbeat = self.status.snapshot()
            with contextlib.suppress(OSError):
                write_cause(self._args.log_dir, heartbeat)
            with contextlib.suppress(ConductorUnreachableError):
                self._conductor.post(heartbeat, timeout_s=KILLED_POST_S)
        finally:  # whatever cannot be said any more, the neighbours keep their memory
            os.kill(os.getpid(), signal.SIGKILL)


async def run_in_daemon(work: Callable[[], None], *, name: str) -> None:
    """As asyncio.to_thread, but neither the end of the loop nor that of the interpreter waits for the thread."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        problem: Exception | None = None
        try:
            work()
        except Exception as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, problem)

    threading.Thread(target=run, name=name, daemon=True).start()
    await done


async def run_until(
    process: EngineProcess, ended: asyncio.Event, drain_s: float, announce: Callable[[str], None]
) -> bool:
    """Starts an engine and keeps it until `ended`; then drains and stops it. Raises LoadError.

    Returns whether it was loaded; when not, the thread that loads may still run.
    """
    starting = asyncio.create_task(process.start())
    ending = asyncio.create_task(ended.wait())
    await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, LoadError):
            await starting
        await process.stop()
        return False
    await starting
    announce(f"ready on {process.status.snapshot().host}:{process.port}")
    await ending
    await process.end(drain_s)
    return True
