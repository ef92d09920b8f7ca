"""The level-triggered loop: observe, decide, act, publish. One writer of Serve apps, placements and table."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

import msgspec

from cotenant_serving.conductor.cached import NodeCache
from cotenant_serving.conductor.decide import decide
from cotenant_serving.conductor.explain import model_row
from cotenant_serving.conductor.leases import Leases
from cotenant_serving.conductor.observed import App, Observed
from cotenant_serving.conductor.pool_status import pool_status
from cotenant_serving.conductor.store import Store
from cotenant_serving.conductor.world import POD_TIMEOUT_S, Decision, Device, Engine, Start, World
from cotenant_serving.contract import (
    REQUEST_TIMEOUT_S,
    Desired,
    EngineArgs,
    Heartbeat,
    HeartbeatReply,
    PoolStatus,
    WorkerGroup,
)
from cotenant_serving.contract_gateway import Demand, ModelRow, Table

log = logging.getLogger("cotenant.conductor")
T = TypeVar("T")
P = ParamSpec("P")

STEADY_S = 1.0
"""Between two looks at Serve when nothing moves."""
MOVING_S = 0.2
"""While an app starts or ends."""
ADOPT_S = 3.0
"""After a restart the table waits this long, at most, for the heartbeats of the engines that run."""
DRIVER_TIMEOUT_S = 20.0
STALL_S = 2.5
"""A wait for the next pass that took so long: this process stood still."""
RAY_LOST_S = 15.0
"""Serve's controller may restart within this; after it the conductor ends, so that its supervisor starts afresh."""


class Driver(Protocol):
    """Serve and Ray as the conductor sees them; calls block."""

    def devices(self, groups: Sequence[WorkerGroup]) -> tuple[Device, ...]: ...
    def apps(self) -> dict[str, App]: ...
    def start(self, args: EngineArgs, node: str, group: str) -> None: ...
    def delete(self, app: str) -> None: ...
    def ask(self, pods: Mapping[str, int]) -> None:
        """Have Ray's autoscaler bring so many more pods of each group; of those not named none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where engines find things; all paths are on the engines' side."""

    url: str
    pool_token_file: str
    cache_dir: str = ""
    log_dir: str = ""
    engine_host: str = ""
    """Address that engines listen on; empty is their node's."""
    log_to_container: bool = False
    request_timeout_s: float = REQUEST_TIMEOUT_S
    """The longest request that gateways let run."""
    pod_timeout_s: float = POD_TIMEOUT_S


class StaleGenerationError(Exception):
    """A desired state older than the one in force was sent."""


class Conductor:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        caches: Callable[[], Mapping[str, NodeCache]] = dict,
    ) -> None:
        """`caches`: address of a node → what is on its disk, as far as is known now."""
        self._store, self._settings, self._clock, self._caches = store, settings, clock, caches
        now_s = clock()
        self._began_s = now_s
        self._desired = store.desired()
        self._observed = Observed(store.placements(), now_s=now_s)
        self._leases = Leases(now_s=now_s)
        self._driver: Driver | None = None
        self._devices: tuple[Device, ...] = ()
        self._apps: dict[str, App] = {}
        self._engines: tuple[Engine, ...] = ()
        self._decision = Decision()
        self._kick = asyncio.Event()
        self._published = asyncio.Condition()
        self._table = Table(epoch=uuid.uuid4().hex, sequence=0)
        self._placements: dict[str, EngineArgs] = {}
        """As they are kept."""
        self._complained = ""

    @property
    def table(self) -> Table:
        """sequence 0: nothing was published yet."""
        return self._table

    async def run(self, driver: Driver) -> None:
        """Until cancelled, or until Ray does not answer any more (raises what it said)."""
        self._driver = driver
        answered_s = self._clock()
        while True:
            self._kick.clear()
            try:
                await self.step()
                answered_s = self._clock()
            except Exception:
                if self._clock() - answered_s > RAY_LOST_S:
                    raise
                log.exception("a pass failed; trying again")
            await self._wait()

    async def step(self) -> Decision:
        """One pass of the loop."""
        desired = self._desired  # one that is sent meanwhile names groups whose devices were not looked for
        await self._look(desired)
        decision = decide(self._world(desired))
        self._decision = decision
        await self._act(decision)
        await self._publish()
        return decision

    def set_desired(self, desired: Desired) -> None:
        if self._desired and desired.generation < self._desired.generation:
            raise StaleGenerationError(
                f"generation {desired.generation} is older than {self._desired.generation}, which is in force"
            )
        self._store.keep_desired(desired)
        self._desired = desired
        self._kick.set()

    @property
    def nodes(self) -> frozenset[str]:
        """Addresses of those that have devices."""
        return frozenset(device.node for device in self._devices)

    @property
    def desired(self) -> Desired | None:
        return self._desired

    def heard(self, beat: Heartbeat) -> HeartbeatReply:
        now_s = self._clock()
        if self._observed.heard(beat, now_s):
            self._kick.set()
        return HeartbeatReply(lease=self._leases.answer(beat, now_s))

    def demanded(self, demand: Demand) -> None:
        if self._observed.demanded(demand, self._clock()):
            self._kick.set()

    async def table_after(self, epoch: str, sequence: int, wait_s: float) -> Table | None:
        """The table once it differs from the one named; None when `wait_s` passes first."""

        def news() -> bool:
            return self._table.sequence > 0 and (self._table.epoch, self._table.sequence) != (epoch, sequence)

        async with self._published:
            if not news():  # asked first, so that even a poll that does not wait gets what there is
                try:
                    await asyncio.wait_for(self._published.wait_for(news), wait_s)
                except TimeoutError:
                    return None
        return self._table

    def status(self) -> PoolStatus:
        def holder(device_id: str) -> str:
            lease = self._leases.holder(device_id, self._clock())
            return lease.app if lease else ""

        return pool_status(
            self._world(self._desired),
            self._decision,
            epoch=self._table.epoch,
            reconciled=self._table.sequence > 0,
            pods_with_engines=self._observed.pods_with_engines(self._clock()),
            holder=holder,
        )

    def _world(self, desired: Desired | None) -> World:
        now_s, caches = self._clock(), self._caches()
        return World(
            now_s=now_s,
            desired=desired,
            devices=self._devices,
            engines=self._engines,
            demand=self._observed.demand(now_s),
            memory=self._decision.memory,
            groups=self._decision.groups,
            pod_timeout_s=self._settings.pod_timeout_s,
            strangers=self._observed.strangers(now_s),
            caches={node: cache for node, cache in caches.items() if cache.problem is None},
            unusable_caches={node: cache for node, cache in caches.items() if cache.problem is not None},
            loads=self._observed.loads,
        )

    async def _wait(self) -> None:
        """Until there is news, or it is time for another look."""
        began_s = self._clock()
        try:
            await asyncio.wait_for(self._kick.wait(), MOVING_S if self._moving() else STEADY_S)
            await asyncio.sleep(0.02)  # several heartbeats and reports arrive together: one decision for all
        except TimeoutError:
            pass
        now_s = self._clock()
        if now_s - began_s > STALL_S:
            self._observed.overslept(now_s - began_s, now_s)

    async def _look(self, desired: Desired | None) -> None:
        assert self._driver is not None
        groups = desired.groups if desired else ()
        self._apps = await _in_thread(self._driver.apps)
        self._devices = await _in_thread(self._driver.devices, groups)
        now_s = self._clock()
        self._observed.reconcile(self._apps, now_s)
        self._engines = self._observed.engines(self._apps, now_s)

    async def _act(self, decision: Decision) -> None:
        assert self._driver is not None
        for delete in decision.deletes:
            app = self._apps.get(delete.app)
            if app is None or app.status != "deleting":  # Serve takes long to end one, and need not be asked again
                log.info("deleting %s: %s", delete.app, delete.why)
                if not await self._try(self._driver.delete, delete.app):
                    continue
            self._observed.deleting(delete.app)
        await self._try(self._driver.ask, decision.pods)
        for start in decision.starts:
            args = self._engine_args(start)
            log.info("starting %s on %s with %d bytes", args.app, args.device_id, args.share_bytes)
            self._observed.started(args, self._clock())
            self._keep_placements()  # before the app exists: a crash in between should leave no engine without one
            await self._try(self._driver.start, args, start.device.node, start.device.group)
            self._apps[args.app] = App("deploying")
        self._keep_placements()
        if decision.deletes or decision.starts:
            self._engines = self._observed.engines(self._apps, self._clock())

    async def _try(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Did it work? If not, the world is as before, so the same decision comes again."""
        try:
            await _in_thread(call, *args, **kwargs)
        except Exception:
            log.exception("Serve refused an action; it is tried again")
            return False
        return True

    def _engine_args(self, start: Start) -> EngineArgs:
        return EngineArgs(
            app=start.app,
            spec=start.spec,
            device_id=start.device.id,
            device_index=start.device.index,
            share_bytes=start.candidate.share_bytes,
            kv_cache_bytes=start.candidate.kv_cache_bytes,
            device_bytes=start.device.memory_bytes,
            conductor_url=self._settings.url,
            pool_token_file=self._settings.pool_token_file,
            cache_dir=self._settings.cache_dir,
            log_dir=self._settings.log_dir,
            host=self._settings.engine_host,
            log_to_container=self._settings.log_to_container,
            request_timeout_s=self._settings.request_timeout_s,
        )

    def _keep_placements(self) -> None:
        """A full disk stops nothing: each pass tries again, and engines without a record are adopted."""
        placements = self._observed.placements
        if placements == self._placements:
            return
        try:
            self._store.keep_placements(placements)
        except OSError as problem:
            if str(problem) != self._complained:
                log.error("placements cannot be kept, it is tried again: %s", problem)
            self._complained = str(problem)
            return
        self._placements, self._complained = placements, ""

    async def _publish(self) -> None:
        adopting = self._clock() - self._began_s < ADOPT_S and not self._observed.settled(self._apps)
        if self._table.sequence == 0 and adopting:
            return
        table = Table(
            epoch=self._table.epoch,
            sequence=self._table.sequence,
            engines=self._observed.rows(self._engines),
            models=self._model_rows(),
            gone=self._observed.gone(),
            silent=self._observed.silent(),
        )
        if self._table.sequence > 0 and _lasting(table) == _lasting(self._table):
            return  # counts of running requests alone are no news: gateways know their own
        async with self._published:
            self._table = msgspec.structs.replace(table, sequence=table.sequence + 1)
            self._published.notify_all()

    def _model_rows(self) -> tuple[ModelRow, ...]:
        """A cluster that drains speaks only for the models it still serves: the other one speaks for the rest."""
        desired = {model.name: model for model in self._desired.models} if self._desired else {}
        draining = bool(self._desired and self._desired.draining)
        return tuple(
            model_row(status, desired.get(status.model))
            for status in self._decision.models
            if status.ready_engines or not draining
        )

    def _moving(self) -> bool:
        return bool(self._decision.pods) or any(engine.phase != "ready" for engine in self._engines)


def _lasting(table: Table) -> Table:
    engines = tuple(msgspec.structs.replace(row, running=0) for row in table.engines)
    return msgspec.structs.replace(table, engines=engines)


async def _in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.wait_for(asyncio.to_thread(call, *args, **kwargs), DRIVER_TIMEOUT_S)
