"""The weight cache on one volume, for one instance. Everything that an instance can be asked stands here.

    with Cache(Path("/var/lib/cotenant/models"), budget_bytes=500 * 2**30) as cache:
        leased = cache.ensure("hf://Qwen/Qwen3-4B", lease_name="engine 7")

Instances are processes, any number of them on one volume, and any of them may die at any time. Nothing here needs
another instance to be up, and nothing needs the hub for what is on disk.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from cotenant_cache import adopting, evicting, verifying
from cotenant_cache.adopting import Adopted
from cotenant_cache.contract import CachedModel, ModelFile, Progress, RoomPlan, Usage
from cotenant_cache.ensuring import Ask, Ensuring
from cotenant_cache.errors import CacheError, ModelNotFoundError
from cotenant_cache.holders import Flight
from cotenant_cache.repair import Repaired, reconcile, repair
from cotenant_cache.shelving import Leased, lease_if_whole, missing
from cotenant_cache.source import MAIN, FolderSource, HubAccess, HubSource, parse_source
from cotenant_cache.store import Clock, Store, volume_errors
from cotenant_cache.supply import HubSupply, Supply
from cotenant_cache.verifying import BadBlob, Verified


class Cache:
    """Threads may share one. Opening repairs what a crash left. Raises VolumeError, NewerFormatError, CacheError.

    `budget_bytes` None: what the volume is set to, or only the disk bounds it, of which what is needed now leaves
    `kept_share` free, and what is only preloaded `store.PRELOAD_KEPT`. `supply` is where files come from: the hub, if
    it is None.
    `step` is called before and after each operation that changes the volume; tests die there.
    """

    def __init__(
        self,
        root: Path,
        budget_bytes: int | None = None,
        *,
        access: HubAccess = HubAccess(),  # noqa: B008 - frozen
        supply: Supply | None = None,
        clock: Clock = Clock(),  # noqa: B008 - frozen
        step: Callable[[str], None] = lambda name: None,
        kept_share: float = 0.0,
    ) -> None:
        self._access = access
        self._supply = supply
        self._store = Store(root, budget_bytes, clock=clock, step=step, kept_share=kept_share, reconcile=reconcile)
        try:
            self.repaired = repair(self._store)
        except BaseException:
            self._store.close()
            raise

    @property
    def root(self) -> Path:
        return self._store.root

    @property
    def holder(self) -> str:
        """This instance's id; its leases end when it closes or dies."""
        return self._store.holder.id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._store.close()

    def ensure(
        self,
        source: str,
        lease_name: str = "",
        progress: Callable[[Progress], None] | None = None,
        deadline_s: float | None = None,
        *,
        priority: int | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Leased:
        """Whole and verified on the volume, and leased if that has a name. Blocks.

        A commit that is here needs no hub, if one has listed it; a branch is resolved, or, when the hub is gone, what
        it last was. A folder of its own (`file://`) passes through. `priority` is that of a preload list, whose
        models do not drive each other out; None: somebody needs it now. `stop` says, from any thread, that the caller
        wants it no more: what came is kept, and who else waits for it goes on. Raises CacheError; TooLateError when
        `deadline_s` is over, FetchStoppedError.
        """
        parsed = self._parsed(source)
        if isinstance(parsed, FolderSource):
            if not Path(parsed.path).is_dir():
                raise ModelNotFoundError(f"{source}: there is no such folder; check the path")
            return Leased(Path(parsed.path))
        limit_s = math.inf if deadline_s is None else deadline_s
        ask = Ask(
            parsed,
            lease_name,
            progress or _ignore,
            until=self._store.clock.monotonic() + limit_s,
            deadline_s=limit_s,
            priority=priority,
            stop=stop,
        )
        return Ensuring(self._store, self._hub(), ask).run()

    def plan(self, source: str) -> RoomPlan:
        """What `ensure` would let go. Asks the hub; changes nothing. Raises CacheError."""
        parsed = self._on_hub(source)
        listed = self._hub().listed(parsed)
        with self._store.transaction() as tx:
            lacking = missing(self._store, tx, parsed.repo, listed.files)
            begun = sum(self._store.volume.partial_bytes(parsed.repo, file.digest) for file in lacking)
            needed = sum(file.size_bytes for file in lacking) - begun
            inventory = self._store.inventory(tx)
        plan = evicting.room_plan(self._store, inventory, needed, (parsed.repo, listed.commit))
        return self._store.told(plan)

    def models(self) -> tuple[CachedModel, ...]:
        with self._store.transaction() as tx:
            return self._store.shown(tx)

    def listing(self, repo: str, commit: str) -> tuple[ModelFile, ...]:
        """The files of a model that is whole and verified here; none of any other."""
        with self._store.transaction() as tx:
            model = tx.model(repo, commit)
            if model is None or missing(self._store, tx, repo, model.files):
                return ()
        with suppress(CacheError):
            return adopting.whole_listing(self._store, repo, commit, model.files) if model.found else model.files
        return ()

    def blob(self, repo: str, digest: str) -> Path | None:
        """Where a blob is that is published and verified. Raises CacheError for what is no repository or digest."""
        with self._store.transaction() as tx:
            verified = any(blob.digest == digest and blob.verified for blob in tx.blobs(repo))
        return self._store.volume.blob(repo, digest) if verified else None

    def usage(self) -> Usage:
        with self._store.transaction() as tx:
            return self._store.usage(tx)

    def evict(self, sources: Iterable[str] = (), room_bytes: int = 0, *, yes: bool = False) -> RoomPlan:
        """Without `yes` only the plan. What is leased or pinned is refused with the reason; then nothing goes."""
        models = [self._known(source) for source in sources]
        return self._store.told(evicting.evict(self._store, models, room_bytes, yes=yes))

    def lease(self, source: str, name: str) -> Leased:
        """Of what is whole on the volume; the hub is not asked. Raises ModelNotFoundError."""
        repo, commit = self._known(source)
        leased = lease_if_whole(self._store, repo, commit, name)
        if (
            leased is None
            and not adopting.adopt(self._store, repo, commit, lambda file, done: None, math.inf).refusal
        ):
            leased = lease_if_whole(self._store, repo, commit, name, found_ok=True)
        if leased is None:
            raise ModelNotFoundError(f"{source}: is not whole on {self.root}; ensure it first")
        return leased

    def release(self, lease_id: str) -> None:
        with self._store.transaction() as tx:
            tx.unlease(lease_id)

    def pin(self, source: str) -> str:
        """Never evicted until it is unpinned. → its commit. Raises ModelNotFoundError."""
        repo, commit = self._known(source)
        with self._store.transaction() as tx:
            tx.pin(repo, commit)
        return commit

    def unpin(self, source: str) -> str:
        repo, commit = self._known(source)
        with self._store.transaction() as tx:
            tx.unpin(repo, commit)
        return commit

    def verify(
        self,
        sources: Iterable[str] | None = None,
        rate_bytes_per_s: float = 0.0,
        stop: Callable[[], bool] = lambda: False,
        told: Callable[[BadBlob], None] = lambda bad: None,
        progress: Callable[[Progress], None] | None = None,
        *,
        every_s: float = 0.0,
    ) -> Verified:
        """Reads blobs again, the longest unverified first; a bad one is quarantined and its models are not whole.

        What any instance verified less than `every_s` ago, or verifies meanwhile, is not read.
        """
        models = None if sources is None else [self._known(source) for source in sources]
        return verifying.verify(
            self._store,
            models=models,
            every_s=every_s,
            rate_bytes_per_s=rate_bytes_per_s,
            stop=stop,
            told=told,
            tell=progress or _ignore,
        )

    @contextmanager
    def turn(self, work: str) -> Iterator[bool]:
        """Whether this instance is the one of all on the volume that does some work now, until the block ends.

        Raises VolumeError.
        """
        with volume_errors(self.root):
            turn = Flight.try_enter(self.root, work)
        try:
            yield turn is not None
        finally:
            if turn is not None:
                turn.leave()

    def adopt(self, progress: Callable[[Progress], None] | None = None) -> tuple[Adopted, ...]:
        """Checks what other Hugging Face tools have put into the layout since, so that it is served."""
        repair(self._store)
        return adopting.adopt_all(self._store, progress or _ignore)

    def repair(self) -> Repaired:
        return repair(self._store)

    def recorded(self, source: HubSource) -> str:
        """The commit that a branch was when it was last resolved here; empty when it never was."""
        if source.pinned:
            return source.revision
        return self._store.volume.revisions(source.repo).get(source.revision, "")

    def note_budget(self, budget_bytes: int | None) -> None:
        """What the volume is set to from now on, for instances that are told nothing else; None: nothing.

        Raises DiskFullError, VolumeError.
        """
        with volume_errors(self.root):
            if self._store.volume.budget() != budget_bytes:
                self._store.volume.set_budget(budget_bytes)

    def set_preload(self, items: Iterable[tuple[str, str, int]], coming: Collection[str] = ()) -> None:
        """(repo, commit, priority) of what goes last, by priority, while this instance lives; replaces its list.

        `coming`: repositories that are being fetched for the list. What `ensure` has noted of them stays.
        """
        with self._store.transaction() as tx:
            tx.set_preload(items, coming)

    def _known(self, source: str) -> tuple[str, str]:
        """(repo, commit) of a model on the volume: of a branch as recorded; of none also the only one there is.

        Raises ModelNotFoundError.
        """
        parsed = self._on_hub(source)
        recorded = self._store.volume.revisions(parsed.repo)
        wanted = parsed.revision if parsed.pinned else recorded.get(parsed.revision)
        with self._store.transaction() as tx:
            commits = [model.commit for model in tx.listings(parsed.repo)]
        if wanted in commits:
            return parsed.repo, wanted
        if wanted is None and parsed.revision == MAIN and len(commits) == 1:  # fetched by its commit, as preloads are
            return parsed.repo, commits[0]
        raise ModelNotFoundError(f"{source}: is not on {self.root}{_there(commits, recorded)}")

    def _on_hub(self, source: str) -> HubSource:
        parsed = self._parsed(source)
        if isinstance(parsed, FolderSource):
            raise ModelNotFoundError(f"{source}: is a folder of its own, which the cache neither holds nor evicts")
        return parsed

    def _parsed(self, source: str) -> FolderSource | HubSource:
        parsed = parse_source(source)
        return replace(parsed, access=self._access) if isinstance(parsed, HubSource) else parsed

    def _hub(self) -> Supply:
        """Made when it is needed: the base install has no client of the hub."""
        if self._supply is None:
            self._supply = HubSupply()
        return self._supply


def _there(commits: Sequence[str], revisions: Mapping[str, str]) -> str:
    """What is there of a repository instead, for a message, and the next step."""
    if not commits:
        return "; `cotenant cache ls` lists what is"
    names = {commit: [name for name, to in revisions.items() if to == commit] for commit in commits}
    shown = [f"{commit} ({', '.join(names[commit])})" if names[commit] else commit for commit in commits]
    return f", which has {' and '.join(shown)} of it; name one of these, or ensure this one first"


def _ignore(progress: Progress) -> None:
    del progress
