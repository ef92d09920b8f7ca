"""What lies on a volume, as its folders and links say it. Reads only."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CONTROL = ".cotenant"
"""Folder of the volume that is ours alone."""
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A repository's folder as it is on the disk."""

    repo: str
    commits: Mapping[str, Mapping[str, str]]
    """Commit → {name: digest}, of links that lead to blobs by their names, there or not."""
    refs: Mapping[str, str]
    blobs: Mapping[str, int]
    """Digest → bytes."""
    partials: Mapping[str, int]


def found_model(folder: Path, repo: str, partials: Mapping[str, int]) -> FoundModel:
    """What is neither a blob by its name nor a link to one is passed over."""
    blobs = {
        file.name: size
        for file in entries(folder / "blobs")
        if _DIGEST.fullmatch(file.name) and (size := size_of(file)) is not None
    }
    commits = {
        path.name: {name: digest for name, digest in names_in(path).items() if digest}
        for path in entries(folder / "snapshots")
        if _COMMIT.fullmatch(path.name)
    }
    return FoundModel(repo, commits, revisions_in(folder / "refs"), blobs, partials)


def revisions_in(refs: Path) -> dict[str, str]:
    """Branches and tags, and their commits."""
    found = {}
    for folder, _, names in os.walk(refs):
        for name in names:
            path = Path(folder) / name
            if _COMMIT.fullmatch(commit := text_of(path)):
                found[str(path.relative_to(refs))] = commit
    return found


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


def names_in(snapshot: Path) -> dict[str, str]:
    """Everything in it that is no folder of its own → the digest that its link leads to; empty: to no blob."""
    found = {}
    for folder, folders, names in os.walk(snapshot):
        for path in (Path(folder) / name for name in (*names, *folders)):
            if path.is_symlink() or path.name in names:
                found[str(path.relative_to(snapshot))] = _digest_behind(path)
    return found


def _digest_behind(path: Path) -> str:
    """Of a link that leads to a blob by its name, there or not."""
    try:
        to = Path(os.readlink(path))
    except OSError:
        return ""
    return to.name if to.parent.name == "blobs" and _DIGEST.fullmatch(to.name) else ""


def entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # what we may not list is not ours
        return []


def size_of(path: Path) -> int | None:
    """Of a plain file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size if (status.st_mode & 0o170000) == 0o100000 else None


def text_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
