"""Models that other Hugging Face tools put into the layout: seen by `repair`, checked here, then served as any other.

The names of their blobs are the hub's digests, so the check needs no hub. What the check cannot say is whether the
tool fetched everything: that says the hub's listing, or, when the hub is away, the model's own files.

Tools put code, pickles and texts beside what an engine reads. Those are left to them: checked by nobody who serves,
given to no peer, counted and evicted with their model.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cotenant_cache.contract import ModelFile, Progress
from cotenant_cache.errors import CacheError, VolumeError
from cotenant_cache.folders import folder_facts, folder_wanted
from cotenant_cache.kinds import PLAIN_NAME, kind_of
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
    """Every model that was found on the disk and not listed by a hub since. `tell` takes how far that is."""
    with store.transaction() as tx:
        found = [model for model in tx.listings() if model.found]
    total = sum(file.size_bytes for model in found for file in model.files)
    teller = RoundTeller(f"{len(found)} models of other tools", total, tell, store.clock)

    def checked(repo: str, commit: str) -> Adopted:
        report = lambda file, done: teller.at(f"{repo}: {file.name}", file.size_bytes, done)  # noqa: E731
        return adopt(store, repo, commit, report, float("inf"))

    return tuple(checked(model.repo, model.commit) for model in found)


def adopt(store: Store, repo: str, commit: str, report: Callable[[ModelFile, int], None], until: float) -> Adopted:
    """Checks every blob that an engine may read, and whether the model is complete. Raises TooLateError."""
    source = HubSource(repo, commit).at(commit)
    with store.transaction() as tx:
        model = tx.model(repo, commit)
    if model is None:
        return Adopted(repo, commit, f"{source}: is not on this volume")
    readable = [file for file in model.files if kind_of(file.name) in ("weights", "description")]
    try:
        with volume_errors(store.root):
            verify_files(store, repo, readable, report, until)
    except VolumeError as error:  # a file that another tool keeps to itself, or that the disk cannot read
        return Adopted(repo, commit, error.message)
    with store.transaction() as tx:
        lacking = missing(store, tx, repo, readable)
    if lacking:
        return Adopted(repo, commit, f"{source}: {lacking[0].name} is not there or not what its digest says")
    folder = store.volume.snapshot(repo, commit)
    try:
        folder_facts(folder, source=source, fingerprint=commit)
        names = {name for name in folder_wanted(folder, source=source) if PLAIN_NAME.fullmatch(name)}
    except CacheError as error:
        return Adopted(repo, commit, error.message)
    with store.transaction() as tx:
        tx.put_model(repo, commit, [file for file in readable if file.name in names])
    return Adopted(repo, commit)
