"""Pools, models, tenants and facts → what may run where and who sees it. Pure: no file, clock, env or network."""

import hashlib
from collections.abc import Mapping

import msgspec

from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.estimate import Estimate, estimate_echo, estimate_generate
from cotenant_operator.near import hint
from cotenant_operator.objects import World
from cotenant_operator.placement import Placement, memory_of, place
from cotenant_operator.planned import DeviceFacts, ModelPlan, Plan, PoolPlan, Refusal, TenantPlan
from cotenant_operator.quantity import show_bytes
from cotenant_operator.spec import GPUPool, ModelDeployment
from cotenant_operator.tenancy import plan_tenancy
from cotenant_serving.contract import DeviceKind, EchoOptions, EngineSpec, Reason, Task, WorkerGroup

__all__ = ["DeviceFacts", "ModelPlan", "Plan", "PoolPlan", "Refusal", "TenantPlan", "World", "plan"]

DEFAULT_CONTEXT_TOKENS = 2048

Devices = Mapping[str, Mapping[str, DeviceFacts]]
"""Pool → worker group → what there is. Groups that are absent are taken as the pool describes them."""


def plan(world: World, devices: Devices) -> Plan:
    """The whole plan. Models of a pool that does not exist stand, refused, in the first pool's plan."""
    manifests = world.manifests
    pools = {pool.metadata.name: pool for pool in manifests.pools}
    tenancy = plan_tenancy(manifests)
    models = [_plan_model(model, world, pools, devices) for model in manifests.models]
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
    task, facts = _task_and_facts(model, world)
    placed = _decide(model, task, facts, pools, devices)
    replicas = model.spec.replicas
    return ModelPlan(
        name=model.full_name,
        task=task,
        pool=model.spec.pool,
        engine=None if isinstance(placed, Refusal) else _engine(model, task, facts, placed),
        refusal=placed if isinstance(placed, Refusal) else None,
        estimate=None if isinstance(placed, Refusal) else placed.estimate,
        min_engines=replicas.min,
        max_engines=replicas.max,
        idle_after_s=replicas.idle_after,
        place=world.manifests.place("ModelDeployment", model.metadata.name, model.metadata.namespace),
    )


def _task_and_facts(model: ModelDeployment, world: World) -> tuple[Task, ModelFacts | CacheError | None]:
    """`generate` is the only task with files now; whether they are of that kind is checked in `_decide`."""
    if model.spec.task == "echo":
        return "echo", None
    return "generate", world.facts.get(model.spec.model or "")


def _decide(
    model: ModelDeployment,
    task: Task,
    facts: ModelFacts | CacheError | None,
    pools: Mapping[str, GPUPool],
    devices: Devices,
) -> Placement | Refusal:
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
    refusal = _refused_by_facts(model, facts) if task == "generate" else None
    if refusal is not None:
        return refusal
    return place(
        pool.spec.workers,
        devices.get(model.spec.pool, {}),
        gpu=model.spec.gpu,
        estimator=lambda device: _estimate(model, facts, device),
        pool=model.spec.pool,
    )


def _refused_by_facts(model: ModelDeployment, facts: ModelFacts | CacheError | None) -> Refusal | None:
    if facts is None:
        return Refusal(
            Reason.FACTS_PENDING, f"the sizes of {model.spec.model} are not known yet; they are read from its files"
        )
    if isinstance(facts, CacheError):
        return Refusal(Reason(facts.reason), facts.message)
    if not facts.generates:
        return Refusal(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"{model.spec.model}: {facts.architecture} is no causal language model; "
            "served now: architectures …ForCausalLM",
        )
    asked, longest = model.spec.engine.context_tokens, facts.max_position_embeddings
    if asked is not None and longest and asked > longest:
        return Refusal(
            Reason.DOES_NOT_FIT,
            f"engine.contextTokens is {asked}, the model has at most {longest} (max_position_embeddings); "
            f"set engine.contextTokens: {longest} or less",
        )
    return None


def _estimate(model: ModelDeployment, facts: ModelFacts | CacheError | None, device: DeviceKind) -> Estimate:
    if not isinstance(facts, ModelFacts):
        return estimate_echo(allocate_bytes=model.spec.engine.allocate, device=device)
    return estimate_generate(
        facts,
        context_tokens=_context_tokens(model, facts),
        concurrency=model.spec.engine.concurrency,
        device=device,
    )


def _context_tokens(model: ModelDeployment, facts: ModelFacts | CacheError | None) -> int:
    if model.spec.engine.context_tokens is not None:
        return model.spec.engine.context_tokens
    longest = facts.max_position_embeddings if isinstance(facts, ModelFacts) else 0
    return min(DEFAULT_CONTEXT_TOKENS, longest or DEFAULT_CONTEXT_TOKENS)


def _engine(
    model: ModelDeployment, task: Task, facts: ModelFacts | CacheError | None, placed: Placement
) -> EngineSpec:
    options = model.spec.engine
    known = facts if isinstance(facts, ModelFacts) else None
    echo = EchoOptions(
        tokens_per_second=options.tokens_per_second, load_s=options.load_seconds, allocate_bytes=options.allocate
    )
    engine = EngineSpec(
        model=model.full_name,
        revision="",
        task=task,
        source=known.source if known else "",
        candidates=placed.candidates,
        device=placed.device,
        context_tokens=_context_tokens(model, facts),
        concurrency=options.concurrency,
        echo=echo if task == "echo" else None,
    )
    return msgspec.structs.replace(engine, revision=_revision(engine, known.fingerprint if known else ""))


def _revision(engine: EngineSpec, fingerprint: str) -> str:
    """8 hex digits that change when an engine that runs would have to be another one."""
    encoded = msgspec.json.encode(engine, order="sorted")
    return hashlib.sha256(encoded + b"\0" + fingerprint.encode()).hexdigest()[:8]


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
