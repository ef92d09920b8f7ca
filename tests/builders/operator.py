"""Objects and facts for tests of the operator and the cache, each with everything set and any of it overridable."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.objects import Manifests, World
from cotenant_operator.spec import GPUPool, ModelDeployment, Secret, Tenant

SOURCE = "hf://org/small"
KEY = "0123456789abcdef0123456789abcdef"

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "dtype": "float32",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "vocab_size": 256,
}


def model(name: str = "small", *, namespace: str = "default", **spec: Any) -> ModelDeployment:
    metadata = {"name": name, "namespace": namespace}
    source = {} if spec.get("task") == "echo" else {"model": SOURCE}
    return ModelDeployment.model_validate({"metadata": metadata, "spec": {**source, **spec}})


def tenant(name: str = "search", *, namespaces: tuple[str, ...] = ("default",), **spec: Any) -> Tenant:
    keys = [{"secretRef": {"name": f"{name}-key", "key": "token"}}]
    return Tenant.model_validate(
        {"metadata": {"name": name}, "spec": {"namespaces": list(namespaces), "keys": keys, **spec}}
    )


def secret(tenant_name: str = "search", key: str = KEY, *, namespace: str = "default") -> Secret:
    return Secret.model_validate(
        {"metadata": {"name": f"{tenant_name}-key", "namespace": namespace}, "stringData": {"token": key}}
    )


def worker(name: str = "cpu", *, device: str = "cpu", memory: str = "8Gi", **fields: Any) -> dict[str, Any]:
    return {"name": name, "device": device, "memory": memory, **fields}


def pool(
    *workers: Mapping[str, Any], name: str = "default", namespaces: tuple[str, ...] = ("*",), **more: Any
) -> GPUPool:
    """`more`: fields of its spec."""
    spec = {"workers": list(workers or [worker()]), "namespaces": list(namespaces), **more}
    return GPUPool.model_validate({"metadata": {"name": name}, "spec": spec})


def facts(**fields: Any) -> ModelFacts:
    """A model of 1 GiB with 64 KiB of KV cache a token: 2 × 16 layers × 8 KV heads × 128 × 2 bytes."""
    given: dict[str, Any] = {
        "source": "hf://org/small@" + "a" * 40,
        "fingerprint": "a" * 40,
        "architecture": "LlamaForCausalLM",
        "weights_bytes": 2**30,
        "num_parameters": 2**29,
        "layers": 16,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "attention_heads": 32,
        "kv_heads": 8,
        "head_dim": 128,
        "vocab_size": 32000,
        "dtype": "bfloat16",
        "dtype_bytes": 2,
        "max_position_embeddings": 8192,
    }
    return ModelFacts(**{**given, **fields})


def world(
    *objects: ModelDeployment | Tenant | GPUPool | Secret,
    known: Mapping[str, ModelFacts | CacheError] | None = None,
) -> World:
    """The objects, with a CPU pool of 8 GiB unless one is given, and facts of the one source the builders use."""
    pools = tuple(item for item in objects if isinstance(item, GPUPool)) or (pool(),)
    return World(
        Manifests(
            models=tuple(item for item in objects if isinstance(item, ModelDeployment)),
            tenants=tuple(item for item in objects if isinstance(item, Tenant)),
            secrets=tuple(item for item in objects if isinstance(item, Secret)),
            pools=pools,
        ),
        {SOURCE: facts()} if known is None else known,
    )


def safetensors(tensors: Mapping[str, tuple[str, list[int], int]] | None = None) -> bytes:
    """name → (dtype, shape, bytes) → a whole file, its tensors all zero."""
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape, size) in (tensors or {"weight": ("F32", [4, 8], 128)}).items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + bytes(end)


def model_folder(folder: Path, *, weights: bytes | None = None, **config: Any) -> Path:
    """A model in Hugging Face format with one tiny tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "model.safetensors").write_bytes(safetensors() if weights is None else weights)
    return folder
