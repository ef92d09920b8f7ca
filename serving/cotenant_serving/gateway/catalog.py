"""Which model a name means for a tenant. Pure; a model that a tenant does not see does not exist for it."""

from typing import Any

from cotenant_serving.contract_gateway import GatewayModel
from cotenant_serving.gateway.config import TenantView
from cotenant_serving.gateway.errors import error


def resolve(view: TenantView, requested: str) -> GatewayModel:
    """`namespace/name`, or `name` where exactly one visible model has it or has claimed it.

    Raises RequestError: 404 when unknown or not visible (the same answer), 400 when several have the name.
    """
    model = view.named.get(requested)
    if model is not None:
        return model
    if candidates := view.bare.get(requested):
        raise error("ambiguous_model", f"Model '{requested}' may be any of: {', '.join(candidates)}.", param="model")
    raise error("model_not_found", f"Model '{requested}' does not exist or is not visible to you.", param="model")


def model_object(view: TenantView, model: GatewayModel) -> dict[str, Any]:
    """OpenAI's model object; the id is the shortest name that means it for the tenant."""
    namespace, _, short = model.name.partition("/")
    return {
        "id": short if view.bare.get(short) == (model.name,) else model.name,
        "object": "model",
        "created": model.created,
        "owned_by": namespace,
    }


def listing(view: TenantView) -> dict[str, Any]:
    """Answer of GET /v1/models."""
    return {"object": "list", "data": [model_object(view, model) for model in view.models.values()]}
