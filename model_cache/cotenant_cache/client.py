"""The cache as engines and the operator use it: a source in, a checked folder or its facts out."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from cotenant_cache.disk import folder_facts
from cotenant_cache.errors import CacheError, HubUnreachableError
from cotenant_cache.facts import ModelFacts
from cotenant_cache.source import FolderSource, HubAccess, HubSource, parse_source

ENVIRONMENT = HubAccess()


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model on this machine: its folder, and the facts that were read while it was checked."""

    folder: Path
    facts: ModelFacts

    def close(self) -> None:
        """Gives back the lease that keeps its files."""


def open_model(source: str, cache_dir: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of `open_checked`. Raises CacheError."""
    return open_checked(source, cache_dir, progress).folder


def open_checked(
    source: str, cache_dir: str, progress: Callable[[int, int], None] | None = None, *, socket: str = ""
) -> OpenModel:
    """`file:///dir` or `hf://repo@revision` → a local folder whose files are all there and are what they say.

    A revision that is on disk already is used without asking the hub when it is a commit.
    `progress(done_bytes, total_bytes)` is called while files come. Raises CacheError.
    """
    parsed = parse_source(source)
    if isinstance(parsed, FolderSource):
        folder = Path(parsed.path)
        return OpenModel(folder, folder_facts(folder, source=source))
    return _open_from_hub(parsed, source, Path(cache_dir), progress)


def read_facts(source: str, cache_dir: str, access: HubAccess = ENVIRONMENT) -> ModelFacts:
    """Sizes of a model, without its weights: from disk, or from the hub by reading headers only. Raises CacheError.

    When the hub does not answer, the revision it last resolved to is used if it is whole on disk.
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
        return facts
    except HubUnreachableError:
        stale = _facts_on_disk(parsed, Path(cache_dir))
        if stale is None:
            raise
        return stale


def _open_from_hub(
    parsed: HubSource, source: str, cache_dir: Path, progress: Callable[[int, int], None] | None
) -> OpenModel:
    there = _facts_on_disk(parsed, cache_dir) if parsed.pinned else None
    if there is not None:
        return OpenModel(_snapshot(parsed.repo, parsed.revision, cache_dir), there)
    hub = _hub(f"hf://{parsed.repo}")
    try:
        listing = hub.resolve(parsed)
    except HubUnreachableError:
        stale = _facts_on_disk(parsed, cache_dir)
        if stale is None:
            raise
        return OpenModel(_snapshot(parsed.repo, stale.fingerprint, cache_dir), stale)
    folder: Path = hub.download(parsed, listing, cache_dir, progress or _ignore)
    return OpenModel(folder, folder_facts(folder, source=source, fingerprint=listing.commit))


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
        return ""


def _snapshot(repo: str, commit: str, cache_dir: Path) -> Path:
    return _repo_folder(repo, cache_dir) / "snapshots" / commit


def _repo_folder(repo: str, cache_dir: Path) -> Path:
    """`models--owner--name`, as every Hugging Face tool lays it out."""
    return cache_dir / ("models--" + repo.replace("/", "--"))


def _ignore(done_bytes: int, total_bytes: int) -> None:
    del done_bytes, total_bytes


def _hub(source: str) -> ModuleType:
    """The only module with the hub's client, which the base install lacks. Raises HubUnreachableError."""
    try:
        return importlib.import_module("cotenant_cache.hub")
    except ImportError as error:
        raise HubUnreachableError(
            f"{source}: {error.name} is not installed. Run: pip install 'cotenant[cache]'"
        ) from error
