"""What an instance has and only the ledger knows: how it outlasts a ledger that is lost."""

import errno
from pathlib import Path

import pytest
from tests.builders.cache_ledger import ledger_path, opened, put

from cotenant_cache.disk import CONTROL
from cotenant_cache.holders import Holder, kept_by
from cotenant_cache.ledger_claims import Kept
from cotenant_cache.store import Store

KEPT = Kept(
    {"id": ("org/a", "1", "engine", 5.0)},
    {"flight": ("org/b", "2", 70)},
    {("org/a", "1"): 3},
)


def test_what_is_kept_reads_as_it_was_written() -> None:
    assert Kept.decoded(KEPT.encoded()) == KEPT
    assert Kept.decoded(Kept().encoded()) == Kept()
    assert Kept.decoded(b"") == Kept()


def test_what_a_later_version_keeps_besides_is_passed_over() -> None:
    assert Kept.decoded(KEPT.encoded()[:-1] + b', "more": [1]}') == KEPT


def test_a_holder_keeps_what_it_said_last_also_when_that_is_shorter(tmp_path: Path) -> None:
    (tmp_path / CONTROL / "holders").mkdir(parents=True)
    holder = Holder.enter(tmp_path)
    assert kept_by(tmp_path, holder.id) == b""
    for said in (b"x" * 5000, b"short", b"x" * 9000):
        holder.keep(said)
        assert kept_by(tmp_path, holder.id) == said
    holder.leave()
    assert kept_by(tmp_path, holder.id) == b""


def test_a_lease_needs_no_room_on_the_disk_for_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, None)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.posix_fallocate", full)
        with store.transaction() as tx:
            lease = tx.lease("org/a", "1", "engine")
    assert kept_by(tmp_path, store.holder.id) == b""
    with store.transaction() as tx:
        assert [one.id for one in tx.leases()] == [lease]
    assert list(Kept.decoded(kept_by(tmp_path, store.holder.id)).leases) == [lease]
    store.close()


def test_a_lease_that_was_written_into_a_ledger_taken_away_meanwhile_is_in_the_new_one(tmp_path: Path) -> None:
    first = opened(tmp_path, "first")
    with first.transaction() as tx:
        put(tx, "org/a", d1=10)
        ledger_path(tmp_path).unlink()
        second = opened(tmp_path, "second")
        with second.transaction() as other:
            other.reconciled()
        lease = tx.lease("org/a", "1", "engine")
    with second.transaction() as tx:
        assert [(one.id, one.holder) for one in tx.leases()] == [(lease, "first")]


def test_blobs_and_partials_of_a_repository_that_another_one_fetches_are_not_loose(tmp_path: Path) -> None:
    store = Store(tmp_path, None)
    with store.transaction() as tx:
        tx.blob_published("org/a", "d1", 10, verified=False)
        loose = {("org/a", "d1"): 10, ("org/b", "d2"): 20}
        partials = {("org/b", "d2"): 20}
        disk = store.volume.disk()
        assert tx.inventory(100, disk, 20, 0, partials=partials).loose == loose
        tx.reserve("flight", 50, for_=("org/b", "1"))
        assert tx.inventory(100, disk, 20, 0, partials=partials).loose == {("org/a", "d1"): 10}
        assert tx.inventory(100, disk, 20, 0, partials=partials, flight="flight").loose == loose
    store.close()
