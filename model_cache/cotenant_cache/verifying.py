"""Blobs against their digests: before they are served for the first time, and again in the background.

A blob that does not match is in doubt from then on, whoever dies, and goes to quarantine together with the snapshots
that show it, in one transaction; what has it open keeps its pages, and nobody opens it again.
"""

import errno
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cotenant_cache.contract import ModelFile, Progress
from cotenant_cache.digests import new_hash
from cotenant_cache.errors import TooLateError
from cotenant_cache.ledger_blobs import Blob
from cotenant_cache.rounds import RoundTeller
from cotenant_cache.shelving import look_again
from cotenant_cache.store import Store

READ_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Looked:
    """One blob, read from beginning to end."""

    inode: int
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class BadBlob:
    repo: str
    digest: str
    commits: tuple[str, ...]
    """Of the models that had it, which are not whole any more."""
    leased: bool
    """Whether one of them was in use."""
    quarantined: bool = True
    """False: it is another user's, and we may not; it stays where it is, and no model with it is served."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a round of verification found."""

    blobs: int = 0
    bytes: int = 0
    bad: tuple[BadBlob, ...] = ()


def look(path: Path, digest: str, report: Callable[[int], None], *, fresh: bool = False) -> Looked | None:
    """Reads a blob and computes the kind of digest that `digest` is; None when it is not there.

    `report` takes the bytes read with this call, after each few MiB; what it raises ends the reading. `fresh` is for
    the disk's bytes instead of those in memory, which engines may have mapped: read past the page cache, which a
    round over everything must not fill either.
    """
    try:
        descriptor = _opened(path, fresh)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        hasher, left = new_hash(digest, status.st_size), status.st_size
        # The buffer begins at a page, as direct reads need.
        with mmap.mmap(-1, READ_BYTES) as buffer, memoryview(buffer) as view:
            while left > 0 and (count := os.readv(descriptor, [view])):
                left -= count
                hasher.update(view[:count])
                report(count)
        if fresh:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return Looked(status.st_ino, status.st_size, hasher.hexdigest())
    finally:
        os.close(descriptor)


def _opened(path: Path, fresh: bool) -> int:
    """Where the file system has no direct reads, a fresh one can only ask the kernel to forget what nobody maps."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    if not fresh:
        return os.open(path, flags)
    try:
        return os.open(path, flags | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    descriptor = os.open(path, flags)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return descriptor


def verify(
    store: Store,
    *,
    models: Iterable[tuple[str, str]] | None = None,
    every_s: float = 0.0,
    rate_bytes_per_s: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
    told: Callable[[BadBlob], None] = lambda bad: None,
    tell: Callable[[Progress], None] = lambda said: None,
) -> Verified:
    """Every blob of these models (None: of the volume, loose ones too), the longest unverified first.

    What was verified less than `every_s` ago is left out, and what another instance verifies while this one is at it.
    `rate_bytes_per_s`: at most so fast; 0: as fast as the disk. Ends early when `stop` says so. `tell` takes how far
    it is, a few times a second.
    """
    due = _due(store, models, every_s)
    teller = RoundTeller(f"{len(due)} files", sum(blob.size_bytes for blob, _ in due), tell, store.clock)
    pace = _Pace(store, rate_bytes_per_s, stop, teller)
    blobs, bad = 0, []
    for blob, name in due:
        if stop():
            break
        repo, digest = blob.repo, blob.digest
        teller.begin(f"{repo}: {name or digest[:12] + '…'}", blob.size_bytes)
        if not _is_due_still(store, repo, digest, blob.verified_at):
            continue
        try:
            looked = _look_whatever_the_disk(store, repo, digest, pace)
        except _StoppedError:
            break
        if looked is None:
            continue
        blobs += 1
        condemned = judge(store, repo, digest, looked)
        if condemned is not None:
            bad.append(condemned)
            told(condemned)
    return Verified(blobs, pace.bytes, tuple(bad))


def _look_whatever_the_disk(store: Store, repo: str, digest: str, pace: "_Pace") -> Looked | None:
    """What the disk cannot read is no match for any digest; what we may not read is left as it is."""
    path = store.volume.blob(repo, digest)
    try:
        return look(path, digest, pace.read, fresh=True)
    except OSError as error:
        inode = _inode(path)
        return Looked(inode, 0, "") if error.errno == errno.EIO and inode is not None else None


def verify_files(
    store: Store, repo: str, files: Sequence[ModelFile], report: Callable[[ModelFile, int], None], until: float
) -> None:
    """The files of one model whose blobs are here and were never checked, also those that the ledger does not know.
    Bad ones are gone afterwards.

    Raises TooLateError when the store's monotonic clock passes `until`.
    """
    with store.transaction() as tx:
        look_again(store, tx, repo, files)
        blobs = {blob.digest for blob in tx.blobs(repo) if blob.present and not blob.verified_at}
        unsure = {file.digest: file for file in files if file.digest in blobs}.values()
    for file in unsure:
        if not _is_due_still(store, repo, file.digest, 0.0):
            continue
        done = 0

        def read(count: int, file: ModelFile = file) -> None:
            nonlocal done
            done += count
            report(file, done)
            if store.clock.monotonic() >= until:
                raise TooLateError(f"{repo}: time was up while {file.name} was checked against its digest; ask again")

        looked = look(store.volume.blob(repo, file.digest), file.digest, read)
        if looked is not None:
            judge(store, repo, file.digest, looked)


def judge(store: Store, repo: str, digest: str, looked: Looked) -> BadBlob | None:
    """What was read → verified, or quarantined. Nothing when the file is another one by now."""
    with store.transaction() as tx:
        if _inode(store.volume.blob(repo, digest)) != looked.inode:
            return None
        if looked.digest == digest:
            tx.blob_verified(repo, digest)
            return None
        tx.blob_doubted(repo, digest)
    return _quarantine(store, repo, digest, looked)


def _quarantine(store: Store, repo: str, digest: str, looked: Looked) -> BadBlob | None:
    """The blob first: whoever dies in between has left names that lead nowhere, and not to a wrong byte."""
    with store.transaction() as tx:
        if _inode(store.volume.blob(repo, digest)) != looked.inode:
            return None
        commits = tx.naming(repo, digest)
        leased = {(lease.repo, lease.commit) for lease in tx.leases(store.alive(tx))}
        used = any((repo, commit) in leased for commit in commits)
        try:
            store.volume.quarantine(repo, digest)
        except PermissionError:  # it stays in doubt, and so nobody is served it
            return BadBlob(repo, digest, commits, used, quarantined=False)
        with suppress(PermissionError):  # names that lead nowhere then, which only another user may take away
            for commit in commits:
                store.volume.unlink_snapshot(repo, commit)
        tx.blob_gone(repo, digest)
        return BadBlob(repo, digest, commits, used)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _due(store: Store, models: Iterable[tuple[str, str]] | None, every_s: float) -> list[tuple[Blob, str]]:
    """Each with the name that a model has for it; empty: none has. A clock that went back makes all due."""
    now = store.clock.now()
    with store.transaction() as tx:
        found = tx.listings() if models is None else [tx.model(repo, commit) for repo, commit in models]
        blobs = tx.blobs_to_verify()
    names = {(model.repo, file.digest): file.name for model in found if model is not None for file in model.files}
    return [
        (blob, name)
        for blob in blobs
        if not 0 <= now - blob.verified_at < every_s
        and ((name := names.get((blob.repo, blob.digest), "")) or models is None)
    ]


def _is_due_still(store: Store, repo: str, digest: str, verified_at: float) -> bool:
    """Whether nobody else has verified it, or found it bad, since then."""
    with store.transaction() as tx:
        blob = tx.blob(repo, digest)
    return blob is not None and blob.present and blob.verified_at == verified_at


class _Pace:
    """Keeps the reading to a rate, and to the moment at which it should end."""

    def __init__(self, store: Store, rate_bytes_per_s: float, stop: Callable[[], bool], teller: RoundTeller) -> None:
        self._teller = teller
        self._clock, self._rate, self._stop = store.clock, rate_bytes_per_s, stop
        self._began = store.clock.monotonic()
        self.bytes = 0

    def read(self, count: int) -> None:
        self.bytes += count
        self._teller.read(count)
        ahead_s = self.bytes / self._rate - (self._clock.monotonic() - self._began) if self._rate else 0.0
        while ahead_s > 0 and not self._stop():
            self._clock.sleep(min(ahead_s, 1.0))
            ahead_s -= 1.0
        if self._stop():
            raise _StoppedError


class _StoppedError(Exception):
    """The round was ended in the middle of a file."""
