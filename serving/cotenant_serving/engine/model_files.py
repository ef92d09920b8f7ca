"""Checks of a model's folder before anything is loaded from it. Reads headers only; knows no torch."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack")
MAX_HEADER_BYTES = 100_000_000
"""safetensors' own limit."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def check_model_folder(folder: Path) -> dict[str, Any]:
    """Checks files, safety and completeness; returns the parsed config.json.

    Raises LoadError: ModelNotFound, FileMissing, UnsafeFiles, CorruptWeights.
    """
    if not folder.is_dir():
        raise LoadError(
            Reason.MODEL_NOT_FOUND, f"{folder} is not a folder on this machine. Check spec.model and its mount."
        )
    config = _read_json(folder / "config.json")
    _refuse_code(folder, config)
    for path in _weight_files(folder):
        check_safetensors(path)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise _missing(folder / "tokenizer.json", "no tokenizer is in the folder")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise _missing(path, "every model needs it")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(
            Reason.LOAD_FAILED, f"{path} is not JSON: {error}. Fetch the file again from the model's source."
        ) from error
    if not isinstance(value, dict):
        raise LoadError(Reason.LOAD_FAILED, f"{path} is not a JSON object. Fetch it again from the model's source.")
    return value


def _refuse_code(folder: Path, config: Mapping[str, Any]) -> None:
    tokenizer = folder / "tokenizer_config.json"
    contents = {"config.json": config, tokenizer.name: _read_json(tokenizer) if tokenizer.is_file() else {}}
    for name, content in contents.items():
        if content.get("auto_map"):
            raise LoadError(
                Reason.UNSAFE_FILES,
                f"{folder / name} has 'auto_map': the model needs Python code of its own, which is never run. "
                "Use a model whose architecture is part of transformers.",
            )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.is_file():
        return _shards(folder, _read_json(index))
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if pickled:
        raise LoadError(
            Reason.UNSAFE_FILES,
            f"{folder / pickled[0]} is a pickle, which can run code when it is read; only *.safetensors are loaded. "
            "Convert the weights to safetensors, or use a revision that has them.",
        )
    raise _missing(folder / SINGLE, f"the folder has neither it nor {INDEX}")


def _shards(folder: Path, index: Mapping[str, Any]) -> list[Path]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise LoadError(Reason.CORRUPT_WEIGHTS, f"{folder / INDEX} has no 'weight_map'. Fetch the file again.")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise LoadError(
                Reason.UNSAFE_FILES,
                f"{folder / INDEX} names {name!r}, which is not a *.safetensors file of its own folder. "
                "Fetch the model again from a source you trust.",
            )
        if not (folder / name).is_file():
            raise _missing(folder / name, f"{INDEX} names {len(names)} shards and this one is not there")
    return [folder / name for name in names]


def check_safetensors(path: Path) -> None:
    """Header sane, and the file as long as its header says. Raises LoadError(CorruptWeights)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= header_bytes <= min(MAX_HEADER_BYTES, size - 8):
            raise _corrupt(path, f"its header should have {header_bytes} bytes and the file has {size}")
        try:
            header = json.loads(file.read(header_bytes))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + header_bytes + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _corrupt(path, f"its header cannot be read: {type(error).__name__}: {error}") from error
    if size != expected:
        raise _corrupt(path, f"its header says {expected} bytes and the file has {size}")


def weight_bytes(folder: Path) -> int:
    """Size of all weights, bytes."""
    return sum(os.stat(path).st_size for path in _weight_files(folder))


def _missing(path: Path, why: str) -> LoadError:
    return LoadError(Reason.FILE_MISSING, f"{path} is missing: {why}. Fetch the model again, complete.")


def _corrupt(path: Path, why: str) -> LoadError:
    return LoadError(Reason.CORRUPT_WEIGHTS, f"{path} is damaged or cut off: {why}. Delete it and fetch it again.")
