"""The ledger against the disk: after a kill, a crash, a damaged ledger, or another tool's work in the layout.

The disk is right about what is there; the ledger about what was checked, used and promised. In one transaction, so
that no instance publishes or evicts in between.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from cotenant_cache.contract import ModelFile
from cotenant_cache.disk import FoundModel
from cotenant_cache.holders import sweep_holders
from cotenant_cache.ledger_models import LedgerModel
from cotenant_cache.ledger_records import Tx
from cotenant_cache.shelving import name_files
from cotenant_cache.store import Store

log = logging.getLogger("cotenant.cache")


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was not as it should be."""

    found_blobs: int = 0
    """On disk, but not in the ledger: unverified until they are checked."""
    lost_blobs: int = 0
    """In the ledger, but not on disk, or not as long as they were."""
    found_models: int = 0
    """Put there by another tool."""
    lost_models: int = 0
    finished_models: int = 0
    """All blobs were there, but not all names."""


def repair(store: Store) -> Repaired:
    with store.transaction(as_it_is=True) as tx:
        return reconcile(store, tx)


def reconcile(store: Store, tx: Tx) -> Repaired:
    """As `repair`, in a transaction that is open."""
    if store.ledger.rebuilt:
        store.restore(tx)
    tx.forget_dead(store.alive(tx))
    sweep_holders(store.root)
    store.volume.sweep()
    on_disk = {model.repo: model for model in store.volume.scan()}
    found_blobs, lost_blobs = _blobs(tx, on_disk)
    found_models = _adoptable(tx, on_disk)
    finished, lost = _models(store, tx, on_disk)
    if store.ledger.rebuilt:
        tx.reconciled()
    return Repaired(found_blobs, lost_blobs, found_models, lost, finished)


def _blobs(tx: Tx, on_disk: Mapping[str, FoundModel]) -> tuple[int, int]:
    known = tx.present()
    there = {(repo, digest): size for repo, model in on_disk.items() for digest, size in model.blobs.items()}
    lost = {key for key, size in known.items() if there.get(key) != size}
    for repo, digest in lost:
        tx.blob_gone(repo, digest)
    found = [key for key in there if key not in known or key in lost]
    for repo, digest in found:
        tx.blob_published(repo, digest, there[repo, digest], verified=False, fetch_s=0.0)
    return len(found), len(lost)


def _adoptable(tx: Tx, on_disk: Mapping[str, FoundModel]) -> int:
    """Snapshots that the ledger does not know, all of whose names lead to blobs that are there."""
    count = 0
    known = {(model.repo, model.commit) for model in tx.models()}
    for repo, found in on_disk.items():
        for commit, names in found.commits.items():
            if (repo, commit) in known or not names or any(digest not in found.blobs for digest in names.values()):
                continue
            files = [
                ModelFile(name=name, size_bytes=found.blobs[digest], digest=digest) for name, digest in names.items()
            ]
            tx.put_model(repo, commit, files, found=True)
            count += 1
    return count


def _models(store: Store, tx: Tx, on_disk: Mapping[str, FoundModel]) -> tuple[int, int]:
    """Names are completed where every blob is there, and taken away where they lead to one that is not.

    A model in use may have nothing on the disk yet: somebody has just begun to fetch it.
    """
    finished = lost = 0
    in_use = {(lease.repo, lease.commit) for lease in tx.leases()}
    verified = tx.verified()
    fetching = tx.fetching()
    for model in tx.listings():
        repo, found = model.repo, on_disk.get(model.repo)
        names = found.commits.get(model.commit, {}) if found else {}
        if model.missing:
            if names and not _changed(model, partial(store.volume.unlink_snapshot, repo, model.commit)):
                continue
            kept = model.pinned or model.present or _begun(model, found)
            if (model.found or not kept) and (repo, model.commit) not in in_use:
                tx.remove_model(repo, model.commit)
                lost += 1
        elif (
            repo not in fetching  # whoever fetches it has published the last blob, and gives the names next
            and all((repo, file.digest) in verified for file in model.files)
            and any(names.get(file.name) != file.digest for file in model.files)
        ):
            finished += _changed(model, partial(name_files, store, repo, model.commit, model.files))
        if found and not model.missing:  # what another tool has put beside it goes with it
            beside = {digest: found.blobs[digest] for digest in names.values() if digest in found.blobs}
            tx.name_blobs(repo, model.commit, {key: beside[key] for key in beside.keys() - model.present})
    return finished, lost


def _changed(model: LedgerModel, change: Callable[[], None]) -> bool:
    """False: another user put the model there, and we may not. It is not whole, so nobody is served it."""
    try:
        change()
    except PermissionError as error:
        log.warning(
            "%s@%s is not whole, and its names stay as they are: %s (%s); let this user write there, or remove it",
            model.repo,
            model.commit,
            error.filename,
            error.strerror,
        )
        return False
    return True


def _begun(model: LedgerModel, found: FoundModel | None) -> bool:
    return found is not None and any(file.digest in found.partials for file in model.files)
