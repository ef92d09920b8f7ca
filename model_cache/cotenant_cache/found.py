"""What lies on a volume, as its folders and links say it. Reads only."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CONTROL = ".cotenant"
"""Folder of the volume that is ours alone."""
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TO_BLOB = re.compile(rf"(?:.*/)?blobs(?:/+\.)*/+({_DIGEST.pattern})", re.DOTALL)
_REF = re.compile(rb"\s*([0-9a-f]{40})\s*")
_REF_BYTES = 256
_NOT_OURS = (FileNotFoundError, NotADirectoryError, PermissionError)
"""What we may not list is not ours."""


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A repository's folder as it is on the disk."""

    repo: str
    commits: Mapping[str, Mapping[str, str]]
    """Commit → {name: digest}, of links that lead to blobs by their names, there or not."""
    blobs: Mapping[str, int]
    """Digest → bytes."""
    partials: Mapping[str, int]


def found_model(folder: Path, repo: str, partials: Mapping[str, int]) -> FoundModel:
    """What is neither a blob by its name nor a link to one is passed over. A name that is no text stands escaped: its
    blob counts, and goes with the model, but nobody is given it."""
    blobs = {
        file.name: size
        for file in _listed(folder / "blobs")
        if _DIGEST.fullmatch(file.name) and (size := _size_of(file)) is not None
    }
    commits = {
        commit.name: {
            escaped(name): digest for name, path in _all_below(commit.path) if (digest := _digest_behind(path))
        }
        for commit in _listed(folder / "snapshots")
        if _COMMIT.fullmatch(commit.name)
    }
    return FoundModel(repo, commits, blobs, partials)


def revisions_in(refs: str | Path) -> dict[str, str]:
    """Branches and tags, and their commits. Read anew each time: other tools write over a file that is there, so that
    the folder's time says nothing, and within a tick of the file's."""
    return {name: commit for name, path in _all_below(refs) if is_text(name) and (commit := _commit_in(path))}


def noted_revisions(root: Path, repo: str) -> dict[str, str]:
    """What branches of a repository were when facts of them were read."""
    return revisions_in(noted_folder(root, repo))


def noted_folder(root: Path, repo: str) -> Path:
    return root / CONTROL / "revisions" / repo_key(repo)


def repo_key(repo: str) -> str:
    return "models--" + repo.replace("/", "--")


def repo_of(key: str) -> str:
    """The hub allows no `--` in names."""
    return key.removeprefix("models--").replace("--", "/")


def names_in(snapshot: str | Path) -> dict[str, str]:
    """Everything in it that is no folder of its own → the digest that its link leads to; empty: to no blob. Without
    what no listing of a hub can have."""
    return {name: _digest_behind(path) for name, path in _all_below(snapshot) if is_text(name)}


def is_text(name: str) -> bool:
    """Names on a disk are bytes; those that are no UTF-8 can stand in no ledger and no message."""
    return name.isascii() or escaped(name) == name


def escaped(name: str) -> str:
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def _all_below(top: str | Path) -> Iterator[tuple[str, str]]:
    """(name below `top`, path) of all that is no folder; links are not followed. Strings: it is for thousands."""
    folders = [(os.fspath(top), "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            with os.scandir(folder) as listed:
                found = list(listed)
        except OSError:
            continue
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, f"{prefix}{entry.name}/"))
            else:
                yield prefix + entry.name, entry.path


def _digest_behind(path: str) -> str:
    """Of a link that leads to a blob by its name, there or not."""
    try:
        leads = _TO_BLOB.fullmatch(os.readlink(path))
    except OSError:
        return ""
    return leads[1] if leads else ""


def entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except _NOT_OURS:
        return []


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    """As `entries`, for thousands."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except _NOT_OURS:
        return []


def size_of(path: Path) -> int | None:
    """Of a plain file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size if (status.st_mode & 0o170000) == 0o100000 else None


def _size_of(entry: os.DirEntry[str]) -> int | None:
    """As `size_of`."""
    try:
        return entry.stat(follow_symlinks=False).st_size if entry.is_file(follow_symlinks=False) else None
    except OSError:
        return None


def _commit_in(path: str) -> str:
    """What a branch's file says; empty: it is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        said = _REF.fullmatch(os.read(descriptor, _REF_BYTES))
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return said[1].decode() if said else ""


def text_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
