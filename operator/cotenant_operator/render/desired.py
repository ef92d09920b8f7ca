"""PoolPlan → the conductor's desired state. Pure."""

from cotenant_operator.planned import ModelPlan, PoolPlan
from cotenant_serving.contract import Desired, DesiredModel


def render_desired(pool: PoolPlan, *, generation: int) -> Desired:
    """Every model of the pool, refused ones with their reason, so that status and gateway can name it."""
    return Desired(
        generation=generation,
        pool=pool.name,
        groups=pool.groups,
        models=tuple(_model(model) for model in sorted(pool.models, key=lambda model: model.name)),
    )


def _model(model: ModelPlan) -> DesiredModel:
    return DesiredModel(
        name=model.name,
        engine=model.engine,
        refused=model.refusal.reason if model.refusal else None,
        message=model.refusal.message if model.refusal else "",
        min_engines=model.min_engines,
        max_engines=model.max_engines,
        idle_after_s=model.idle_after_s,
    )
