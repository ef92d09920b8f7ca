"""The stale table: no prompt reaches an engine that it was not addressed to, whatever gateways believe.

Engines die, their addresses go to engines of other models and tenants, conductors and gateways restart with old
tables, connections outlive who was behind them. An engine says 421 to what is not for it, before it reads it.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.builders.ports import free_port
from tests.builders.simulated_network import Address, End, Network, SimulatedLoop
from tests.builders.stale_world import World

from cotenant_serving.engine.protocol import EngineProtocol
from cotenant_serving.gateway.metrics import Metrics

ADDRESSES = tuple(("10.0.0.1", port) for port in range(8800, 8804))
Listening = tuple[Address, list[EngineProtocol], Any]
"""An address, the protocols of the connections that were accepted there, and what accepts."""


def idle(protocol: EngineProtocol) -> bool:
    closing = protocol.transport is None or protocol.transport.is_closing()
    return not closing and (protocol.cycle is None or protocol.cycle.response_complete)


class SimulatedPlace:
    """The network in memory."""

    def __init__(self, network: Network, seen: Counter[str]) -> None:
        self.connect, self._network, self._seen = network.connect, network, seen
        self._kept: dict[Address, list[End]] = {}

    async def listen(self, address: Address, accept: Callable[[], EngineProtocol]) -> Listening:
        protocols: list[EngineProtocol] = []

        def accepting() -> EngineProtocol:
            protocols.append(accept())
            return protocols[-1]

        for end in self._kept.pop(address, ()):
            if not end.is_closing():
                end.hand_over(accepting())
                self._seen["handed over"] += 1
        self._network.listening[address] = accepting
        return address, protocols, None

    async def kill(self, listening: Listening, how: str) -> None:
        address, protocols, _ = listening
        del self._network.listening[address]
        self._network.vanished.discard(address)
        if how == "vanish":
            self._network.vanished.add(address)
        for protocol in protocols:
            end = socket_of(protocol)
            if how == "keep" and idle(protocol):
                self._kept.setdefault(address, []).append(end)
            else:
                end.lose(ConnectionResetError(), quietly=how == "vanish")


class Loopback:
    """Real sockets. Who vanishes there keeps its connections, and says nothing on them."""

    connect = None

    def __init__(self, seen: Counter[str]) -> None:
        self._seen = seen
        self._kept: dict[Address, list[EngineProtocol]] = {}
        self._all: list[EngineProtocol] = []

    async def listen(self, address: Address, accept: Callable[[], EngineProtocol]) -> Listening:
        protocols: list[EngineProtocol] = []

        def accepting() -> EngineProtocol:
            protocols.append(accept())
            self._all.append(protocols[-1])
            return protocols[-1]

        for old in self._kept.pop(address, ()):
            transport = socket_of(old)
            if not transport.is_closing():
                transport.set_protocol(new := accepting())
                new.connection_made(transport)
                self._seen["handed over"] += 1
        server = await asyncio.get_running_loop().create_server(accepting, *address)
        return address, protocols, server

    async def kill(self, listening: Listening, how: str) -> None:
        address, protocols, server = listening
        server.close()
        await asyncio.sleep(0)  # what was accepted just now is told so
        for protocol in [one for one in protocols if one.transport is not None]:
            transport = socket_of(protocol)
            if how == "keep" and idle(protocol):
                self._kept.setdefault(address, []).append(protocol)
            elif how == "vanish" and not transport.is_closing():
                transport.pause_reading()
                transport.set_protocol(asyncio.Protocol())
                protocol.connection_lost(ConnectionResetError())
            else:
                transport.abort()

    async def close(self) -> None:
        await asyncio.sleep(0)
        for protocol in self._all:
            if protocol.transport is not None:
                socket_of(protocol).abort()
        await asyncio.sleep(0)


def socket_of(protocol: EngineProtocol) -> Any:
    """The transport below the one that joins writes."""
    return protocol.transport._transport


def simulate(seed: int, folder: Path, metrics: Metrics) -> World:
    loop = SimulatedLoop()
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    try:
        world = World(SimulatedPlace(Network(loop, rng), seen), rng, folder, metrics, ADDRESSES, seen=seen)
        loop.run_until_complete(world.run())
    finally:
        loop.close()
    return world


async def happen(seed: int, folder: Path, metrics: Metrics) -> World:
    seen: Counter[str] = Counter()
    place = Loopback(seen)
    addresses = tuple(("127.0.0.1", port) for port in (free_port() for _ in range(4)))
    world = World(place, random.Random(seed), folder, metrics, addresses, scale=0.1, seen=seen)
    try:
        await world.run()
    finally:
        await place.close()
    return world


def test_no_prompt_reaches_an_engine_it_was_not_addressed_to(tmp_path: Path, full_size: Callable[[int], int]) -> None:
    schedules, seen, metrics = full_size(1000), Counter[str](), Metrics()
    for seed in range(schedules):
        world = simulate(seed, tmp_path, metrics)
        assert not world.violations, f"seed {seed}: {world.violations}"
        seen += world.seen
    assert seen["misdirected"] > schedules, seen
    assert seen["handed over"] > schedules, seen
    assert seen["whole"] > 10 * schedules, seen
    assert seen["broken"] > schedules, seen


def test_the_same_seed_is_the_same_schedule(tmp_path: Path) -> None:
    metrics = Metrics()
    assert simulate(1, tmp_path, metrics).seen == simulate(1, tmp_path, metrics).seen


async def test_no_prompt_reaches_one_on_real_sockets_either(tmp_path: Path, full_size: Callable[[int], int]) -> None:
    """Several schedules at a time: they wait more than they work."""
    schedules, seen, metrics = full_size(20), Counter[str](), Metrics()
    for start in range(0, schedules, 5):
        seeds = range(start, min(start + 5, schedules))
        worlds = await asyncio.gather(*(happen(seed, tmp_path, metrics) for seed in seeds))
        for seed, world in zip(seeds, worlds, strict=True):
            assert not world.violations, f"seed {seed}: {world.violations}"
            seen += world.seen
    # How much happens in that time is this machine's: only that it did.
    assert seen["reused"], seen
    assert seen["misdirected"], seen
    assert seen["whole"], seen
