"""Plan → what `cotenant plan` prints: rows, or a JSON document. Pure; holds no key and no hash of one."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cotenant_operator.planned import ModelPlan, Plan
from cotenant_operator.quantity import show_bytes
from cotenant_operator.tasks import BATCH_TASKS, FIELD_TASKS

_COLUMNS = ("MODEL", "TASK", "POOL", "PLAN", "GROUPS", "SHARE", "WEIGHTS", "KV CACHE", "RUNTIME", "RESERVE")
_MORE = ("SCRATCH", "UNUSED", "FLOOR", "WANTED", "CONTEXT", "CONCURRENCY", "BATCH")
_LAST = ("TENANTS", "MESSAGE")


def plan_rows(plan: Plan, *, wide: bool = False) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row for each model, with the parts of its share. `wide` has more columns, and every size as plain bytes.

    SHARE = WEIGHTS + KV CACHE + RUNTIME + RESERVE + SCRATCH + UNUSED.
    """
    columns = (*_COLUMNS, *(_MORE if wide else ()), *_LAST)
    models = sorted(plan.models, key=lambda model: model.name)
    return columns, [_row(model, plan, columns, wide=wide) for model in models]


def _row(model: ModelPlan, plan: Plan, columns: Sequence[str], *, wide: bool) -> tuple[str, ...]:
    cells = {
        "MODEL": model.name,
        "TASK": model.task or "-",
        "POOL": model.pool,
        "PLAN": "accepted" if model.refusal is None else f"refused: {model.refusal.reason}",
        "TENANTS": ", ".join(tenant.name for tenant in plan.tenants if model.name in tenant.models) or "-",
        "MESSAGE": model.refusal.message if model.refusal else "",
    }
    if model.engine is not None:
        cells["GROUPS"] = ", ".join(candidate.group for candidate in model.engine.candidates)
    for name, number in {**_sizes(model), **_options(model)}.items():
        as_bytes = name in ("CONTEXT", "CONCURRENCY", "BATCH") or wide
        cells[name] = str(number) if as_bytes else show_bytes(number)
    return tuple(cells.get(column, "-") for column in columns)


def _sizes(model: ModelPlan) -> dict[str, int]:
    """Bytes by column, on the first candidate; without those of which there are none."""
    if model.engine is None or model.estimate is None:
        return {}
    share_bytes = model.engine.candidates[0].share_bytes
    parts = model.estimate.split(share_bytes)
    sizes = {
        "SHARE": share_bytes,
        "WEIGHTS": parts.weights_bytes,
        "KV CACHE": parts.kv_cache_bytes,
        "RUNTIME": parts.runtime_bytes,
        "RESERVE": parts.reserve_bytes,
        "SCRATCH": parts.scratch_bytes,
        "UNUSED": parts.unused_bytes,
        "FLOOR": model.estimate.floor_bytes,
        "WANTED": model.estimate.wanted_bytes,
    }
    return {name: size for name, size in sizes.items() if size}


def _options(model: ModelPlan) -> dict[str, int]:
    """What the engine is told, without what its task does not have."""
    engine = model.engine
    if engine is None:
        return {}
    options = {"CONCURRENCY": engine.concurrency}
    if engine.task in FIELD_TASKS["context_tokens"]:
        options["CONTEXT"] = engine.context_tokens
    if engine.task in BATCH_TASKS:
        options["BATCH"] = engine.max_batch
    return options


def plan_document(plan: Plan, created_keys: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The same as plain values, with everything in bytes and seconds.

    `created_keys`: tenant → keys that stand in no file, from `cotenant key create`.
    """
    return {
        "models": {model.name: _model(model) for model in plan.models},
        "tenants": {
            tenant.name: {
                "models": list(tenant.models),
                "keys": len(tenant.secret_keys) + (created_keys or {}).get(tenant.name, 0),
                "limits": msgspec.to_builtins(tenant.limits),
            }
            for tenant in plan.tenants
        },
        "pools": {pool.name: [msgspec.to_builtins(group) for group in pool.groups] for pool in plan.pools},
        "warnings": list(plan.warnings),
        "errors": list(plan.errors),
    }


def _model(model: ModelPlan) -> dict[str, Any]:
    document: dict[str, Any] = {"task": model.task, "pool": model.pool, "place": model.place}
    if model.refusal is not None:
        document["refused"] = {"reason": str(model.refusal.reason), "message": model.refusal.message}
    if model.engine is not None:
        document["engine"] = msgspec.to_builtins(model.engine)
        document["replicas"] = {
            "min": model.min_engines,
            "max": model.max_engines,
            "idle_after_s": model.idle_after_s,
        }
    if model.estimate is not None:
        estimate = model.estimate
        document["estimate"] = {
            "weights_bytes": estimate.weights_bytes,
            "runtime_bytes": estimate.runtime_bytes,
            "reserve_bytes": estimate.reserve_bytes,
            "guess_bytes": estimate.guess_bytes,
            "kv_bytes_per_token": estimate.kv_bytes_per_token,
            "scratch_bytes_per_token": estimate.scratch_bytes_per_token,
            "floor_bytes": estimate.floor_bytes,
            "wanted_bytes": estimate.wanted_bytes,
        }
    return document
