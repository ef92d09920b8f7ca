"""What was planned → the `status` of a Tenant, and of any object that cannot be read. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from cotenant_operator.condition_reasons import ClusterReason
from cotenant_operator.dated import Status, dated
from cotenant_operator.planned import TenantPlan
from cotenant_operator.status import Condition, ConditionType
from cotenant_serving.contract import Reason

TENANT_LEFT_OUT = (
    "the gateways' configuration has no room for all tenants and keys, and this tenant is one of the youngest: its "
    "keys do not work; delete tenants, or keys of which one tenant has many"
)
TENANT_CONDITIONS: tuple[ConditionType, ...] = ("Accepted", "Ready")


def tenant_status(
    plan: TenantPlan,
    *,
    generation: int,
    previous: Mapping[str, Any] | None,
    now: str,
    left_out: bool = False,
    models_left_out: int = 0,
) -> Status:
    """`left_out`, `models_left_out`: what the gateways' configuration has no room for."""
    found = [_accepted(plan), _ready(plan, left_out=left_out, models_left_out=models_left_out)]
    return {
        "observedGeneration": generation,
        "conditions": dated(found, previous, generation=generation, now=now),
        "keys": len(plan.secret_keys),
        "models": len(plan.models),
    }


def _accepted(plan: TenantPlan) -> Condition:
    spaces = ", ".join(plan.namespaces) or "none"
    return Condition("Accepted", "True", ClusterReason.VALID, f"namespaces: {spaces}")


def _ready(plan: TenantPlan, *, left_out: bool, models_left_out: int) -> Condition:
    """Whether anybody can call in its name. One key that works is enough; what is wrong with others is said."""
    usable = len(plan.secret_keys)
    wrong = "; ".join(dict.fromkeys(problem.message for problem in plan.key_problems if problem.reason != "NoKeys"))
    if not usable:
        first = plan.key_problems[0] if plan.key_problems else None
        reason = first.reason if first else ClusterReason.NO_KEYS
        return Condition("Ready", "False", reason, wrong or (first.message if first else "has no usable key"))
    if left_out:
        return Condition("Ready", "False", ClusterReason.GATEWAYS_FULL, TENANT_LEFT_OUT)
    keys = f"{usable} key{'' if usable == 1 else 's'}"
    if not plan.models:
        return Condition("Ready", "True", ClusterReason.NO_MODELS, _also(f"{keys}, and no model that it sees", wrong))
    models = f"{len(plan.models)} model{'' if len(plan.models) == 1 else 's'}"
    if models_left_out:
        models += f", of which gateways have no room for {models_left_out}; each of them says so"
    return Condition("Ready", "True", Reason.READY, _also(f"{keys}, {models}", wrong))


def _also(said: str, wrong: str) -> str:
    return f"{said}; {wrong}" if wrong else said


def invalid_status(
    types: Sequence[ConditionType],
    problems: Sequence[str],
    *,
    generation: int,
    previous: Mapping[str, Any] | None,
    now: str,
) -> Status:
    """Of an object that the API server took and nobody can read. `types` are the conditions of its kind.

    `problems` name field, value and what is allowed, each in a line.
    """
    message = "; ".join(problems)
    found = [
        Condition(
            type_, "Unknown" if type_ not in ("Accepted", "Ready") else "False", ClusterReason.INVALID_SPEC, message
        )
        for type_ in types
    ]
    return {"observedGeneration": generation, "conditions": dated(found, previous, generation=generation, now=now)}
