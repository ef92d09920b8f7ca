"""Vectors of tokens → one vector: pooling, linear layers, normalisation. Torch's maths, nothing else."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cotenant_cache.modules import PoolingMode
from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.recipe import Dense, Recipe


def activations() -> Mapping[str, Callable[[Any], Any]]:
    """By the names of `recipe.ACTIVATIONS`."""
    import torch
    from torch.nn import functional

    return {
        "identity": lambda values: values,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "relu": functional.relu,
        "gelu": functional.gelu,
        "silu": functional.silu,
    }


def pool(hidden: Any, mask: Any, modes: Sequence[PoolingMode]) -> Any:
    """hidden: (items, longest, size) float32, padded on the right; mask: (items, longest), 1 where a token is.

    Returns (items, size x modes).
    """
    import torch

    lengths = mask.sum(dim=1)
    weights = mask.unsqueeze(-1).to(hidden.dtype)

    def one(mode: PoolingMode) -> Any:
        if mode == "cls":
            return hidden[:, 0]
        if mode == "last_token":
            return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
        if mode == "max":
            return hidden.masked_fill(weights == 0, -torch.inf).amax(dim=1)
        if mode == "weighted_mean":
            places = torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)
            weighted = weights * places.unsqueeze(-1)
            return (hidden * weighted).sum(dim=1) / weighted.sum(dim=1)
        counts = lengths.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / (counts.sqrt() if mode == "mean_sqrt_len" else counts)

    return torch.cat([one(mode) for mode in modes], dim=-1)


class Head:
    """Pooling and what follows it. In float32, whatever the model computes in."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self._modes = recipe.modes
        self._steps = [_dense(step, device) if isinstance(step, Dense) else _normalize for step in recipe.steps]

    def __call__(self, hidden: Any, mask: Any) -> Any:
        """As `pool` → (items, output size) float32."""
        vectors = pool(hidden.float(), mask, self._modes)
        for step in self._steps:
            vectors = step(vectors)
        return vectors


def _normalize(vectors: Any) -> Any:
    from torch.nn import functional

    return functional.normalize(vectors, p=2, dim=-1)


def _dense(step: Dense, device: str) -> Callable[[Any], Any]:
    """Raises LoadError(CorruptWeights)."""
    from safetensors.torch import load
    from torch.nn import functional

    # Read, not mapped: somebody who writes to the file must not change or end what serves.
    tensors = load(step.weights.read_bytes())
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted: dict[str, tuple[int, ...]] = {"linear.weight": (step.out_features, step.in_features)}
    if step.bias:
        wanted["linear.bias"] = (step.out_features,)
    if shapes != wanted:
        raise LoadError(
            Reason.CORRUPT_WEIGHTS,
            f"{step.weights} has the tensors {shapes}, and its config.json asks for {wanted}. Fetch the model again.",
        )
    weight = tensors["linear.weight"].float().to(device)
    bias = tensors["linear.bias"].float().to(device) if step.bias else None
    activate = activations()[step.activation]

    def apply(vectors: Any) -> Any:
        return activate(functional.linear(vectors, weight, bias))

    return apply
