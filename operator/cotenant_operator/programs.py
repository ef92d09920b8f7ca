"""The programs of one `up`: Ray's head, conductor and gateway. Starts them, keeps them, ends them in order."""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence

from cotenant_operator import ray_head
from cotenant_operator.desk import Desk
from cotenant_operator.processes import Child, end_leftovers, free_port
from cotenant_operator.state_dir import StateDir
from cotenant_serving.gateway.settings import Settings

DRAIN_S = Settings().ended_within_s + 5.0
"""What the gateway gets to end: it kills its own workers sooner."""
RAY_STARTS_PER_MINUTE = 3
RAY_WAS_SLOW = "The current node timed out during startup"
"""What Ray says when it did not come up within 30 s, which is all that it gives itself."""
PAUSE_S = 2.0
"""Before a program that keeps ending is started once more."""

Say = Callable[[str], None]


class GaveUpError(Exception):
    """Ray does not stay up."""


class Programs:
    """Owns the child processes. `conductor_port` stays the same over restarts: engines speak to it."""

    def __init__(self, state: StateDir, desk: Desk, *, host: str, port: int, gateway_workers: int, say: Say) -> None:
        self._state, self._desk, self._say = state, desk, say
        self._host, self._port, self.gateway_workers = host, port, gateway_workers
        self.conductor_port = desk.conductor_port
        self._ray_port = 0
        self._children: dict[str, Child] = {}
        self._restarts: list[tuple[str, float]] = []

    async def start(self) -> None:
        await self._start_ray()
        await asyncio.gather(self._start_conductor(), self._start_gateway())

    def ended(self) -> list[Child]:
        return [child for child in self._children.values() if not child.alive]

    def kill(self) -> None:
        """Do not wait for streams."""
        for child in self._children.values():
            if child.alive:
                child.process.kill()

    async def keep_alive(self) -> None:
        """Start again what ended. Engines live in Ray: when its head is gone, so are they. Raises GaveUpError."""
        dead = self.ended()
        if not dead:
            return
        names = {child.name for child in dead}
        for child in dead:
            self._say(f"{child.name} ended with code {child.process.returncode}; {child.log} says why")
        recent = self._restarted(names)
        if "ray" in names and recent["ray"] > RAY_STARTS_PER_MINUTE:
            raise GaveUpError(f"gave up on Ray after {RAY_STARTS_PER_MINUTE} starts within a minute")
        if max(recent.values()) > RAY_STARTS_PER_MINUTE:
            await asyncio.sleep(PAUSE_S)
        if "ray" in names:
            await self._restore_ray()
        elif "conductor" in names:
            await self._start_conductor()
        if "gateway" in names:
            await self._start_gateway()

    async def start_slow_ray_again(self) -> bool:
        """Once: what a busy machine has read for the first start is in its memory for the second."""
        ray = self._children["ray"]
        if ray.alive or self._restarts or RAY_WAS_SLOW not in ray.last_lines():
            return False
        await self.keep_alive()
        return True

    async def end(self) -> None:
        """The gateway first, so that its streams finish; then the conductor; then Ray with all engines."""
        for name, patience_s in (("gateway", DRAIN_S), ("conductor", 5.0), ("ray", 15.0)):
            if child := self._children.get(name):
                await child.end(patience_s)
        await asyncio.to_thread(end_leftovers, self._state.path)

    async def _restore_ray(self) -> None:
        self._say("Ray's head is gone and its engines with it: starting it again; requests wait or get 503 meanwhile")
        await self._children["conductor"].end(2.0)
        # Whatever of the old head still runs, but not the gateway, whose clients keep their connections.
        gateway = self._children["gateway"].process.pid
        await asyncio.to_thread(end_leftovers, self._state.path, keep={gateway})
        await self._start_ray()
        await self._start_conductor()

    async def _start_ray(self) -> None:
        self._ray_port = free_port()
        devices, cuda_devices = self._desk.devices, self._desk.cuda_devices
        await self._start(
            "ray", ray_head.command(self._ray_port, self._state.ray_temp, devices, cuda_devices=cuda_devices)
        )

    async def _start_conductor(self) -> None:
        options = {
            "ray-address": f"127.0.0.1:{self._ray_port}",
            "port": self.conductor_port,
            "state": self._state.path / "conductor",
            "pool-token-file": self._state.secret("pool-token"),
            "control-token-file": self._state.secret("control-token"),
            "cache-dir": self._state.cache,
            "log-dir": self._state.logs / "engines",
            "engine-host": "127.0.0.1",
        }
        await self._start("conductor", _module("cotenant_serving.conductor", options))

    async def _start_gateway(self) -> None:
        options = {
            "config": self._state.gateway_config,
            "host": self._host,
            "port": self._port,
            "state": self._state.path / "gateway",
            "workers": self.gateway_workers,
        }
        await self._start("gateway", _module("cotenant_serving.gateway", options))

    async def _start(self, name: str, command: Sequence[str]) -> None:
        self._children[name] = await Child.start(
            name,
            command,
            log=self._state.logs / f"{name}.log",
            env=ray_head.environment(self._state.secret("ray-token")),
            mark=self._state.path,
        )

    def _restarted(self, names: set[str]) -> dict[str, int]:
        """Note the restarts; how many of each there were within a minute."""
        now_s = time.monotonic()
        self._restarts = [(name, at_s) for name, at_s in self._restarts if now_s - at_s < 60.0]
        self._restarts += [(name, now_s) for name in names]
        return {name: sum(other == name for other, _ in self._restarts) for name in names}


def _module(name: str, options: dict[str, object]) -> list[str]:
    return [sys.executable, "-m", name, *(f"--{option}={value}" for option, value in options.items())]
