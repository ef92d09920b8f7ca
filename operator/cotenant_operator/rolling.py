"""Which RayCluster of a pool is as wanted, which ones go, and what is next: a pure function of what is there now.

A pool has one RayCluster, and two while it rolls. When pods must be new, a second one is made, loads what is warm,
takes over and is the only one again. Whatever interrupts that, the next look goes on from what it finds: an operator
that was killed, a template that was edited once more, or back to what it was (then the old RayCluster is the target
again, and the new one goes in the same way). With a third template, the one of the two that serves less goes first:
there are never three, but for those that are being deleted.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from cotenant_operator.cluster_names import raycluster_name
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.render.pool_template import PoolTemplate, TemplateChange, compare
from cotenant_operator.render.raycluster import pool_template
from cotenant_operator.roll_progress import SERVES, Progress, answers, progress, warm_models
from cotenant_operator.roll_world import ClusterSeen, Create, Delete, Note, Roll, Step, Told
from cotenant_operator.spec import GPUPool

Routed = Collection[str]
"""Names of the RayClusters that stand in the gateways' configuration now."""


def plan_roll(
    pool: GPUPool, settings: OperatorSettings, seen: Sequence[ClusterSeen], routed: Routed | None, now_s: float
) -> Roll:
    """`seen`: all RayClusters of the pool. `routed` None: nobody knows what gateways follow."""
    wanted = pool_template(pool, settings)
    return roll_to(wanted, pool.metadata.name, seen, routed, drain_s=settings.roll_drain_s, now_s=now_s)


def roll_to(
    wanted: PoolTemplate,
    pool: str,
    seen: Sequence[ClusterSeen],
    routed: Routed | None,
    *,
    drain_s: float,
    now_s: float,
) -> Roll:
    """The same for a template. `drain_s`: the longest that an old RayCluster may finish its requests."""
    alive = sorted((item for item in seen if not item.deleting), key=lambda item: (item.created_s, item.name))
    if routed is not None and not any(cluster.name in routed for cluster in alive):
        routed = None  # a configuration that was lost and begun anew: gateways may follow any of them still
    target = _as_wanted(alive, wanted, routed)
    if target is not None:
        return _towards(target, alive, routed, drain_s=drain_s, now_s=now_s)
    name = raycluster_name(pool, wanted.hash, [cluster.name for cluster in seen])
    if len(alive) < 2:
        return _begin(name, wanted, alive)
    roll = _towards(_stays(alive), alive, routed, drain_s=drain_s, now_s=now_s)
    return replace(roll, target=name, message=f"{roll.message}; then {name} is made")


def what_needs_new_pods(change: TemplateChange) -> str:
    """For `cotenant plan` and a condition: `head, group shared`; empty when nothing does."""
    return ", ".join(change.new_pods)


def _as_wanted(alive: Sequence[ClusterSeen], wanted: PoolTemplate, routed: Routed | None) -> ClusterSeen | None:
    """The one that gateways follow, of those whose pods need not be new; else the oldest."""
    fitting = [cluster for cluster in alive if not compare(cluster.template, wanted).new_pods]
    return min(fitting, key=lambda cluster: not _may_serve(cluster, routed), default=None)


def _begin(name: str, wanted: PoolTemplate, alive: Sequence[ClusterSeen]) -> Roll:
    if not alive:
        return Roll(name, "Starting", f"making {name}", (Create(name),), told={name: SERVES}, routed=(name,))
    (old,) = alive
    why = what_needs_new_pods(compare(old.template, wanted))
    return Roll(
        target=name,
        phase="Starting",
        message=f"new pods are needed ({why}): making {name}; {old.name} serves",
        steps=(Create(name), *_forgotten(old)),
        told={old.name: SERVES},
        routed=(old.name,),
    )


def _stays(alive: Sequence[ClusterSeen]) -> ClusterSeen:
    """The one that serves while another goes: it answers, others hand over to it, it has the most engines."""
    targets = {cluster.handover.target for cluster in alive if cluster.handover is not None}
    return max(
        alive,
        key=lambda cluster: (answers(cluster), cluster.name in targets, sum(warm_models(cluster).values())),
    )


def _towards(
    target: ClusterSeen, alive: Sequence[ClusterSeen], routed: Routed | None, *, drain_s: float, now_s: float
) -> Roll:
    others = [cluster for cluster in alive if cluster is not target]
    useless = [cluster for cluster in others if not _may_serve(cluster, routed)]
    steps: list[Step] = [*_forgotten(target)]
    steps += [Delete(cluster.name, f"no gateway follows {cluster.name}") for cluster in useless]
    serving = [cluster for cluster in others if _may_serve(cluster, routed)]
    if not serving:
        return Roll(
            target=target.name,
            phase="TakingBack" if useless else "Settled",
            message=", ".join(f"{cluster.name} goes: no gateway follows it" for cluster in useless),
            steps=tuple(steps),
            told={target.name: SERVES},
            routed=(target.name,),
        )
    follows = routed is not None and target.name in routed
    found = {
        cluster.name: progress(cluster, target, routed=follows, drain_s=drain_s, now_s=now_s) for cluster in serving
    }
    return _together(target, found, steps, follows=follows)


def _together(target: ClusterSeen, found: dict[str, Progress], steps: Sequence[Step], *, follows: bool) -> Roll:
    first = next(iter(found.values()))
    warm: dict[str, int] = {}
    for item in found.values():
        for model, engines in item.warm.items():
            warm[model] = warm.get(model, 0) + engines
    more = [step for item in found.values() for step in item.steps]
    gone = {step.name for step in more if isinstance(step, Delete)}
    waits = [item.look_again_s for item in found.values() if item.look_again_s is not None]
    takes_over = follows or any(item.route for item in found.values())
    return Roll(
        target=target.name,
        phase=first.phase,
        message=first.message,
        steps=(*steps, *more),
        told={target.name: Told(warm=warm), **{name: item.told for name, item in found.items() if name not in gone}},
        routed=(*(name for name in found if name not in gone), *((target.name,) if takes_over else ())),
        leaving=tuple(name for name, item in found.items() if item.leaving and name not in gone),
        look_again_s=min(waits, default=None),
    )


def _forgotten(cluster: ClusterSeen) -> tuple[Step, ...]:
    """It is wanted: that it was on its way out is over."""
    return (Note(cluster.name, None),) if cluster.handover is not None else ()


def _may_serve(cluster: ClusterSeen, routed: Routed | None) -> bool:
    return routed is None or cluster.name in routed
