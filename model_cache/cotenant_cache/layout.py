"""Names of the files of a model → which of them are read, and what changes when one of them does. Pure."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cotenant_cache.errors import (
    CorruptWeightsError,
    FileMissingError,
    UnsafeFilesError,
    UnsupportedArchitectureError,
)

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ARCHIVE_SUFFIX = ".pt2"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")


def choose_archive(names: Collection[str], *, source: str) -> str:
    """The one torch.export archive of a folder that has no safetensors weights; empty for any other folder.

    Raises UnsupportedArchitectureError when there are several.
    """
    archives = sorted(name for name in names if name.endswith(ARCHIVE_SUFFIX) and "/" not in name)
    if not archives or SINGLE_FILE in names or INDEX_FILE in names:
        return ""
    if len(archives) > 1:
        raise UnsupportedArchitectureError(
            f"{source}: has {len(archives)} archives ({', '.join(archives)}); one model is served from a folder: "
            "put each into a folder of its own"
        )
    return archives[0]


def choose_dense(names: Collection[str], folder: str, *, source: str) -> str:
    """The weights of a linear layer after pooling. Raises UnsafeFilesError, FileMissingError."""
    inside = [name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")]
    return f"{folder}/{choose_weights([n for n in inside if n != INDEX_FILE], source=f'{source}: {folder}')}"


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
