"""Model folders on this machine: the only code here that reads them. Nothing is written or executed."""

import json
from pathlib import Path
from typing import Any

from cotenant_cache.errors import CorruptWeightsError, FileMissingError, ModelNotFoundError
from cotenant_cache.facts import (
    INDEX_FILE,
    SINGLE_FILE,
    ModelFacts,
    WeightsFile,
    choose_weights,
    facts_from,
    fingerprint_of,
    refuse_own_code,
    shards_of,
)
from cotenant_cache.headers import PREFIX_BYTES, WeightsHeader, header_length, parse_header

_MAX_JSON_BYTES = 64 * 2**20


def folder_facts(folder: Path, *, source: str, fingerprint: str = "") -> ModelFacts:
    """A folder in Hugging Face format → checked facts.

    `fingerprint` replaces the one made from sizes and times (for a commit, which says more).
    Raises CacheError: any of its kinds except HubUnreachableError.
    """
    names = _file_names(folder, source)
    if "config.json" not in names:
        raise FileMissingError(f"{source}: has no config.json; give the folder that save_pretrained wrote")
    config = _read_json(folder / "config.json", source)
    refuse_own_code(config, source=source, file="config.json")
    if "tokenizer_config.json" in names:
        tokenizer = _read_json(folder / "tokenizer_config.json", source)
        refuse_own_code(tokenizer, source=source, file="tokenizer_config.json")
    files = [folder / name for name in _weights(folder, names, source)]
    return facts_from(
        source=source,
        fingerprint=fingerprint or _fingerprint(folder, names),
        config=config,
        headers=[read_header(file) for file in files],
        files=[WeightsFile(file.name, file.stat().st_size) for file in files],
    )


def read_header(file: Path) -> WeightsHeader:
    """Header of one safetensors file, checked against the file's length. Raises CorruptWeightsError."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = header_length(stream.read(PREFIX_BYTES), file=str(file), file_bytes=size)
            header = stream.read(length)
    except OSError as error:
        raise CorruptWeightsError(
            f"{file}: cannot be read: {error.strerror}; check the disk and its permissions"
        ) from None
    return parse_header(header, file=str(file), file_bytes=size)


def _file_names(folder: Path, source: str) -> frozenset[str]:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ModelNotFoundError(f"{source}: {folder} {what}; give the folder that holds config.json")
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise ModelNotFoundError(
            f"{source}: {folder} cannot be read: {error.strerror}; allow this user to read it"
        ) from None


def _weights(folder: Path, names: frozenset[str], source: str) -> tuple[str, ...]:
    first = choose_weights(names, source=source)
    if first == SINGLE_FILE:
        return (first,)
    shards = shards_of(_read_json(folder / INDEX_FILE, source), source=source)
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise FileMissingError(
            f"{source}: {INDEX_FILE} lists {len(shards)} files, {len(missing)} of them are not there, "
            f"first {missing[0]}; copy or download them"
        )
    return shards


def _read_json(file: Path, source: str) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MAX_JSON_BYTES:
            raise CorruptWeightsError(f"{source}: {file.name} has more than {_MAX_JSON_BYTES} bytes; it is damaged")
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise FileMissingError(f"{source}: {file.name} cannot be read: {error.strerror}; check the file") from None
    except (ValueError, RecursionError):
        raise CorruptWeightsError(f"{source}: {file.name} is not JSON; download it again") from None
    if not isinstance(value, dict):
        raise CorruptWeightsError(f"{source}: {file.name} is not a JSON object; download it again")
    return value


def _fingerprint(folder: Path, names: frozenset[str]) -> str:
    """Over everything that an engine may read."""
    kept = (".safetensors", ".json", ".model", ".txt", ".jinja")
    stats = [(name, (folder / name).stat()) for name in names if name.endswith(kept) and (folder / name).exists()]
    return fingerprint_of((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
