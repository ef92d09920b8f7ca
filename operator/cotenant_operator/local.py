"""`cotenant up`: the core's shell on one machine. Reads the files, plans, starts the programs, keeps them.

files ──▶ read_world ──▶ plan ──▶ render ──▶ conductor (PUT /v1/desired)
                                        └──▶ gateway (gateway.json, which it watches)
children: ray (head), conductor, gateway; each with a log, a mark, and a tether to this process.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cotenant_operator import ray_head
from cotenant_operator.control import ControlClient, ControlError, answers
from cotenant_operator.desk import Desk, Orders
from cotenant_operator.manifests import ManifestErrors
from cotenant_operator.processes import Child, end_leftovers, free_port, port_is_free
from cotenant_operator.state_dir import StateDir, StateInUseError
from cotenant_serving.contract import PoolStatus

WATCH_S = 0.25
"""Between two looks at the files: an edit takes effect within a second."""
START_TIMEOUT_S = 90.0
DRAIN_S = 25.0
RAY_STARTS_PER_MINUTE = 3
PAUSE_S = 2.0
"""Before a program that keeps ending is started once more."""

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a caller of `run` gets once the gateway answers."""

    url: str
    control: ControlClient
    state: StateDir
    desk: Desk


def up(files: Sequence[Path], *, host: str, port: int, state: Path) -> int:
    """Serve what the files describe until Ctrl-C or SIGTERM. Returns the exit code; speaks on stderr."""
    return asyncio.run(run(files, host=host, port=port, state=state, then=None))


async def run(
    files: Sequence[Path],
    *,
    host: str,
    port: int,
    state: Path,
    then: Callable[[Running], Awaitable[int | None]] | None,
    say: Say = lambda line: print(line, file=sys.stderr, flush=True),
) -> int:
    """As `up`; `then` runs once everything answers, and ends the run when it returns an exit code."""
    where = StateDir(state)
    try:
        where.acquire()
    except StateInUseError as error:
        say(f"error: {error}")
        return EXIT_USAGE
    try:
        if ended := end_leftovers(where.path):
            say(f"ended {ended} processes that an earlier run left behind")
        where.clear_ray_temp()
        port = port or free_port(host)
        if not port_is_free(host, port):
            say(f"error: {host}:{port} is in use by another program. Choose another port with --port.")
            return EXIT_USAGE
        conductor_port = free_port()
        desk = Desk(files, where, conductor_url=f"http://127.0.0.1:{conductor_port}")
        try:
            orders = desk.read()
        except ManifestErrors as error:
            say(str(error))
            return EXIT_USAGE
        local = _Local(where, desk, host, port, conductor_port, say)
        return await local.run(orders, then)
    finally:
        where.release()


class _Local:
    """One run: owns the children."""

    def __init__(self, state: StateDir, desk: Desk, host: str, port: int, conductor_port: int, say: Say) -> None:
        self._state, self._desk, self._say = state, desk, say
        self._host, self._port, self._conductor_port = host, port, conductor_port
        self._url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104
        self._control = ControlClient(f"http://127.0.0.1:{conductor_port}", state.secret("control-token"))
        self._children: dict[str, Child] = {}
        self._restarts: list[tuple[str, float]] = []
        self._ray_port = 0

    async def run(self, orders: Orders, then: Callable[[Running], Awaitable[int | None]] | None) -> int:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stop_asked, stop)
        for line in orders.notes:
            self._say(line)
        tasks = [asyncio.create_task(self._serve(orders, then)), asyncio.create_task(_until(stop))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in tasks:
                task.cancel()
            await self._end()

    def _stop_asked(self, stop: asyncio.Event) -> None:
        if stop.is_set():  # asked twice: do not wait for streams
            for child in self._children.values():
                if child.alive:
                    child.process.kill()
        stop.set()

    async def _serve(self, orders: Orders, then: Callable[[Running], Awaitable[int | None]] | None) -> int:
        self._desk.publish(orders)
        self._say(f"starting Ray, conductor and gateway (logs in {self._state.logs})")
        await self._start_ray()
        await asyncio.gather(self._start_conductor(), self._start_gateway())
        self._state.announce(conductor_url=self._control.url, gateway_url=self._url)
        if not await self._all_answer(orders):
            return EXIT_FAILED
        self._say(f"ready: {self._url}/v1")
        watch = asyncio.create_task(self._watch(orders))
        if then is not None:
            follow_up = asyncio.ensure_future(then(self._running()))
            await asyncio.wait({watch, follow_up}, return_when=asyncio.FIRST_COMPLETED)
            if follow_up.done() and (code := follow_up.result()) is not None:
                watch.cancel()
                return code
        return await watch

    def _running(self) -> Running:
        return Running(url=self._url, control=self._control, state=self._state, desk=self._desk)

    async def _start_ray(self) -> None:
        self._ray_port = free_port()
        devices = self._desk.devices
        command = ray_head.command(
            self._ray_port, self._state.ray_temp, devices, cuda_devices=self._desk.cuda_devices
        )
        await self._start("ray", command)

    async def _start_conductor(self) -> None:
        module = [sys.executable, "-m", "cotenant_serving.conductor"]
        options = {
            "ray-address": f"127.0.0.1:{self._ray_port}",
            "port": self._conductor_port,
            "state": self._state.path / "conductor",
            "pool-token-file": self._state.secret("pool-token"),
            "control-token-file": self._state.secret("control-token"),
            "cache-dir": self._state.cache,
            "log-dir": self._state.logs / "engines",
            "engine-host": "127.0.0.1",
        }
        await self._start("conductor", module + [f"--{name}={value}" for name, value in options.items()])

    async def _start_gateway(self) -> None:
        module = [sys.executable, "-m", "cotenant_serving.gateway"]
        options = {
            "config": self._state.gateway_config,
            "host": self._host,
            "port": self._port,
            "state": self._state.path / "gateway",
        }
        await self._start("gateway", module + [f"--{name}={value}" for name, value in options.items()])

    async def _start(self, name: str, command: Sequence[str]) -> None:
        self._children[name] = await Child.start(
            name,
            command,
            log=self._state.logs / f"{name}.log",
            env=ray_head.environment(self._state.secret("ray-token")),
            mark=self._state.path,
        )

    async def _all_answer(self, orders: Orders) -> bool:
        """Send the desired state as soon as the conductor takes it, then wait for it to see Ray."""
        deadline = time.monotonic() + START_TIMEOUT_S
        sent = False
        while time.monotonic() < deadline:
            for child in self._children.values():
                if not child.alive:
                    self._say(f"error: {child.name} ended at its start; {child.log} says:\n{child.last_lines()}")
                    return False
            if not sent:
                sent = await self._send(orders)
            elif await asyncio.to_thread(self._control.ready) and await asyncio.to_thread(
                answers, self._url + "/readyz"
            ):
                return True
            await asyncio.sleep(0.1)
        self._say(f"error: not ready within {START_TIMEOUT_S:.0f} s. The logs in {self._state.logs} say why.")
        return False

    async def _send(self, orders: Orders) -> bool:
        try:
            await asyncio.to_thread(self._control.put_desired, orders.desired)
        except ControlError:
            return False
        return True

    async def _watch(self, orders: Orders) -> int:
        """Keep the children alive, apply edits, and tell how models change."""
        told: dict[str, str] = {}
        pending: Orders | None = None
        looked_s = 0.0
        while True:
            if (code := await self._keep_alive()) is not None:
                return code
            if (news := await asyncio.to_thread(self._desk.look, orders)) is not None:
                for line in news.notes:
                    self._say(line)
                if news.desired is not orders.desired:
                    pending = news
                orders = news
                self._desk.publish(orders)
            if pending is not None and await self._send(pending):
                pending = None
            if time.monotonic() - looked_s > 1.0:
                looked_s = time.monotonic()
                await self._tell(told)
            await asyncio.sleep(WATCH_S)

    async def _tell(self, told: dict[str, str]) -> None:
        try:
            status: PoolStatus = await asyncio.to_thread(self._control.status)
        except ControlError:
            return
        for model in status.models:
            line = model.state if model.state == "cold" else f"{model.state}: {model.message}"
            if model.state in ("failed", "waiting"):
                line = f"{model.state} ({model.reason}): {model.message}"
            if told.get(model.model, "cold") != line:
                self._say(f"{model.model}: {line}")
            told[model.model] = line

    async def _keep_alive(self) -> int | None:
        """Start again what ended. Engines live in Ray: when its head is gone, so are they."""
        dead = [child for child in self._children.values() if not child.alive]
        if not dead:
            return None
        names = {child.name for child in dead}
        for child in dead:
            self._say(f"{child.name} ended with code {child.process.returncode}; {child.log} says why")
        recent = self._restarted(names)
        if "ray" in names and recent["ray"] > RAY_STARTS_PER_MINUTE:
            self._say(f"error: gave up on Ray after {RAY_STARTS_PER_MINUTE} starts within a minute")
            return EXIT_FAILED
        if max(recent.values()) > RAY_STARTS_PER_MINUTE:
            await asyncio.sleep(PAUSE_S)
        if "ray" in names:
            await self._restore_ray()
        elif "conductor" in names:
            await self._start_conductor()
        if "gateway" in names:
            await self._start_gateway()
        return None

    def _restarted(self, names: set[str]) -> dict[str, int]:
        """Note the restarts; how many of each there were within a minute."""
        now = time.monotonic()
        self._restarts = [(name, at) for name, at in self._restarts if now - at < 60.0]
        self._restarts += [(name, now) for name in names]
        return {name: sum(other == name for other, _ in self._restarts) for name in names}

    async def _restore_ray(self) -> None:
        self._say("Ray's head is gone and its engines with it: starting it again; requests get 503 meanwhile")
        await self._children["conductor"].end(2.0)
        # Whatever of the old head still runs, but not the gateway, whose clients keep their connections.
        gateway = self._children["gateway"].process.pid
        await asyncio.to_thread(end_leftovers, self._state.path, keep={gateway})
        await self._start_ray()
        await self._start_conductor()

    async def _end(self) -> None:
        """The gateway first, so that its streams finish; then the conductor; then Ray with all engines."""
        self._say("stopping: open streams may finish (Ctrl-C again to end at once)")
        for name, patience_s in (("gateway", DRAIN_S), ("conductor", 5.0), ("ray", 15.0)):
            if child := self._children.get(name):
                await child.end(patience_s)
        await asyncio.to_thread(end_leftovers, self._state.path)
        self._say("stopped")


async def _until(stop: asyncio.Event) -> int:
    await stop.wait()
    return EXIT_OK
