"""Model folders on this machine: the only code here that reads them. Nothing is written or executed.

Whatever the operating system says against reading becomes a CacheError with path, cause and next step.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
_CAUSES = {
    errno.ENOENT: ("does not exist", "check the path and its symbolic links"),
    errno.ENOTDIR: ("lies below a file, not below a folder", "check the path"),
    errno.ELOOP: ("goes round in a loop of symbolic links", "replace the link by what it should point to"),
    errno.ENAMETOOLONG: ("is longer than the file system allows", "check the path"),
    errno.EACCES: ("may not be read", "let this user read it, and enter every folder above it"),
    errno.EIO: ("cannot be read: the disk reports an error", "check the disk"),
}


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
    headers, files = [], []
    for name in _weights(folder, names, source):
        header, size_bytes = read_header(folder / name)
        headers.append(header)
        files.append(WeightsFile(name, size_bytes))
    return facts_from(
        source=source,
        fingerprint=fingerprint or _fingerprint(folder, names, source),
        config=config,
        headers=headers,
        files=files,
    )


def read_header(file: Path) -> tuple[WeightsHeader, int]:
    """Header of one safetensors file, checked against the file's length, and that length in bytes.

    Raises FileMissingError, CorruptWeightsError.
    """
    with _readable(file), file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = header_length(stream.read(PREFIX_BYTES), file=str(file), file_bytes=size)
        header = stream.read(length)
    return parse_header(header, file=str(file), file_bytes=size), size


@contextmanager
def _readable(path: Path, source: str = "") -> Iterator[None]:
    """Raises FileMissingError for whatever the operating system has against reading `path`."""
    try:
        yield
    except OSError as error:
        cause, step = _explained(error)
        raise FileMissingError(f"{source}{': ' if source else ''}{path} {cause}; {step}") from None


def _explained(error: OSError) -> tuple[str, str]:
    """What is wrong with the path, and the next step."""
    known = _CAUSES.get(error.errno or 0)
    return known or (f"cannot be read: {error.strerror or error}", "check the path and its permissions")


def _file_names(folder: Path, source: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError as error:
        cause, step = _explained(error)
    except ValueError as error:  # a null byte, or characters that no file name has
        cause, step = f"is no path: {error}", "check the path"
    if os.path.isfile(folder):
        cause = "is a file, not a folder"
    raise ModelNotFoundError(
        f"{source}: {folder} {cause}; {step}; spec.model names the folder that holds config.json"
    )


def _weights(folder: Path, names: frozenset[str], source: str) -> tuple[str, ...]:
    first = choose_weights(names, source=source)
    if first == SINGLE_FILE:
        return (first,)
    shards = shards_of(_read_json(folder / INDEX_FILE, source), source=source)
    missing = [name for name in shards if not os.path.lexists(folder / name)]
    if missing:
        raise FileMissingError(
            f"{source}: {INDEX_FILE} lists {len(shards)} files, {len(missing)} of them are not there, "
            f"first {missing[0]}; copy or download them"
        )
    return shards


def _read_json(file: Path, source: str) -> dict[str, Any]:
    with _readable(file, source), file.open("rb") as stream:
        content = stream.read(_MAX_JSON_BYTES + 1)
    if len(content) > _MAX_JSON_BYTES:
        raise CorruptWeightsError(f"{source}: {file.name} has more than {_MAX_JSON_BYTES} bytes; it is damaged")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise CorruptWeightsError(f"{source}: {file.name} is not JSON; download it again") from None
    if not isinstance(value, dict):
        raise CorruptWeightsError(f"{source}: {file.name} is not a JSON object; download it again")
    return value


def _fingerprint(folder: Path, names: frozenset[str], source: str) -> str:
    """Over everything that an engine may read. Links that lead nowhere are left out: nothing can be read there."""
    kept = (".safetensors", ".json", ".model", ".txt", ".jinja")
    parts = []
    for name in names:
        if name.endswith(kept) and os.path.exists(folder / name):
            with _readable(folder / name, source):
                stat = (folder / name).stat()
            parts.append((name, stat.st_size, stat.st_mtime_ns))
    return fingerprint_of(parts)
