"""What the holder of a flight does: list, check what is here, make room, fetch, publish, give names.

Every step can be cut off at any point, and is then done again by whoever comes next: bytes that arrived stay in
`partial/`, blobs that were published stay published, and no name in `snapshots/` appears before its model is whole.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TYPE_CHECKING

from cotenant_cache.adopting import adopt
from cotenant_cache.backoff import Patience, retried
from cotenant_cache.belonging import may_go
from cotenant_cache.contract import ModelFile
from cotenant_cache.errors import (
    CacheError,
    CacheFullError,
    CorruptWeightsError,
    DiskFullError,
    FetchStoppedError,
    HubUnreachableError,
    ModelNotFoundError,
    TooLateError,
)
from cotenant_cache.evicting import in_the_way, make_room
from cotenant_cache.found import noted_revisions
from cotenant_cache.giving_way import Asking, Yielding
from cotenant_cache.holders import Flight
from cotenant_cache.ledger_claims import FETCHING
from cotenant_cache.ledger_records import Tx
from cotenant_cache.shelving import Leased, look_after_the_dead, look_again, missing, name_files, take
from cotenant_cache.store import Store, flight_key, volume_errors
from cotenant_cache.supply import Listed, Supply, Watch
from cotenant_cache.telling import Teller
from cotenant_cache.verifying import verify_files

if TYPE_CHECKING:
    from cotenant_cache.ensuring import Ask

FILES_AT_ONCE = 4
_ROUNDS = 3
"""How often a blob may go bad, or somebody else fill the disk, while the others are fetched."""
_LISTING_PATIENCE = Patience(attempts=3, longest_asked_s=30.0)
"""After the first attempt; who asked tries again anyhow, later."""
_POLL_S = 0.2


class Flying:
    """One flight. Used up by `run`."""

    def __init__(self, store: Store, supply: Supply, ask: "Ask", flight: Flight) -> None:
        self._store, self._supply, self._ask = store, supply, ask
        self._repo, self._key = ask.source.repo, flight_key(ask.source.repo)
        self._teller = Teller(ask.text, flight, ask.tell, store.clock)
        self._stopped = threading.Event()
        self._yielding = Yielding(store, self._key, preload=ask.priority is not None)

    def run(self) -> Leased:
        """Raises CacheError, and says so to those that wait, unless only this call's time is up or its wish over."""
        try:
            with volume_errors(self._store.root):
                self._go_on("it was about to begin")
                leased = self._listed_or_recorded()
        except (TooLateError, FetchStoppedError):
            raise
        except CacheError as error:
            self._teller.failed(error)
            raise
        finally:
            self._yielding.end()
        self._teller.done(leased)
        return leased

    def _listed_or_recorded(self) -> Leased:
        self._teller.phase("resolving")
        try:
            listed = self._supply.listed(self._ask.source, self._left_s)
        except HubUnreachableError as error:
            there = self._without_hub()
            if there is not None:
                return there
            listed = self._listed_elsewhere_or_later(error)
        except ModelNotFoundError:  # a commit that is here is what it is, whatever a hub has now
            there = self._without_hub() if self._ask.source.pinned else None
            if there is None:
                raise
            return there
        there = self._as_another_left_it(listed)
        if there is not None:
            return there
        lease_id = self._begin(listed)
        try:
            return self._complete(listed, lease_id)
        except BaseException:
            self._store.write_or_owe(lambda tx: self._give_up(tx, listed, lease_id))
            raise

    def _listed_elsewhere_or_later(self, error: HubUnreachableError) -> Listed:
        """Only who has nothing to serve asks others, or waits for a hub that may answer the next time."""
        clock, source = self._store.clock, self._ask.source
        doing = "it was asking which files it has, and the hub did not answer"
        self._in_time(doing)
        elsewhere = self._supply.listed_elsewhere(source, self._left_s)
        if elsewhere is not None:
            return self._as_a_hub_had_it(elsewhere)
        self._in_time(doing)
        if not error.transient:
            raise error
        try:
            listed = retried(
                self._listed_anywhere, _LISTING_PATIENCE, sleep=clock.sleep, random=clock.random, stop=self._stop
            )
            return self._as_a_hub_had_it(listed)
        except (HubUnreachableError, FetchStoppedError):
            self._in_time(doing)
            raise

    def _listed_anywhere(self) -> Listed:
        try:
            return self._supply.listed(self._ask.source, self._left_s)
        except HubUnreachableError:
            elsewhere = self._supply.listed_elsewhere(self._ask.source, self._left_s)
            if elsewhere is None:
                raise
            return elsewhere

    def _as_a_hub_had_it(self, listed: Listed) -> Listed:
        """What a hub has once said of the commit stands above another node's word."""
        with self._store.transaction() as tx:
            known = tx.model(self._repo, listed.commit)
        return listed if known is None or known.found or not listed.found else Listed(listed.commit, known.files)

    def _let_go(self, tx: Tx, lease_id: str) -> None:
        tx.release(self._key)
        tx.unlease(lease_id)

    def _give_up(self, tx: Tx, listed: Listed, lease_id: str) -> None:
        look_again(self._store, tx, self._repo, listed.files)
        self._let_go(tx, lease_id)

    def _without_hub(self) -> Leased | None:
        """The commit that the source last was, or names, if it is whole here."""
        source = self._ask.source
        commit = source.revision if source.pinned else self._store.volume.revisions(self._repo).get(source.revision)
        return None if commit is None else self._adopted(commit)

    def _as_another_left_it(self, listed: Listed) -> Leased | None:
        """A model that another user put there, without what only that user could add; None: it is ours, or lacks
        nothing, or too much."""
        if may_go(self._store.volume, self._repo, listed.commit):
            return None
        with self._store.transaction() as tx:
            lacking = missing(self._store, tx, self._repo, listed.files)
        return self._adopted(listed.commit) if lacking else None

    def _adopted(self, commit: str) -> Leased | None:
        """If it is whole here, by the last word of a hub or by its own files."""

        def begin(files: Sequence[ModelFile]) -> None:
            self._teller.model(commit, files)
            self._teller.phase("verifying")

        adopted = adopt(self._store, self._repo, commit, self._checked, self._ask.until, begin)
        with self._store.transaction() as tx:
            ask, whole = self._ask, not adopted.refusal
            return take(self._store, tx, self._repo, commit, ask.lease, ask.priority, found_ok=whole)

    def _begin(self, listed: Listed) -> str:
        """From here on nobody evicts what there is of this model."""
        with self._store.transaction() as tx:
            tx.put_model(self._repo, listed.commit, listed.files, found=listed.found)
            lease_id = tx.lease(self._repo, listed.commit, FETCHING)
        self._teller.model(listed.commit, listed.files)
        return lease_id

    def _complete(self, listed: Listed, lease_id: str) -> Leased:
        for last in (False,) * (_ROUNDS - 1) + (True,):
            self._check(listed.files)
            try:
                self._fetch_all(listed)
            except DiskFullError:  # the next round looks at the disk as it is now, and evicts for it if it can
                if last:
                    raise
                continue
            leased = self._finish(listed, lease_id)
            if leased is not None:
                return leased
        raise CorruptWeightsError(
            f"{self._ask.text}: files turned out bad, or went, as fast as they came; check the disk under "
            f"{self._store.root}"
        )

    def _check(self, files: Sequence[ModelFile]) -> None:
        self._teller.phase("verifying")
        verify_files(self._store, self._repo, files, self._checked, self._ask.until)

    def _checked(self, file: ModelFile, done_bytes: int) -> None:
        self._teller.file(file.name, done_bytes)
        self._go_on(f"{file.name} was checked")

    def _fetch_all(self, listed: Listed) -> None:
        lacking = self._make_room(listed)
        absent = {file.digest for file in lacking}
        self._teller.here([file.name for file in listed.files if file.digest not in absent])
        for file in lacking:
            self._teller.file(file.name, self._store.volume.partial_bytes(self._repo, file.digest))
        self._teller.phase("fetching")
        self._stopped.clear()
        with ThreadPoolExecutor(FILES_AT_ONCE, "fetch") as threads:
            fetches = [threads.submit(self._fetch, listed.commit, file) for file in lacking]
            try:
                ended, _ = wait(fetches, return_when=FIRST_EXCEPTION)
            finally:  # for the others, if one failed or the caller is told to end
                self._stopped.set()
            errors = [error for fetch in ended if (error := fetch.exception()) is not None]
            if errors:
                for fetch in fetches:
                    fetch.cancel()
                raise errors[0]

    def _make_room(self, listed: Listed) -> tuple[ModelFile, ...]:
        """What lacks. Its bytes are this instance's from here on."""
        with Asking(self._store) as asking:
            while True:
                try:
                    return self._room_made(listed)
                except (CacheFullError, DiskFullError):
                    if self._ask.priority is not None:
                        raise
                    flights = self._in_the_way(listed)
                    if flights is None or not asking.ask(flights):
                        raise
                self._in_time("it was waiting for preloads to give way")
                self._store.clock.sleep(_POLL_S)

    def _room_made(self, listed: Listed) -> tuple[ModelFile, ...]:
        with self._teller.beating(), self._store.transaction() as tx:
            look_after_the_dead(self._store, tx)
            # Again: the ledger may have been lost meanwhile.
            tx.put_model(self._repo, listed.commit, listed.files, found=listed.found)
            lacking, needed = self._lacking(tx, listed)
            if lacking:
                self._teller.phase("making room")
                make_room(self._store, tx, needed, (self._repo, listed.commit), self._ask.priority)
                tx.reserve(self._key, sum(file.size_bytes for file in lacking), for_=(self._repo, listed.commit))
        return lacking

    def _in_the_way(self, listed: Listed) -> tuple[str, ...] | None:
        with self._teller.beating(), self._store.transaction() as tx:
            _, needed = self._lacking(tx, listed)
            return in_the_way(self._store, tx, needed, (self._repo, listed.commit))

    def _lacking(self, tx: Tx, listed: Listed) -> tuple[tuple[ModelFile, ...], int]:
        """Files, and the bytes of them that are not on the disk."""
        lacking = missing(self._store, tx, self._repo, listed.files)
        begun = {file.digest: self._store.volume.partial_bytes(self._repo, file.digest) for file in lacking}
        return lacking, sum(max(0, file.size_bytes - begun[file.digest]) for file in lacking)

    def _fetch(self, commit: str, file: ModelFile) -> None:
        """One file, until it is published."""
        store, began = self._store, self._store.clock.monotonic()
        with volume_errors(store.root), store.volume.open_partial(self._repo, file.digest) as partial:
            first = partial.size
            report = lambda done: self._teller.file(file.name, done, fetched=True)  # noqa: E731
            watch = Watch(report, self._room, self._stop, self._left_s)
            try:
                self._supply.fetch(replace(self._ask.source, revision=commit), file, partial, watch)
            except CacheError:
                self._in_time(f"it was fetching {file.name}; what arrived is kept")
                raise
            with self._teller.beating():
                partial.sync()
        took_s = (store.clock.monotonic() - began) * file.size_bytes / max(1, file.size_bytes - first)
        with self._teller.beating(), store.transaction() as tx:
            store.volume.publish(self._repo, file.digest)
            tx.blob_published(self._repo, file.digest, file.size_bytes, verified=True, fetch_s=took_s)
            tx.shrink_reservation(self._key, file.size_bytes)

    def _stop(self) -> bool:
        return self._stopped.is_set() or self._left_s() <= 0

    def _left_s(self) -> float:
        """Of the caller's time. Whatever waits asks again and again, and so is heard by those who wait for it."""
        self._teller.alive()
        over = self._ask.stop() or self._yielding.asked()
        return 0.0 if over else self._ask.until - self._store.clock.monotonic()

    def _go_on(self, doing: str) -> None:
        if self._yielding.asked():
            raise FetchStoppedError(
                f"{self._ask.text}: this preload gave way to what is needed now while {doing}; it is tried again"
            )
        if self._ask.stop():
            raise FetchStoppedError(f"{self._ask.text}: it was wanted no more while {doing}")

    def _in_time(self, doing: str) -> None:
        if self._left_s() > 0:
            return
        self._go_on(doing)
        raise TooLateError(
            f"{self._ask.text}: not here after {self._ask.deadline_s:g} s; {doing}: ask again, with a longer deadline"
        )

    def _room(self, count: int) -> None:
        """Before each block: the reservation is only worth something while nobody else fills the disk."""
        free, kept = self._store.volume.disk().free_bytes, self._store.kept_bytes(self._ask.priority)
        if free - kept < count:
            stays = f", {kept} have to stay free" if kept else ""
            raise DiskFullError(
                f"{self._store.root}: {free} bytes are free{stays}, the next block of {self._ask.text} needs "
                f"{count}; something that is not the cache fills the disk: make room on it"
            )

    def _finish(self, listed: Listed, lease_id: str) -> Leased | None:
        """Names, record of the branch, and the caller's lease, in one step; None when something is not there."""
        source, store = self._ask.source, self._store
        with store.transaction() as tx:
            if missing(store, tx, self._repo, listed.files):
                return None
            name_files(store, self._repo, listed.commit, listed.files)
            noted = noted_revisions(store.root, self._repo) if source.pinned else {source.revision: listed.commit}
            for revision, commit in noted.items():
                if commit == listed.commit:
                    store.volume.record_revision(self._repo, revision, commit)
            self._let_go(tx, lease_id)
            return take(
                store, tx, self._repo, listed.commit, self._ask.lease, self._ask.priority, found_ok=listed.found
            )
