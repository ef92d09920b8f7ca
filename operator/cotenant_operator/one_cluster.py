"""A pool's RayCluster as long as nothing rolls: made when there is none. Pure."""

from collections.abc import Collection, Sequence

from cotenant_operator.cluster_names import raycluster_name
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.render.raycluster import template_hash
from cotenant_operator.roll_world import ClusterSeen, Create, Roll, Told
from cotenant_operator.spec import GPUPool


def plan_roll(
    pool: GPUPool,
    settings: OperatorSettings,
    seen: Sequence[ClusterSeen],
    routed: Collection[str] | None,
    now_s: float,
) -> Roll:
    alive = [item.name for item in seen if not item.deleting]
    name = alive[0] if alive else raycluster_name(pool.metadata.name, template_hash(pool, settings))
    return Roll(
        target=name,
        phase="Settled" if alive else "Starting",
        steps=() if alive else (Create(name),),
        told={name: Told()},
        routed=(name,),
    )
