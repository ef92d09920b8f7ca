"""Model folders on this machine: the only code here that reads them. Nothing is written or executed.

Whatever the operating system says against reading becomes a CacheError with path, cause and next step.
"""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotenant_cache.archive import archive_bytes
from cotenant_cache.errors import CorruptWeightsError, FileMissingError, ModelNotFoundError
from cotenant_cache.facts import ModelFacts
from cotenant_cache.headers import PREFIX_BYTES, WeightsHeader, header_length, parse_header
from cotenant_cache.layout import ARCHIVE_SUFFIX, fingerprint_of
from cotenant_cache.modules import MODULES_FILE
from cotenant_cache.reading import MAX_JSON_BYTES, read_contents, read_facts, small_files

_CAUSES = {
    errno.ENOENT: ("does not exist", "check the path and its symbolic links"),
    errno.ENOTDIR: ("lies below a file, not below a folder", "check the path"),
    errno.ELOOP: ("goes round in a loop of symbolic links", "replace the link by what it should point to"),
    errno.ENAMETOOLONG: ("is longer than the file system allows", "check the path"),
    errno.EACCES: ("may not be read", "let this user read it, and enter every folder above it"),
    errno.EIO: ("cannot be read: the disk reports an error", "check the disk"),
}


def folder_facts(folder: Path, *, source: str, fingerprint: str = "") -> ModelFacts:
    """A folder in Hugging Face format, or with one torch.export archive → checked facts.

    `fingerprint` replaces the one made from sizes and times (for a commit, which says more).
    Raises CacheError: any of its kinds except HubUnreachableError.
    """
    files = _Folder(folder, source, _file_names(folder, source))
    return read_facts(files, source=source, fingerprint=fingerprint or _fingerprint(files))


def folder_wanted(folder: Path, *, source: str) -> tuple[str, ...]:
    """Names of the files that an engine may read there, as `hub.wanted` has them of a hub's. Raises CacheError."""
    own = _file_names(folder, source)
    files = _Folder(folder, source, own | _names_below(folder, own))
    contents = read_contents(files)
    return (*small_files(files.names, contents), *contents.weights)


@dataclass(frozen=True, slots=True)
class _Folder:
    """ModelFiles of a folder."""

    path: Path
    source: str
    names: frozenset[str]

    def json(self, name: str) -> Any:
        return _read_json(self.path / name, self.source)

    def headers(self, names: Sequence[str]) -> list[tuple[WeightsHeader, int]]:
        return [read_header(self.path / name) for name in names]

    def archive(self, name: str) -> tuple[int, int]:
        file = self.path / name
        with _readable(file, self.source), file.open("rb") as stream:
            return archive_bytes(stream, file=str(file)), os.fstat(stream.fileno()).st_size


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
        own = frozenset(os.listdir(folder))
        return own | _names_below(folder, own) if MODULES_FILE in own else own
    except OSError as error:
        cause, step = _explained(error)
    except ValueError as error:  # a null byte, or characters that no file name has
        cause, step = f"is no path: {error}", "check the path"
    if os.path.isfile(folder):
        cause = "is a file, not a folder"
    raise ModelNotFoundError(
        f"{source}: {folder} {cause}; {step}; spec.model names the folder that holds config.json"
    )


def _names_below(folder: Path, own: frozenset[str]) -> frozenset[str]:
    """`1_Pooling/config.json` and its like; a folder that may not be listed counts as empty."""
    found: list[str] = []
    for name in own:
        with suppress(OSError):
            found += [f"{name}/{inner}" for inner in os.listdir(folder / name)]
    return frozenset(found)


def _read_json(file: Path, source: str) -> Any:
    with _readable(file, source), file.open("rb") as stream:
        content = stream.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise CorruptWeightsError(
            f"{source}: {file.name} has more than {MAX_JSON_BYTES} bytes; it is damaged: fetch the model again"
        )
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise CorruptWeightsError(f"{source}: {file.name} is not JSON; download it again") from None


def _fingerprint(files: _Folder) -> str:
    """Over everything that an engine may read. Links that lead nowhere are left out: nothing can be read there."""
    kept = (".safetensors", ".json", ".model", ".txt", ".jinja", ARCHIVE_SUFFIX)
    parts = []
    for name in files.names:
        path = files.path / name
        if name.endswith(kept) and os.path.exists(path):
            with _readable(path, files.source):
                stat = path.stat()
            parts.append((name, stat.st_size, stat.st_mtime_ns))
    return fingerprint_of(parts)
