"""Pools, models, tenants and facts → what may run where and who sees it. Pure: no file, clock, env or network."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from cotenant_operator.engine_plan import Served, engine_spec, estimate, settle, sizes_of, task_of
from cotenant_operator.near import hint
from cotenant_operator.objects import World
from cotenant_operator.placement import Placement, memory_of, place
from cotenant_operator.planned import DeviceFacts, ModelPlan, Plan, PoolPlan, Refusal, TenantPlan
from cotenant_operator.quantity import show_bytes
from cotenant_operator.spec import GPUPool, ModelDeployment
from cotenant_operator.tenancy import plan_tenancy
from cotenant_serving.contract import Reason, WorkerGroup

__all__ = ["DeviceFacts", "ModelPlan", "Plan", "PoolPlan", "Refusal", "TenantPlan", "World", "plan"]

Devices = Mapping[str, Mapping[str, DeviceFacts]]
"""Pool → worker group → what there is. Groups that are absent are taken as the pool describes them."""


def plan(world: World, devices: Devices) -> Plan:
    """The whole plan. Models of a pool that does not exist stand, refused, in the first pool's plan."""
    manifests = world.manifests
    pools = {pool.metadata.name: pool for pool in manifests.pools}
    tenancy = plan_tenancy(manifests)
    models = [
        replace(
            _plan_model(model, world, pools, devices), name_taken_for=tenancy.names_taken.get(model.full_name, ())
        )
        for model in manifests.models
    ]
    names = list(pools) or ["default"]
    planned = tuple(
        PoolPlan(
            name,
            _groups(pools[name], devices.get(name, {})) if name in pools else (),
            tuple(model for model in models if model.pool == name or (index == 0 and model.pool not in pools)),
        )
        for index, name in enumerate(names)
    )
    return Plan(planned, tenancy.tenants, (*tenancy.warnings, *_device_warnings(pools, devices)), tenancy.errors)


def _plan_model(model: ModelDeployment, world: World, pools: Mapping[str, GPUPool], devices: Devices) -> ModelPlan:
    facts = world.facts_of(model)
    served = _refused_by_pool(model, pools) or _refused_by_cluster(model, world) or settle(model, facts)
    replicas = model.spec.replicas
    found = ModelPlan(
        name=model.full_name,
        task=task_of(model, facts),
        pool=model.spec.pool,
        min_engines=replicas.min,
        max_engines=replicas.max,
        idle_after_s=replicas.idle_after,
        place=world.manifests.place("ModelDeployment", model.metadata.name, model.metadata.namespace),
    )
    if isinstance(served, Refusal):
        return replace(found, refusal=served)
    placed = _placed(served, pools, devices)
    if isinstance(placed, Refusal):
        return replace(found, refusal=placed)
    return replace(found, engine=engine_spec(served, placed), estimate=placed.estimate)


def _refused_by_pool(model: ModelDeployment, pools: Mapping[str, GPUPool]) -> Refusal | None:
    pool = pools.get(model.spec.pool)
    if pool is None:
        return Refusal(
            Reason.POOL_NOT_FOUND,
            f"there is no pool {model.spec.pool!r}; {hint(model.spec.pool, pools, label='known')}",
        )
    if not pool.spec.admits(model.metadata.namespace):
        return Refusal(
            Reason.NOT_ALLOWED,
            f"namespace {model.metadata.namespace!r} may not place models in pool {model.spec.pool!r}; allowed: "
            f"{', '.join(pool.spec.namespaces) or 'none'}; add it to spec.namespaces of the GPUPool",
        )
    return None


def _refused_by_cluster(model: ModelDeployment, world: World) -> Refusal | None:
    source = model.spec.model or ""
    if not world.manifests.namespace or not source.startswith("file://."):
        return None
    return Refusal(
        Reason.MODEL_NOT_FOUND,
        f"{source} is beside a YAML file of one machine, which a cluster does not have; set file:///absolute/folder, "
        "mounted in the pods of operator and pool, or hf://owner/name",
    )


def _placed(served: Served, pools: Mapping[str, GPUPool], devices: Devices) -> Placement | Refusal:
    pool = served.model.spec.pool
    return place(
        pools[pool].spec.workers,
        devices.get(pool, {}),
        gpu=served.model.spec.gpu,
        estimator=partial(estimate, served),
        sizes=sizes_of(served),
        pool=pool,
    )


def _groups(pool: GPUPool, devices: Mapping[str, DeviceFacts]) -> tuple[WorkerGroup, ...]:
    return tuple(
        WorkerGroup(
            name=worker.name,
            device=worker.device,
            memory_bytes=memory_of(worker, devices.get(worker.name)),
            sharing=worker.sharing,
        )
        for worker in pool.spec.workers
    )


def _device_warnings(pools: Mapping[str, GPUPool], devices: Devices) -> tuple[str, ...]:
    warnings = []
    for name, pool in pools.items():
        for worker in pool.spec.workers:
            device = devices.get(name, {}).get(worker.name)
            if device is not None and device.problem:
                warnings.append(f"pool {name}: group {worker.name}: no {worker.device} device: {device.problem}")
            elif memory_of(worker, device) < worker.memory:
                warnings.append(
                    f"pool {name}: group {worker.name}: memory is {show_bytes(worker.memory)}, the device has only "
                    f"{show_bytes(memory_of(worker, device))}, which is used"
                )
    return tuple(warnings)
