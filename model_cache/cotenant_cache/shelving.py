"""Models that are on the volume: whether one is whole, and taking it for use in the same step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cotenant_cache.contract import ModelFile, Progress
from cotenant_cache.ledger_records import Tx
from cotenant_cache.store import Store


@dataclass(frozen=True, slots=True)
class Leased:
    """A model on the volume, whole and verified. Without a lease it may be evicted at any time."""

    folder: Path
    repo: str = ""
    """Empty, as commit and lease, for a folder of its own that the cache does not manage."""
    commit: str = ""
    lease_id: str = ""
    size_bytes: int = 0

    def progress(self, source: str) -> Progress:
        return Progress(
            source=source,
            phase="done",
            commit=self.commit,
            folder=str(self.folder),
            done_bytes=self.size_bytes,
            total_bytes=self.size_bytes,
        )


def lease_if_whole(
    store: Store, repo: str, commit: str, lease: str, priority: int | None = None, *, found_ok: bool = False
) -> Leased | None:
    """Whether every file is there and verified is judged, and the lease taken, in one transaction.

    `priority`: of a preload list that it is on, which the ledger knows from then on; None: of none. `found_ok`: also
    when no hub has said which files it has, since it was just adopted.
    """
    with store.transaction() as tx:
        return take(store, tx, repo, commit, lease, priority, found_ok=found_ok)


def take(
    store: Store, tx: Tx, repo: str, commit: str, lease: str, priority: int | None = None, *, found_ok: bool = False
) -> Leased | None:
    """As `lease_if_whole`, in a transaction that is open.

    A preload is no use, else what nobody calls looks as used as what is called all day; its first counts, as arrival.
    """
    model = tx.model(repo, commit)
    if model is None or (model.found and not found_ok) or missing(store, tx, repo, model.files):
        return None
    folder = store.volume.snapshot(repo, commit)
    if not all(_is_linked(folder / file.name, file) for file in model.files):
        return None
    if priority is None or not model.uses:
        tx.touch(repo, commit)
    if priority is not None:  # else the next preload may drive it out before the list is noted again
        tx.add_preload(repo, commit, priority)
    lease_id = tx.lease(repo, commit, lease) if lease else ""
    return Leased(folder, repo, commit, lease_id, sum(file.size_bytes for file in model.files))


def missing(store: Store, tx: Tx, repo: str, files: Sequence[ModelFile]) -> tuple[ModelFile, ...]:
    """Files whose blob is not there, or was not verified; one for each digest. Looks again at the disk.

    What was checked is what its digest says: who lists another size takes it from nobody else.
    """
    look_again(store, tx, repo, files)
    right = {blob.digest: blob.size_bytes for blob in tx.blobs(repo) if blob.verified}
    return tuple({file.digest: file for file in files if right.get(file.digest) != file.size_bytes}.values())


def look_again(store: Store, tx: Tx, repo: str, files: Sequence[ModelFile]) -> None:
    """The ledger has of the blobs of these files what the disk has, from here on.

    A blob that the ledger does not know was published by one that ended before it could note that. Such a one, and
    one that is not as long as it was, counts as it is, and is checked before it is served.
    """
    known = {blob.digest: blob.size_bytes for blob in tx.blobs(repo) if blob.present}
    for digest in dict.fromkeys(file.digest for file in files):
        size = store.volume.blob_bytes(repo, digest)
        if size == known.get(digest):
            continue
        if size is None:
            tx.blob_gone(repo, digest)
        else:
            tx.blob_published(repo, digest, size, verified=False)


def look_after_the_dead(store: Store, tx: Tx) -> None:
    """What fetches that were cut off have published counts from here on, also where they could not note it."""
    alive = store.alive(tx)
    for repo, commit in tx.cut_off(alive):
        model = tx.model(repo, commit)
        if model is not None:
            look_again(store, tx, repo, model.files)
    tx.forget_dead(alive)


def name_files(store: Store, repo: str, commit: str, files: Sequence[ModelFile]) -> None:
    """Gives a model whose blobs are all there its names."""
    folder = store.volume.snapshot(repo, commit)
    unnamed = [file for file in files if not _is_linked(folder / file.name, file)]
    for file in unnamed:
        store.volume.link(repo, commit, file.name, file.digest)
    if unnamed:
        store.volume.sync_snapshot(repo, commit)


def _is_linked(path: Path, file: ModelFile) -> bool:
    """Whether this name leads to this file's blob."""
    try:
        return path.resolve().name == file.digest and path.stat().st_size == file.size_bytes
    except OSError:
        return False
