"""The only writes to a volume of the weight cache, and what is seen there.

    models--org--name/{blobs,refs,snapshots}    the plain Hugging Face layout: published files only
    .cotenant/partial/<repo>/<digest>           bytes so far
    .cotenant/quarantine/<digest>.<n>           blobs that did not match their digest
    .cotenant/revisions/<repository>/<branch>   its commit, as facts of it were read; for `refs/` once that is whole
    .cotenant/tmp/                              what is about to get, or has lost, its name; swept by `repair`

Each operation on a name is atomic, and goes through `_step`, which tests use to die before and after it. What changes
names is called inside a transaction of the ledger, so that there is one at a time on a volume.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cotenant_cache.contract import FORMAT
from cotenant_cache.errors import DiskFullError, NewerFormatError, VolumeError
from cotenant_cache.found import (
    CONTROL,
    FoundModel,
    entries,
    found_model,
    is_text,
    noted_folder,
    repo_key,
    repo_of,
    revisions_in,
    size_of,
    text_of,
)
from cotenant_cache.partial import Partial, opened

__all__ = ["CONTROL", "DiskSpace", "FoundModel", "Partial", "Step", "Volume", "repo_key"]

Step = Callable[[str], None]
_QUARANTINED = 4
"""Files that are kept to look at."""


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
        return size_of(self.blob(repo, digest))

    def partial_bytes(self, repo: str, digest: str) -> int:
        return size_of(self._partial(repo, digest)) or 0

    def partials(self) -> dict[tuple[str, str], int]:
        """(repo, digest) → bytes so far."""
        found = {}
        for folder in entries(self._control / "partial"):
            for file in entries(folder):
                size = size_of(file)
                if size is not None:
                    found[repo_of(folder.name), file.name] = size
        return found

    def quarantined_bytes(self) -> int:
        return sum(size_of(file) or 0 for file in entries(self._control / "quarantine"))

    def disk(self) -> DiskSpace:
        told = os.statvfs(self.root)
        return DiskSpace(told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize)

    def budget(self) -> int | None:
        """Bytes that the volume is set to, for instances that are told nothing else; None: nobody set it."""
        text = text_of(self._control / "budget").strip()
        return int(text) if text.isdigit() else None

    def set_budget(self, budget_bytes: int | None) -> None:
        self._write(self._control / "budget", f"{'' if budget_bytes is None else budget_bytes}\n", "budget")

    def open_partial(self, repo: str, digest: str) -> "Partial":
        """Made when there is none. Only the holder of the repository's flight may."""
        path = self._partial(repo, digest)
        with self._step("partial.open"):
            descriptor = opened(path)
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
            for path in (folder, folder.parent, *(entry for entry in entries(folder) if entry.is_dir())):
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
        if text_of(path) == commit:
            return
        with self._step("ref.folder"):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._write(path, commit, "ref")

    def revisions(self, repo: str) -> dict[str, str]:
        """Branches and tags that are recorded, and their commits."""
        return revisions_in(f"{self.root}/{repo_key(repo)}/refs")

    def note_revision(self, repo: str, revision: str, commit: str) -> None:
        """What a branch was when its facts were read. `refs/` has it once the commit is whole: other tools take a
        name there for a model."""
        path = noted_folder(self.root, repo) / revision
        if text_of(path) != commit:
            with self._step("ref.folder"):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, commit, "ref")

    def quarantine(self, repo: str, digest: str) -> None:
        """A blob, never to be read again; of those that were kept to look at only the latest stay."""
        folder = self._control / "quarantine"
        with self._step("quarantine.rename"), suppress(FileNotFoundError):
            os.rename(self.blob(repo, digest), folder / f"{digest}.{secrets.token_hex(4)}")
        kept = sorted(entries(folder), key=lambda path: path.stat().st_ctime_ns, reverse=True)
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
        if not any(entries(folder / "blobs")) and not any(entries(folder / "snapshots")):
            self._away(folder, "repo.remove")

    def empty_quarantine(self) -> int:
        """→ bytes that this freed."""
        freed = 0
        for file in entries(self._control / "quarantine"):
            freed += size_of(file) or 0
            with self._step("quarantine.remove"):
                file.unlink(missing_ok=True)
        return freed

    def sweep(self) -> None:
        """What operations that were cut off have left. Only where none can be going on: inside a transaction."""
        for path in entries(self._control / "tmp"):
            with self._step("sweep.remove"):
                _remove(path)

    def scan(self) -> tuple[FoundModel, ...]:
        """Reads only. What is neither a blob by its name nor a link to one is passed over."""
        partials: dict[str, dict[str, int]] = {}
        for (repo, digest), size in self.partials().items():
            partials.setdefault(repo, {})[digest] = size
        names = (path.name for path in entries(self.root))
        folders = {repo_of(name) for name in names if name.startswith("models--") and is_text(name)}
        return tuple(
            found_model(self.repo_folder(repo), repo, partials.get(repo, {}))
            for repo in sorted(folders | partials.keys())
        )

    def _check_format(self) -> None:
        path = self._control / "format"
        text = text_of(path)
        if text.isdecimal() and int(text) > FORMAT:
            raise NewerFormatError(
                f"{path} says {text}, this cotenant knows formats up to {FORMAT} and has changed nothing; use the "
                "newer cotenant that wrote it, or give this one a folder of its own"
            )
        if text != str(FORMAT):
            self._write(path, f"{FORMAT}\n", "format")

    def _write(self, path: Path, text: str, name: str) -> None:
        """Also outside a transaction, where another instance may sweep away what has no name yet: then once more."""
        for last in (False, False, True):
            made = self._tmp()
            with self._step(f"{name}.make"), made.open("w") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            try:
                with self._step(f"{name}.rename"):
                    os.rename(made, path)
                break
            except FileNotFoundError:
                if last:
                    raise
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
