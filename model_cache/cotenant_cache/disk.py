"""The only writes to a volume of the weight cache, and what is seen there.

    models--org--name/{blobs,refs,snapshots}    the plain Hugging Face layout: published files only
    .cotenant/partial/<repo>/<digest>           bytes so far
    .cotenant/quarantine/<digest>.<n>           blobs that did not match their digest
    .cotenant/tmp/                              what is about to get, or has lost, its name; swept by `repair`

Each operation on a name is atomic, and goes through `_step`, which tests use to die before and after it. What changes
names is called inside a transaction of the ledger, so that there is one at a time on a volume.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cotenant_cache.contract import FORMAT
from cotenant_cache.errors import DiskFullError, NewerFormatError, VolumeError

CONTROL = ".cotenant"
Step = Callable[[str], None]
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_QUARANTINED = 4
"""Files that are kept to look at."""


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


@dataclass(frozen=True, slots=True)
class DiskSpace:
    free_bytes: int
    total_bytes: int


class Volume:
    """Makes what it needs below `root`. Raises VolumeError, DiskFullError, NewerFormatError."""

    def __init__(self, root: Path, step: Step = lambda name: None) -> None:
        self.root = root
        self._step_seen = step
        self._control = root / CONTROL
        try:
            for name in ("partial", "quarantine", "tmp", "holders", "flights"):
                (self._control / name).mkdir(parents=True, exist_ok=True)
            self._check_format()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(f"{root}: the disk is full; make room on it") from error
            raise VolumeError(
                f"{root} cannot be used as a weight cache ({error.strerror or error}); let this user write there, or "
                "name another folder"
            ) from error

    def repo_folder(self, repo: str) -> Path:
        """`models--owner--name`, as every Hugging Face tool lays it out."""
        return self.root / repo_key(repo)

    def snapshot(self, repo: str, commit: str) -> Path:
        return self.repo_folder(repo) / "snapshots" / commit

    def blob(self, repo: str, digest: str) -> Path:
        return self.repo_folder(repo) / "blobs" / digest

    def blob_bytes(self, repo: str, digest: str) -> int | None:
        """None: not published."""
        return _size(self.blob(repo, digest))

    def partial_bytes(self, repo: str, digest: str) -> int:
        return _size(self._partial(repo, digest)) or 0

    def partials(self) -> dict[tuple[str, str], int]:
        """(repo, digest) → bytes so far."""
        found = {}
        for folder in _entries(self._control / "partial"):
            for file in _entries(folder):
                size = _size(file)
                if size is not None:
                    found[_repo(folder.name), file.name] = size
        return found

    def quarantined_bytes(self) -> int:
        return sum(_size(file) or 0 for file in _entries(self._control / "quarantine"))

    def disk(self) -> DiskSpace:
        told = os.statvfs(self.root)
        return DiskSpace(told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize)

    def budget(self) -> int | None:
        """Bytes that the volume is set to, for instances that are told nothing else; None: nobody set it."""
        text = _text(self._control / "budget").strip()
        return int(text) if text.isdigit() else None

    def set_budget(self, budget_bytes: int | None) -> None:
        self._write(self._control / "budget", f"{'' if budget_bytes is None else budget_bytes}\n", "budget")

    def open_partial(self, repo: str, digest: str) -> "Partial":
        """Made when there is none. Only the holder of the repository's flight may."""
        path = self._partial(repo, digest)
        with self._step("partial.open"):
            descriptor = _opened(path)
        return Partial(descriptor, path, self._step)

    def publish(self, repo: str, digest: str) -> None:
        """The partial becomes the blob: durable first, then visible, then durably visible."""
        partial, blob = self._partial(repo, digest), self.blob(repo, digest)
        with self._step("publish.sync"):
            _sync(partial)
        with self._step("publish.folder"):
            blob.parent.mkdir(parents=True, exist_ok=True)
        with self._step("publish.rename"):
            os.rename(partial, blob)
        with self._step("publish.sync_folder"):
            _sync(blob.parent)
            _sync(self.repo_folder(repo))
        with suppress(OSError):
            partial.parent.rmdir()

    def link(self, repo: str, commit: str, name: str, digest: str) -> None:
        """`snapshots/<commit>/<name>` → the blob; whatever had that name is replaced."""
        path = self.snapshot(repo, commit) / name
        made = self._tmp()
        with self._step("link.folder"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._step("link.make"):
            os.symlink(os.path.relpath(self.blob(repo, digest), path.parent), made)
        with self._step("link.rename"):
            os.rename(made, path)

    def sync_snapshot(self, repo: str, commit: str) -> None:
        """Its links outlast a loss of power."""
        folder = self.snapshot(repo, commit)
        with self._step("link.sync"):
            for path in (folder, folder.parent, *(entry for entry in _entries(folder) if entry.is_dir())):
                _sync(path)

    def unlink_snapshot(self, repo: str, commit: str) -> None:
        """What refers to it goes first, then all of it at once, so that no tool sees it half."""
        for revision, to in self.revisions(repo).items():
            if to == commit:
                with self._step("unlink.ref"), suppress(FileNotFoundError):
                    (self.repo_folder(repo) / "refs" / revision).unlink()
        self._away(self.snapshot(repo, commit), "unlink.snapshot")

    def record_revision(self, repo: str, revision: str, commit: str) -> None:
        """`refs/main` → commit, as the Hugging Face layout has it."""
        path = self.repo_folder(repo) / "refs" / revision
        if _text(path) == commit:
            return
        with self._step("ref.folder"):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._write(path, commit, "ref")

    def revisions(self, repo: str) -> dict[str, str]:
        """Branches and tags that are recorded, and their commits."""
        refs = self.repo_folder(repo) / "refs"
        found = {}
        for folder, _, names in os.walk(refs):
            for name in names:
                path = Path(folder) / name
                if _COMMIT.fullmatch(commit := _text(path)):
                    found[str(path.relative_to(refs))] = commit
        return found

    def quarantine(self, repo: str, digest: str) -> None:
        """A blob, never to be read again; of those that were kept to look at only the latest stay."""
        folder = self._control / "quarantine"
        with self._step("quarantine.rename"), suppress(FileNotFoundError):
            os.rename(self.blob(repo, digest), folder / f"{digest}.{secrets.token_hex(4)}")
        kept = sorted(_entries(folder), key=lambda path: path.stat().st_ctime_ns, reverse=True)
        for old in kept[_QUARANTINED:]:
            with self._step("quarantine.remove"):
                old.unlink(missing_ok=True)

    def remove_blob(self, repo: str, digest: str) -> None:
        with self._step("blob.remove"):
            self.blob(repo, digest).unlink(missing_ok=True)

    def remove_partial(self, repo: str, digest: str) -> None:
        path = self._partial(repo, digest)
        with self._step("partial.remove"):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()

    def remove_repo_if_empty(self, repo: str) -> None:
        """The folder of a repository without a blob and without a snapshot."""
        folder = self.repo_folder(repo)
        if not any(_entries(folder / "blobs")) and not any(_entries(folder / "snapshots")):
            self._away(folder, "repo.remove")

    def empty_quarantine(self) -> int:
        """→ bytes that this freed."""
        freed = 0
        for file in _entries(self._control / "quarantine"):
            freed += _size(file) or 0
            with self._step("quarantine.remove"):
                file.unlink(missing_ok=True)
        return freed

    def sweep(self) -> None:
        """What operations that were cut off have left. Only where none can be going on: inside a transaction."""
        for path in _entries(self._control / "tmp"):
            with self._step("sweep.remove"):
                _remove(path)

    def scan(self) -> tuple[FoundModel, ...]:
        """Reads only. What is neither a blob by its name nor a link to one is passed over."""
        partials: dict[str, dict[str, int]] = {}
        for (repo, digest), size in self.partials().items():
            partials.setdefault(repo, {})[digest] = size
        folders = {_repo(path.name) for path in _entries(self.root) if path.name.startswith("models--")}
        return tuple(self._found(repo, partials.get(repo, {})) for repo in sorted(folders | partials.keys()))

    def _found(self, repo: str, partials: Mapping[str, int]) -> FoundModel:
        folder = self.repo_folder(repo)
        blobs = {
            file.name: size
            for file in _entries(folder / "blobs")
            if _DIGEST.fullmatch(file.name) and (size := _size(file)) is not None
        }
        commits = {path.name: _links(path) for path in _entries(folder / "snapshots") if _COMMIT.fullmatch(path.name)}
        return FoundModel(repo, commits, self.revisions(repo), blobs, partials)

    def _check_format(self) -> None:
        path = self._control / "format"
        text = _text(path)
        if text.isdecimal() and int(text) > FORMAT:
            raise NewerFormatError(
                f"{path} says {text}, this cotenant knows formats up to {FORMAT} and has changed nothing; use the "
                "newer cotenant that wrote it, or give this one a folder of its own"
            )
        if text != str(FORMAT):
            self._write(path, f"{FORMAT}\n", "format")

    def _write(self, path: Path, text: str, name: str) -> None:
        made = self._tmp()
        with self._step(f"{name}.make"), made.open("w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        with self._step(f"{name}.rename"):
            os.rename(made, path)
        with self._step(f"{name}.sync"):
            _sync(path.parent)

    def _away(self, path: Path, name: str) -> None:
        """A folder loses its name at once, and then its content."""
        gone = self._tmp()
        with self._step(name):
            try:
                os.rename(path, gone)
            except FileNotFoundError:
                return
        with self._step(f"{name}_content"):
            _remove(gone)

    def _partial(self, repo: str, digest: str) -> Path:
        return self._control / "partial" / repo_key(repo) / digest

    def _tmp(self) -> Path:
        return self._control / "tmp" / secrets.token_hex(8)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self._step_seen(f"{name}:before")
        yield
        self._step_seen(f"{name}:after")


class Partial:
    """The bytes of a file so far. `size` is true whatever happens."""

    def __init__(self, descriptor: int, path: Path, step: Callable[[str], AbstractContextManager[None]]) -> None:
        self._descriptor, self._path, self._step = descriptor, path, step
        self.size = os.fstat(descriptor).st_size

    def write(self, data: memoryview) -> None:
        """All of it, after what is there, or DiskFullError."""
        with self._step("partial.write"):
            while data:
                try:
                    count = os.pwrite(self._descriptor, data, self.size)
                except OSError as error:
                    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise VolumeError(f"{self._path}: {error.strerror}; check the disk") from error
                    raise DiskFullError(
                        f"{self._path}: the disk is full after {self.size} bytes; make room on it, what came is kept"
                    ) from error
                self.size += count
                data = data[count:]

    def sync(self) -> None:
        with self._step("partial.sync"):
            os.fsync(self._descriptor)

    def restart(self) -> None:
        with self._step("partial.restart"):
            os.ftruncate(self._descriptor, 0)
        self.size = 0

    def read_blocks(self, size: int) -> Iterator[memoryview]:
        """From the beginning to `self.size`; each is valid until the next."""
        buffer, offset = memoryview(bytearray(size)), 0
        while offset < self.size:
            count = os.preadv(self._descriptor, [buffer[: self.size - offset]], offset)
            if not count:
                raise VolumeError(f"{self._path}: became shorter while it was read; check who else writes there")
            yield buffer[:count]
            offset += count

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(path: Path) -> int:
    """Makes file and folder; the last file's end may take the empty folder away between the two."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue


def repo_key(repo: str) -> str:
    return "models--" + repo.replace("/", "--")


def _repo(key: str) -> str:
    """The hub allows no `--` in names."""
    return key.removeprefix("models--").replace("--", "/")


def _links(snapshot: Path) -> dict[str, str]:
    found = {}
    for folder, folders, names in os.walk(snapshot):
        for name in (*names, *folders):
            path = Path(folder) / name
            with suppress(OSError):
                to = Path(os.readlink(path))
                if to.parent.name == "blobs" and _DIGEST.fullmatch(to.name):
                    found[str(path.relative_to(snapshot))] = to.name
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(path: Path) -> int | None:
    """Of a plain file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_size if (status.st_mode & 0o170000) == 0o100000 else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
