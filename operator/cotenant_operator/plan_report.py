"""Plan → what `cotenant plan` prints: rows, or a JSON document. Pure; holds no key and no hash of one."""

from collections.abc import Mapping
from typing import Any

import msgspec

from cotenant_operator.planned import ModelPlan, Plan
from cotenant_operator.quantity import show_bytes


def plan_rows(plan: Plan) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row for each model."""
    columns = ("MODEL", "TASK", "POOL", "PLAN", "GROUPS", "SHARE", "KV CACHE", "TENANTS", "MESSAGE")
    return columns, [_row(model, plan) for model in sorted(plan.models, key=lambda model: model.name)]


def _row(model: ModelPlan, plan: Plan) -> tuple[str, ...]:
    seen_by = ", ".join(tenant.name for tenant in plan.tenants if model.name in tenant.models) or "-"
    if model.engine is None:
        reason = model.refusal.reason if model.refusal else "-"
        message = model.refusal.message if model.refusal else ""
        return (model.name, model.task or "-", model.pool, f"refused: {reason}", "-", "-", "-", seen_by, message)
    first = model.engine.candidates[0]
    return (
        model.name,
        model.task or "-",
        model.pool,
        "accepted",
        ", ".join(candidate.group for candidate in model.engine.candidates),
        show_bytes(first.share_bytes),
        show_bytes(first.kv_cache_bytes) if first.kv_cache_bytes else "-",
        seen_by,
        model.estimate.parts() if model.estimate else "",
    )


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
            "kv_bytes_per_token": estimate.kv_bytes_per_token,
            "scratch_bytes_per_token": estimate.scratch_bytes_per_token,
            "floor_bytes": estimate.floor_bytes,
            "wanted_bytes": estimate.wanted_bytes,
        }
    return document
