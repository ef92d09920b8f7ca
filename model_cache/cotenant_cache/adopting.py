"""Models that other Hugging Face tools put into the layout: seen by `repair`, checked here, then served as any other.

The names of their blobs are the hub's digests, so the check needs no hub. What the check cannot say is whether the
tool fetched everything: that says the hub's listing, or, while the hub is away, the model's own files. So a model
stays `found` until a hub has listed it: whoever asks for it asks the hub first, and fetches what lacks.

Tools put code, pickles and texts beside what an engine reads. Those are left to them: checked by nobody who serves,
given to no peer, counted and evicted with their model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cotenant_cache.contract import ModelFile, Progress
from cotenant_cache.errors import CacheError, FileMissingError, VolumeError
from cotenant_cache.folders import folder_facts, folder_wanted
from cotenant_cache.found import names_in
from cotenant_cache.kinds import PLAIN_NAME, kind_of
from cotenant_cache.ledger_models import LedgerModel
from cotenant_cache.ledger_records import Tx
from cotenant_cache.rounds import RoundTeller
from cotenant_cache.shelving import missing
from cotenant_cache.source import HubSource
from cotenant_cache.store import Store, volume_errors
from cotenant_cache.verifying import verify_files


@dataclass(frozen=True, slots=True)
class Adopted:
    repo: str
    commit: str
    refusal: str = ""
    """Why it is not served as it is; empty: it is."""


def adopt_all(store: Store, tell: Callable[[Progress], None] = lambda said: None) -> tuple[Adopted, ...]:
    """Every model that was found on the disk and not listed by a hub since; told are those that were not checked
    before, and those that are refused. `tell` takes how far that is."""
    with store.transaction() as tx:
        found = [(model.repo, model.commit) for model in tx.listings() if model.found]
        lacking = {key: missing(store, tx, key[0], _readable(store, *key)) for key in found}
    unsure = {key: files for key, files in lacking.items() if files}
    total = sum(file.size_bytes for files in unsure.values() for file in files)
    teller = RoundTeller(f"{len(unsure)} models of other tools", total, tell, store.clock)

    def checked(repo: str, commit: str) -> Adopted:
        report = lambda file, done: teller.at(f"{repo}: {file.name}", file.size_bytes, done)  # noqa: E731
        return adopt(store, repo, commit, report, float("inf"))

    adopted = [checked(*key) for key in found]
    return tuple(one for one in adopted if one.refusal or (one.repo, one.commit) in unsure)


def adopt(
    store: Store,
    repo: str,
    commit: str,
    report: Callable[[ModelFile, int], None],
    until: float,
    begin: Callable[[Sequence[ModelFile]], None] = lambda files: None,
) -> Adopted:
    """Checks every blob that an engine may read, and whether the model is complete. Raises TooLateError.

    What a tool has put there since it was found is checked as well, and listed with it. `begin` takes the files that
    `report` may speak of.
    """
    with store.transaction() as tx:
        model, readable = _noted(store, tx, repo, commit)
    if model is None:
        return Adopted(repo, commit, f"{_shown(repo, commit)}: is not on this volume")
    begin(readable)
    refusal = _checked(store, repo, commit, readable, report, until)
    if model.found and not refusal:
        refusal = _narrowed(store, model, readable)
    return Adopted(repo, commit, refusal)


def _checked(
    store: Store,
    repo: str,
    commit: str,
    readable: Sequence[ModelFile],
    report: Callable[[ModelFile, int], None],
    until: float,
) -> str:
    """Why one of these files must not be read; empty: all are right."""
    try:
        with volume_errors(store.root):
            verify_files(store, repo, readable, report, until)
    except VolumeError as error:  # a file that another tool keeps to itself, or that the disk cannot read
        return error.message
    with store.transaction() as tx:
        lacking = missing(store, tx, repo, readable)
    shown = _shown(repo, commit)
    return f"{shown}: {lacking[0].name} is not there or not what its digest says" if lacking else ""


def _narrowed(store: Store, model: LedgerModel, readable: Sequence[ModelFile]) -> str:
    """Lists what an engine reads of it; or why it is not whole."""
    try:
        listing = whole_listing(store, model.repo, model.commit, readable)
    except CacheError as error:
        return error.message
    with store.transaction() as tx:
        now = tx.model(model.repo, model.commit)
        if now is not None and now.found and now.files == model.files:  # else a hub or another check has listed it
            tx.put_model(model.repo, model.commit, listing, found=True)
    return ""


def whole_listing(store: Store, repo: str, commit: str, files: Sequence[ModelFile]) -> tuple[ModelFile, ...]:
    """Of these files those that an engine reads there. Raises CacheError when it would read others, or lacks some."""
    folder, source = store.volume.snapshot(repo, commit), _shown(repo, commit)
    folder_facts(folder, source=source, fingerprint=commit)
    names = {name for name in folder_wanted(folder, source=source) if PLAIN_NAME.fullmatch(name)}
    if unknown := sorted(names - {file.name for file in files}):
        raise FileMissingError(
            f"{source}: {folder / unknown[0]} leads to no file that was checked against a digest; ensure the model "
            "while its hub answers, or fetch it again with the tool that put it there"
        )
    return tuple(file for file in files if file.name in names)


def _noted(store: Store, tx: Tx, repo: str, commit: str) -> tuple[LedgerModel | None, tuple[ModelFile, ...]]:
    """A model, and what of it must be right. Files of a found one that were never checked are its own from here on: a
    bad one takes all names with it."""
    model = tx.model(repo, commit)
    if model is None or not model.found:
        return model, model.files if model else ()
    files = _readable(store, repo, commit)
    known = {blob.digest: blob.size_bytes for blob in tx.blobs(repo) if blob.present}
    for file in files:
        if known.get(file.digest) != file.size_bytes:
            tx.blob_published(repo, file.digest, file.size_bytes, verified=False)
    if missing(store, tx, repo, files):
        tx.put_model(repo, commit, files, found=True)
    return tx.model(repo, commit), files


def _readable(store: Store, repo: str, commit: str) -> tuple[ModelFile, ...]:
    """What an engine may read of a model, as it lies there now: the tool that puts it there may not be at its end."""
    names = names_in(store.volume.snapshot(repo, commit))
    return tuple(
        ModelFile(name=name, size_bytes=size, digest=digest)
        for name, digest in sorted(names.items())
        if digest
        and kind_of(name) in ("weights", "description")
        and (size := store.volume.blob_bytes(repo, digest)) is not None
    )


def _shown(repo: str, commit: str) -> str:
    return HubSource(repo, commit).at(commit)
