"""What must be known of a model before it may run: sizes from config.json and safetensors headers. Pure."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotenant_cache.errors import (
    CorruptWeightsError,
    FileMissingError,
    UnsafeFilesError,
    UnsupportedArchitectureError,
)
from cotenant_cache.headers import WeightsHeader

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")
_DTYPE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "half": 2, "bfloat16": 2, "float": 4, "double": 8}
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class WeightsFile:
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Sizes of one model at one revision. `weights_bytes` is as loaded: floats in `dtype`, the rest as stored."""

    source: str
    """What it resolved to: `file:///dir`, or `hf://repo@commit` with all 40 hex digits."""
    fingerprint: str
    """Changes when a file does: from names, sizes and times, or the commit."""
    architecture: str
    weights_bytes: int
    num_parameters: int
    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    dtype: str
    dtype_bytes: int
    max_position_embeddings: int
    """0 when the model names no limit."""
    files: tuple[WeightsFile, ...] = ()
    """The weights files that are loaded."""

    @property
    def generates(self) -> bool:
        """Whether it is a causal language model, which `generate` serves."""
        return self.architecture.endswith(("ForCausalLM", "LMHeadModel"))


def facts_from(
    *,
    source: str,
    fingerprint: str,
    config: Mapping[str, Any],
    headers: Sequence[WeightsHeader],
    files: Iterable[WeightsFile],
) -> ModelFacts:
    """config.json and the headers of all weights files → facts. Raises CacheError."""
    refuse_own_code(config, source=source, file="config.json")
    text = config.get("text_config")
    text = {**config, **text} if isinstance(text, Mapping) else config
    dtype = _dtype(config, text)
    hidden = _size(text, source, "hidden_size", "n_embd", "d_model")
    heads = _size(text, source, "num_attention_heads", "n_head")
    return ModelFacts(
        source=source,
        fingerprint=fingerprint,
        architecture=_architecture(config, source),
        weights_bytes=_loaded_bytes(headers, _DTYPE_BYTES[dtype]),
        num_parameters=sum(sum(header.parameters_by_dtype.values()) for header in headers),
        layers=_size(text, source, "num_hidden_layers", "n_layer"),
        hidden_size=hidden,
        intermediate_size=_size(text, source, "intermediate_size", "n_inner", default=4 * hidden),
        attention_heads=heads,
        kv_heads=_size(text, source, "num_key_value_heads", "num_kv_heads", default=heads),
        head_dim=_head_dim(text, source, hidden // heads),
        vocab_size=_size(text, source, "vocab_size"),
        dtype=dtype,
        dtype_bytes=_DTYPE_BYTES[dtype],
        max_position_embeddings=_size(
            text, source, "max_position_embeddings", "n_positions", "max_seq_len", default=0
        ),
        files=tuple(files),
    )


def refuse_own_code(config: Mapping[str, Any], *, source: str, file: str) -> None:
    """Raises UnsafeFilesError when the file asks for Python code that comes with the model."""
    if config.get("auto_map"):
        raise UnsafeFilesError(
            f"{source}: {file} has auto_map, which runs Python code that comes with the model; that is never run. "
            "Use a model that transformers implements itself; if this one is, remove auto_map from a local copy"
        )


def choose_weights(names: Iterable[str], *, source: str) -> str:
    """The file to begin with: `model.safetensors`, else its index, which is also transformers' order.

    Raises UnsafeFilesError or FileMissingError.
    """
    present = sorted(names)
    for wanted in (SINGLE_FILE, INDEX_FILE):
        if wanted in present:
            return wanted
    other = [name for name in present if name.endswith(".safetensors")]
    if other:
        raise FileMissingError(f"{source}: has {other[0]} but neither {SINGLE_FILE} nor {INDEX_FILE}; save it again")
    pickles = [name for name in present if name.endswith(_PICKLES)]
    if pickles:
        raise UnsafeFilesError(
            f"{source}: {pickles[0]} may run code when it is read, and there is no safetensors file; "
            "convert it with save_pretrained(..., safe_serialization=True)"
        )
    raise FileMissingError(f"{source}: has no {SINGLE_FILE} and no {INDEX_FILE}; copy the weights there")


def shards_of(index: Mapping[str, Any], *, source: str) -> tuple[str, ...]:
    """Names of the files that model.safetensors.index.json lists. Raises CorruptWeightsError, UnsafeFilesError."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise CorruptWeightsError(f"{source}: {INDEX_FILE} has no weight_map; download it again")
    shards = sorted({str(name) for name in weight_map.values()})
    for name in shards:
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise UnsafeFilesError(
                f"{source}: {INDEX_FILE} names {name!r}, which is no safetensors file beside it; "
                "get the model again from a source that you trust"
            )
    return tuple(shards)


def fingerprint_of(parts: Iterable[tuple[str, int, int]]) -> str:
    """(name, bytes, time in ns) of each file → 16 hex digits."""
    digest = hashlib.sha256()
    for name, size, modified_ns in sorted(parts):
        digest.update(f"{name}\0{size}\0{modified_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _architecture(config: Mapping[str, Any], source: str) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise UnsupportedArchitectureError(
            f"{source}: config.json names no architecture ('architectures'); save the model with save_pretrained"
        )
    return str(names[0])


def _size(config: Mapping[str, Any], source: str, *names: str, default: int | None = None) -> int:
    """The first of these fields that is set."""
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UnsupportedArchitectureError(
                f"{source}: config.json has {name} = {value!r}, not a size of at least 1"
            )
        return value
    if default is None:
        raise UnsupportedArchitectureError(
            f"{source}: config.json has none of {', '.join(names)}, so its memory cannot be estimated; "
            "language models in Hugging Face format are served"
        )
    return default


def _head_dim(config: Mapping[str, Any], source: str, otherwise: int) -> int:
    """Latent attention (`qk_nope_head_dim`) caches keys of both parts; the wider of key and value counts."""
    nope = config.get("qk_nope_head_dim")
    if isinstance(nope, int):
        return nope + _size(config, source, "qk_rope_head_dim", default=0)
    return _size(config, source, "head_dim", default=max(1, otherwise))


def _dtype(*configs: Mapping[str, Any]) -> str:
    """The dtype that weights are loaded in. When config.json names none, engines on the CPU load float32; on a
    GPU they load half of that, and the estimate is an upper bound."""
    for config in configs:
        for name in ("dtype", "torch_dtype"):
            value = str(config.get(name, "")).removeprefix("torch.")
            if value in _DTYPE_BYTES:
                return value
    return "float32"


def _loaded_bytes(headers: Sequence[WeightsHeader], dtype_bytes: int) -> int:
    total = 0
    for header in headers:
        for dtype, stored_bytes in header.bytes_by_dtype.items():
            floats = dtype in _FLOATS
            total += header.parameters_by_dtype[dtype] * dtype_bytes if floats else stored_bytes
    return total
