"""Worlds, engines and models for tests of the conductor: every argument has a default worth reading."""

from collections.abc import Mapping
from typing import Any

from cotenant_serving.conductor.cached import NodeCache
from cotenant_serving.conductor.load_times import LoadTimes
from cotenant_serving.conductor.world import (
    Device,
    Engine,
    EnginePhase,
    Failure,
    GroupMemory,
    ModelMemory,
    World,
    app_name,
)
from cotenant_serving.contract import (
    Candidate,
    Desired,
    DesiredModel,
    EngineArgs,
    EngineSpec,
    Heartbeat,
    Reason,
    WorkerGroup,
)
from cotenant_serving.contract_gateway import ModelDemand

GIB = 1024**3


def device(
    index: int = 0, *, group: str = "cpu", memory: int = 8 * GIB, node: str = "10.0.0.1", leaving: bool = False
) -> Device:
    return Device(
        id=f"{node}/{group}/{index}",
        group=group,
        kind="cpu",
        memory_bytes=memory,
        node=node,
        index=index,
        host="pod-1",
        leaving=leaving,
    )


def pod(number: int = 1, *, group: str = "cpu", leaving: bool = False) -> Device:
    """The device of a worker pod: there is one in each."""
    return device(group=group, node=f"10.0.1.{number}", leaving=leaving)


def group(name: str = "cpu", *, most: int = 0, least: int = 0, memory: int = 8 * GIB) -> WorkerGroup:
    return WorkerGroup(name=name, device="cpu", memory_bytes=memory, min_devices=least, max_devices=most)


def spec(
    model: str = "search/chat",
    revision: str = "r1",
    *,
    share: int = 2 * GIB,
    slots: int = 4,
    groups: tuple[str, ...] = ("cpu",),
    source: str = "",
    weights: int = 0,
) -> EngineSpec:
    return EngineSpec(
        model=model,
        revision=revision,
        task="echo",
        candidates=tuple(Candidate(group=group, share_bytes=share) for group in groups),
        device="cpu",
        concurrency=slots,
        source=source,
        weights_bytes=weights,
    )


def model(
    name: str = "search/chat",
    revision: str = "r1",
    *,
    share: int = 2 * GIB,
    slots: int = 4,
    min_engines: int = 0,
    max_engines: int = 1,
    idle_after_s: float = 600.0,
    groups: tuple[str, ...] = ("cpu",),
    source: str = "",
    weights: int = 0,
) -> DesiredModel:
    return DesiredModel(
        name=name,
        engine=spec(name, revision, share=share, slots=slots, groups=groups, source=source, weights=weights),
        min_engines=min_engines,
        max_engines=max_engines,
        idle_after_s=idle_after_s,
    )


def refused(name: str = "search/chat", reason: Reason = Reason.DOES_NOT_FIT) -> DesiredModel:
    return DesiredModel(name=name, refused=reason, message="needs more than there is")


def args(engine_spec: EngineSpec, slot: int = 0, *, on: Device | None = None) -> EngineArgs:
    where = on or device()
    return EngineArgs(
        app=app_name(engine_spec, slot),
        spec=engine_spec,
        device_id=where.id,
        device_index=where.index,
        share_bytes=engine_spec.candidates[0].share_bytes,
        device_bytes=where.memory_bytes,
        conductor_url="http://127.0.0.1:1",
        pool_token_file="",
    )


def beat(engine_args: EngineArgs, **overrides: object) -> Heartbeat:
    values: dict[str, object] = {
        "app": engine_args.app,
        "model": engine_args.spec.model,
        "revision": engine_args.spec.revision,
        "instance": f"i-{engine_args.app}",
        "host": "127.0.0.1",
        "port": 8800,
        "pid": 1,
        "device_id": engine_args.device_id,
        "state": "ready",
        "slots": engine_args.spec.concurrency,
        "share_bytes": engine_args.share_bytes,
        "load_s": 5.0,
    }
    return Heartbeat(**{**values, **overrides})  # type: ignore[arg-type]


def engine(
    phase: EnginePhase = "ready",
    *,
    model: str = "search/chat",
    revision: str = "r1",
    share: int = 2 * GIB,
    slot: int = 0,
    slots: int = 4,
    running: int = 0,
    idle_s: float = 0.0,
    on: Device | None = None,
    failure: Failure | None = None,
    load_s: float = 5.0,
    silent_s: float = 0.0,
    age_s: float = 0.0,
    source: str = "",
    weights: int = 0,
    **told: object,
) -> Engine:
    """`told`: fields of its heartbeat."""
    engine_spec = spec(model, revision, share=share, slots=slots, source=source, weights=weights)
    engine_args = args(engine_spec, slot, on=on)
    told = {"holds_lease": phase == "loading", **told}
    said = None if phase == "starting" else beat(engine_args, running=running, load_s=load_s, **told)
    return Engine(
        args=engine_args,
        phase=phase,
        beat=said,
        idle_s=idle_s,
        age_s=age_s,
        silent_s=silent_s,
        failure=failure,
    )


def world(
    *models: DesiredModel,
    engines: tuple[Engine, ...] = (),
    devices: tuple[Device, ...] = (device(),),
    demand: dict[str, int] | None = None,
    memory: dict[str, ModelMemory] | None = None,
    now_s: float = 1000.0,
    adopted: bool = False,
    groups: tuple[WorkerGroup, ...] = (group(),),
    remembered: Mapping[str, GroupMemory] | None = None,
    caches: Mapping[str, NodeCache] | None = None,
    loads: LoadTimes | None = None,
    **more: Any,
) -> World:
    """`demand`: queued requests per model. `adopted`: nobody has sent a desired state yet. `more`: of `Desired`."""
    return World(
        now_s=now_s,
        desired=None if adopted else desired(*models, groups=groups, **more),
        devices=devices,
        engines=engines,
        demand={name: ModelDemand(queued=count) for name, count in (demand or {}).items()},
        memory=memory or {},
        groups=remembered or {},
        caches=caches or {},
        loads=loads or LoadTimes(),
    )


def desired(
    *models: DesiredModel, generation: int = 1, groups: tuple[WorkerGroup, ...] = (group(),), **more: Any
) -> Desired:
    return Desired(generation=generation, pool="default", groups=groups, models=models, **more)
