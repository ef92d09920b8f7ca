"""The cache as engines and the operator use it: a source in, a checked folder or its facts out."""

import importlib
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Protocol

from cotenant_cache.cache import Cache
from cotenant_cache.contract import Progress
from cotenant_cache.disk import Volume
from cotenant_cache.errors import CacheError, DiskFullError, HubUnreachableError, VolumeError
from cotenant_cache.facts import ModelFacts
from cotenant_cache.folders import folder_facts
from cotenant_cache.found import noted_revisions, repo_key
from cotenant_cache.source import FolderSource, HubAccess, HubSource, parse_source
from cotenant_cache.unwritable import facts_as_it_lies

ENVIRONMENT = HubAccess()

log = logging.getLogger("cotenant.cache")


class Held(Protocol):
    """What keeps a model on the volume: a cache instance of this process, or a lease of another one's."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model on this machine: its folder, and the facts that were read while it was checked."""

    folder: Path
    facts: ModelFacts
    immutable: bool = False
    """Its files are the cache's: checked, published whole, and never written to again, only unlinked."""
    holding: Held | None = None

    def close(self) -> None:
        """Gives the lease back."""
        if self.holding is not None:
            self.holding.close()


def open_model(source: str, cache_dir: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of `open_checked`. Raises CacheError."""
    return open_checked(source, cache_dir, progress).folder


def open_checked(
    source: str,
    cache_dir: str,
    progress: Callable[[int, int], None] | None = None,
    *,
    lease: str = "",
    budget_bytes: int | None = None,
    socket: str = "",
) -> OpenModel:
    """`file:///dir` or `hf://repo@revision` → a local folder whose files are all there and are what they say.

    A revision that is on disk already is used without asking the hub when it is a commit that a hub has listed.
    `progress(done_bytes, total_bytes)` is called while files come. `lease` is the name under which the model is kept
    from eviction until `OpenModel.close`, or until this process ends; empty: not at all. `socket` is where another
    process' cache instance listens, which then does all of it: here the volume is only read. Where it cannot be
    written, what is whole and right is opened without a lease, and the log says so. Raises CacheError.
    """
    parsed = parse_source(source)
    if isinstance(parsed, FolderSource):
        folder = Path(parsed.path)
        return OpenModel(folder, folder_facts(folder, source=source))
    if socket:
        return _open_through_instance(socket, parsed, source, progress, lease)
    try:
        return _open_through_cache(parsed, source, Path(cache_dir), progress, lease, budget_bytes)
    except (VolumeError, DiskFullError) as error:  # read-only here, or not a byte is free
        opened = _open_as_it_lies(parsed, Path(cache_dir), progress)
        if opened is None:
            raise
        if lease:
            log.warning("%s: no lease keeps it, another instance may evict it while it is used: %s", source, error)
        return opened


def read_facts(source: str, cache_dir: str, access: HubAccess = ENVIRONMENT) -> ModelFacts:
    """Sizes of a model, without its weights: from disk, or from the hub by reading headers only. Raises CacheError.

    When the hub does not answer, the revision it last resolved to is used if it is whole on disk. What a branch is
    now is noted for that in `cache_dir`, if there is such a folder.
    """
    parsed = parse_source(source)
    if isinstance(parsed, FolderSource):
        return folder_facts(Path(parsed.path), source=source)
    local = _facts_on_disk(parsed, Path(cache_dir)) if parsed.pinned else None
    if local is not None:
        return local
    parsed = replace(parsed, access=access)
    hub = _hub(source)
    try:
        facts: ModelFacts = hub.remote_facts(parsed)
        _note_branch(parsed, facts.fingerprint, Path(cache_dir))
        return facts
    except HubUnreachableError:
        stale = _facts_on_disk(parsed, Path(cache_dir))
        if stale is None:
            raise
        return stale


def _open_through_instance(
    socket: str, parsed: HubSource, source: str, progress: Callable[[int, int], None] | None, lease: str
) -> OpenModel:
    from cotenant_cache.remote import ensure_through, holder_of

    said, held = ensure_through(socket, source, lease or holder_of(), _telling(progress))
    try:
        facts = folder_facts(Path(said.folder), source=parsed.at(said.commit), fingerprint=said.commit)
    except BaseException:
        held.close()
        raise
    if not lease:
        held.close()
    return OpenModel(Path(said.folder), facts, immutable=True, holding=held if lease else None)


def _telling(progress: Callable[[int, int], None] | None) -> Callable[[Progress], None]:
    def told(said: Progress) -> None:
        if progress is not None and said.total_bytes:
            progress(said.done_bytes, said.total_bytes)

    return told


def _open_through_cache(
    parsed: HubSource,
    source: str,
    cache_dir: Path,
    progress: Callable[[int, int], None] | None,
    lease: str,
    budget_bytes: int | None,
) -> OpenModel:
    cache = Cache(cache_dir, budget_bytes, access=parsed.access)
    try:
        leased = cache.ensure(source, lease or "opening", _telling(progress))
        facts = folder_facts(leased.folder, source=parsed.at(leased.commit), fingerprint=leased.commit)
    except BaseException:
        cache.close()
        raise
    if not lease:
        cache.close()
    return OpenModel(leased.folder, facts, immutable=True, holding=cache if lease else None)


def _open_as_it_lies(
    parsed: HubSource, cache_dir: Path, progress: Callable[[int, int], None] | None
) -> OpenModel | None:
    """Without a lease. None when it is not there whole. Raises CacheError: there is a byte that is not right."""
    commit = parsed.revision if parsed.pinned else _resolved_before(parsed, cache_dir)
    if not commit:
        return None
    folder = _snapshot(parsed.repo, commit, cache_dir)
    facts = facts_as_it_lies(replace(parsed, revision=commit), folder, cache_dir, progress or _ignore)
    return None if facts is None else OpenModel(folder, facts)


def _ignore(done_bytes: int, total_bytes: int) -> None:
    del done_bytes, total_bytes


def _facts_on_disk(parsed: HubSource, cache_dir: Path) -> ModelFacts | None:
    """Facts of a whole snapshot in the Hugging Face layout, or None."""
    commit = parsed.revision if parsed.pinned else _resolved_before(parsed, cache_dir)
    if not commit:
        return None
    try:
        return folder_facts(_snapshot(parsed.repo, commit, cache_dir), source=parsed.at(commit), fingerprint=commit)
    except CacheError:
        return None


def _resolved_before(parsed: HubSource, cache_dir: Path) -> str:
    reference = _repo_folder(parsed.repo, cache_dir) / "refs" / parsed.revision
    try:
        return reference.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return noted_revisions(cache_dir, parsed.repo).get(parsed.revision, "")


def _note_branch(parsed: HubSource, commit: str, cache_dir: Path) -> None:
    """Its engines fetch the commit; without a hub the branch is what it was now."""
    if not parsed.pinned and cache_dir.is_dir():
        with suppress(CacheError, OSError):
            Volume(cache_dir).note_revision(parsed.repo, parsed.revision, commit)


def _snapshot(repo: str, commit: str, cache_dir: Path) -> Path:
    return _repo_folder(repo, cache_dir) / "snapshots" / commit


def _repo_folder(repo: str, cache_dir: Path) -> Path:
    """As every Hugging Face tool lays it out."""
    return cache_dir / repo_key(repo)


def _hub(source: str) -> ModuleType:
    """The only module with the hub's client, which the base install lacks. Raises HubUnreachableError."""
    try:
        return importlib.import_module("cotenant_cache.hub")
    except ImportError as error:
        raise HubUnreachableError(
            f"{source}: {error.name} is not installed. Run: pip install 'cotenant[cache]'"
        ) from error
