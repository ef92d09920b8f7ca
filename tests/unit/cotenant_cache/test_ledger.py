"""The ledger of a weight cache: what it knows, whom it believes, and what it makes of a damaged file."""

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders.cache_ledger import NEWER, Clock, Disk, files, ledger_path, opened, put

from cotenant_cache.contract import FORMAT
from cotenant_cache.errors import DiskFullError, NewerFormatError, VolumeError
from cotenant_cache.ledger import Ledger, Tx
from cotenant_cache.plan import Inventory


def inventory(tx: Tx, **options: object) -> Inventory:
    return tx.inventory(1000, Disk(), 0, 0, **options)


def test_a_new_ledger_says_that_it_lacks_what_the_disk_has_until_it_was_reconciled(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert ledger.rebuilt
    assert opened(tmp_path).rebuilt
    with ledger.transaction() as tx:
        tx.reconciled()

    assert not ledger.rebuilt
    assert not opened(tmp_path).rebuilt


def test_what_was_committed_is_there_for_the_next(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/a", d1=10, d2=20)

    with opened(tmp_path, "other").transaction() as tx:
        (model,) = tx.models()
    assert (model.repo, model.commit, model.files) == ("org/a", "1", 2)
    assert (model.size_bytes, model.present_bytes, model.whole, model.verified) == (30, 30, True, True)


def test_a_transaction_that_fails_has_done_nothing(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with pytest.raises(ZeroDivisionError), ledger.transaction() as tx:  # noqa: PT012
        put(tx, "org/a", d1=10)
        tx.lease("org/a", "1", "engine")
        raise ZeroDivisionError

    with ledger.transaction() as tx:
        assert tx.models() == ()
        assert tx.leases() == ()


def test_a_model_tells_which_of_its_files_are_missing(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        tx.put_model("org/a", "1", files(d1=10, d2=20))
        tx.blob_published("org/a", "d1", 10, verified=True)
        model = tx.model("org/a", "1")
        assert model is not None
        assert [file.digest for file in model.missing] == ["d2"]
        assert not model.whole
        assert tx.models()[0].present_bytes == 10

        tx.blob_published("org/a", "d2", 20, verified=False)

        assert tx.model("org/a", "1").whole  # type: ignore[union-attr]
        assert not tx.models()[0].verified
        tx.blob_verified("org/a", "d2")
        assert tx.models()[0].verified


def test_a_blob_that_is_gone_makes_its_models_less_than_whole(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/a@1", both=10, one=5)
        put(tx, "org/a@2", both=10, two=6)
        tx.blob_gone("org/a", "both")

        assert [model.present_bytes for model in tx.models()] == [5, 6]
        assert [held.whole for held in inventory(tx).models] == [False, False]


def test_blobs_that_commits_share_count_once_and_are_told_apart(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/a@1", both=10, one=5)
        put(tx, "org/a@2", both=10, two=6)
        put(tx, "org/b", both=10)
        found = inventory(tx)

    assert found.blob_bytes == 31
    assert {(held.repo, held.commit): (held.own_bytes, dict(held.shared)) for held in found.models} == {
        ("org/a", "1"): (5, {"both": 10}),
        ("org/a", "2"): (6, {"both": 10}),
        ("org/b", "1"): (10, {}),
    }


def test_removing_a_model_names_the_blobs_that_nobody_needs_any_more(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/a@1", both=10, one=5)
        put(tx, "org/a@2", both=10, two=6)
        tx.put_model("org/a", "3", files(begun=9))

        assert tx.remove_model("org/a", "1") == ("one",)
        assert inventory(tx).loose == {("org/a", "one"): 5}
        tx.blob_gone("org/a", "one")
        assert inventory(tx).loose == {}
        assert set(tx.remove_model("org/a", "2")) == {"both", "two"}
        assert tx.remove_model("org/a", "3") == ("begun",)
        assert tx.remove_model("org/a", "3") == ()
        assert [blob.digest for blob in tx.blobs()] == ["both", "two"]


def test_a_listing_that_changed_lets_go_of_blobs_it_no_longer_names(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/a", d1=10, d2=20)
        tx.put_model("org/a", "1", files(d1=10, d3=30), found=True)

        assert inventory(tx).loose == {("org/a", "d2"): 20}
        (model,) = tx.listings("org/a")
        assert model.found
        assert [file.digest for file in model.missing] == ["d3"]
        tx.put_model("org/a", "1", files(d1=10, d3=30))
        assert not tx.listings()[0].found


def test_one_file_under_two_names_counts_once(tmp_path: Path) -> None:
    twice = (*files(d1=10), files(d1=10)[0].__class__(name="again.json", size_bytes=10, digest="d1"))
    with opened(tmp_path).transaction() as tx:
        tx.put_model("org/a", "1", twice)
        tx.blob_published("org/a", "d1", 10, verified=True)

        assert (tx.models()[0].size_bytes, tx.models()[0].files) == (10, 2)


def test_begun_fetches_belong_to_their_models_or_are_loose(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        tx.put_model("org/a", "1", files(d1=10))
        found = tx.inventory(1000, Disk(), 7, 0, partials={("org/a", "d1"): 3, ("org/z", "d9"): 4})

    assert found.models[0].partials == {"d1": 3}
    assert found.loose == {("org/z", "d9"): 4}
    assert found.used_bytes == 7


def test_bytes_promised_to_the_living_count_and_a_model_they_are_for_is_being_fetched(tmp_path: Path) -> None:
    mine, theirs = opened(tmp_path, "mine"), opened(tmp_path, "theirs")
    with mine.transaction() as tx:
        tx.put_model("org/a", "1", files(d1=100))
        tx.reserve("a", 100, for_=("org/a", "1"))
        tx.reserve("b", 30, for_=("org/b", "1"))
    with theirs.transaction() as tx:
        assert tx.reserved_others(["mine"]) == 130
        assert tx.reserved_others([]) == 0
        assert inventory(tx, alive=["mine"]).models[0].fetching
        assert not inventory(tx, alive=[]).models[0].fetching
        tx.shrink_reservation("a", 90)
        tx.shrink_reservation("b", 99)
        assert tx.reserved_others(["mine"]) == 10
    with mine.transaction() as tx:
        assert tx.reserved_others([], flight="a") == 0
        tx.release("a")
        assert tx.reserved_others() == 0


def test_leases_of_the_dead_do_not_count_and_whoever_looks_removes_them(tmp_path: Path) -> None:
    dead, alive = opened(tmp_path, "dead"), opened(tmp_path, "alive")
    with dead.transaction() as tx:
        put(tx, "org/a", d1=10)
        tx.lease("org/a", "1", "engine")
        tx.reserve("f", 5)
    with alive.transaction() as tx:
        mine = tx.lease("org/a", "1", "mine")
        assert tx.holders() == {"dead", "alive"}
        assert tx.models()[0].leases == 2
        assert tx.models(alive=[])[0].leases == 1
        assert inventory(tx, alive=[]).models[0].leases == ("mine",)
        assert tx.forget_dead([]) == 2
        assert tx.holders() == {"alive"}
        tx.unlease(mine)
        tx.unlease(mine)
        assert tx.leases() == ()


def test_pins_and_preload_priorities_reach_the_planner_and_outlive_the_model(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        tx.pin("org/a", "1")
        tx.set_preload([("org/a", "1", 3), ("org/a", "1", 8), ("org/a", "1", 5)])
        put(tx, "org/a", d1=10)
        (held,) = inventory(tx).models
        assert (held.pinned, held.preload) == (True, 8)
        tx.remove_model("org/a", "1")
        put(tx, "org/a", d1=10)
        assert tx.models()[0].pinned
        tx.unpin("org/a", "1")
        tx.set_preload([])
        (held,) = inventory(tx).models
        assert (held.pinned, held.preload) == (False, None)


def test_instances_have_preload_lists_of_their_own_and_the_highest_priority_counts(tmp_path: Path) -> None:
    """Two pools may share a volume."""
    one, other = opened(tmp_path, "one"), opened(tmp_path, "other")
    with one.transaction() as tx:
        put(tx, "org/a", d1=10)
        tx.set_preload([("org/a", "1", 1)])
    with other.transaction() as tx:
        tx.set_preload([("org/a", "1", 7)])
        tx.set_preload([("org/a", "1", 5)])
        assert inventory(tx).models[0].preload == 5
    with one.transaction() as tx:
        assert inventory(tx, alive=["other"]).models[0].preload == 5
        assert inventory(tx, alive=[]).models[0].preload == 1
        assert tx.models(alive=[])[0].preload
        tx.set_preload([])
        assert not tx.models(alive=[])[0].preload
        assert tx.forget_dead([]) == 1
        assert inventory(tx).models[0].preload is None


def test_a_preload_list_is_written_into_a_ledger_that_was_made_anew(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with ledger.transaction() as tx:
        tx.set_preload([("org/a", "1", 4)])
    ledger.path.unlink()
    with ledger.transaction() as tx:
        put(tx, "org/a", d1=10)
        assert inventory(tx).models[0].preload == 4


def test_uses_lose_half_of_their_weight_in_a_day(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock=clock).transaction() as tx:
        put(tx, "org/a", d1=10)
        tx.touch("org/a", "1")
        tx.touch("org/a", "1")
        clock.now += 86_400
        tx.touch("org/a", "1")
        assert inventory(tx).models[0].uses == 2
        clock.now -= 1e6
        tx.touch("org/a", "1")
        assert inventory(tx).models[0].uses == 3
        assert tx.models()[0].used_at == clock.now


def test_time_to_fetch_again_is_what_it_took_or_what_others_took_per_byte(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        tx.put_model("org/a", "1", files(d0=100, d1=100 * 2**20))
        tx.put_model("org/b", "1", files(d2=400 * 2**20))
        assert tx.models()[1].refetch_s == 400 * 2**20 / 100e6
        tx.blob_published("org/a", "d0", 100, verified=True, fetch_s=0.5)
        assert tx.models()[1].refetch_s == 400 * 2**20 / 100e6, "a small file's time is that of a request"
        tx.blob_published("org/a", "d1", 100 * 2**20, verified=True, fetch_s=4.5)
        tx.blob_published("org/b", "d2", 400 * 2**20, verified=False)

        assert [round(model.refetch_s, 3) for model in tx.models()] == [5.0, 20.0]


def test_what_was_checked_longest_ago_is_checked_next(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock=clock).transaction() as tx:
        for digest in ("d1", "d2"):
            clock.now += 1
            put(tx, f"org/{digest}", **{digest: 1})
        tx.blob_published("org/x", "adopted", 1, verified=False)

        assert [blob.digest for blob in tx.blobs_to_verify()][:2] == ["adopted", "d1"]
        assert [blob.verified for blob in tx.blobs_to_verify()] == [False, True, True]


# formats and damage


def test_a_newer_format_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    with opened(tmp_path, migrations=NEWER).transaction() as tx:
        put(tx, "org/a", d1=10)
    before = ledger_path(tmp_path).read_bytes()

    with pytest.raises(NewerFormatError, match="has changed nothing; use the newer cotenant"):
        opened(tmp_path)

    assert ledger_path(tmp_path).read_bytes() == before
    assert {path.name for path in ledger_path(tmp_path).parent.iterdir()} <= {
        "ledger.sqlite",
        "ledger.sqlite.lock",
        "ledger.sqlite-journal",
    }


def test_an_older_format_is_brought_forward_with_what_it_has(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/a", d1=10)

    with opened(tmp_path, migrations=NEWER).transaction() as tx:
        assert tx.models()[0].repo == "org/a"
    with sqlite3.connect(ledger_path(tmp_path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT + 1
        assert connection.execute("SELECT flavour FROM models").fetchall() == [("plain",)]
    connection.close()


def test_an_older_cotenant_stops_writing_once_a_newer_one_has_taken_over(tmp_path: Path) -> None:
    older = opened(tmp_path, "older")
    opened(tmp_path, "newer", migrations=NEWER)

    with pytest.raises(NewerFormatError), older.transaction() as tx:
        tx.pin("org/a", "1")


def test_a_migration_that_fails_leaves_the_older_format(tmp_path: Path) -> None:
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/a", d1=10)
    with pytest.raises(sqlite3.OperationalError):
        opened(tmp_path, migrations=(*NEWER, ("no SQL",)))

    with opened(tmp_path).transaction() as tx:
        assert tx.models()[0].repo == "org/a"


@pytest.mark.parametrize(
    "content",
    [b"", b"not a ledger", b"SQLite format 3\x00" + bytes(84), os.urandom(20_000)],
    ids=["empty", "text", "header", "noise"],
)
def test_a_file_that_is_no_ledger_is_set_aside(tmp_path: Path, content: bytes) -> None:
    ledger_path(tmp_path).parent.mkdir()
    ledger_path(tmp_path).write_bytes(content)

    ledger = opened(tmp_path)

    assert ledger.rebuilt
    with ledger.transaction() as tx:
        assert tx.models() == ()
    if content:
        assert ledger_path(tmp_path).with_name("ledger.sqlite.damaged").read_bytes() == content


def test_a_database_of_something_else_is_set_aside(tmp_path: Path) -> None:
    ledger_path(tmp_path).parent.mkdir()
    with sqlite3.connect(ledger_path(tmp_path)) as connection:
        connection.execute("CREATE TABLE cats(name)")
    connection.close()

    assert opened(tmp_path).rebuilt


@settings(max_examples=30)
@given(st.data())
def test_a_ledger_with_flipped_bytes_opens_whatever_they_hit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("volume")
    ledger = opened(root)
    with ledger.transaction() as tx:
        for number in range(30):
            put(tx, f"org/{number}", **{f"d{number}": 10})
        tx.reconciled()
    ledger.close()
    content = bytearray(ledger_path(root).read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    ledger_path(root).write_bytes(content)

    try:
        ledger = opened(root)
    except NewerFormatError:
        return
    for _ in range(2):
        try:
            with ledger.transaction() as tx:
                tx.models(), tx.listings(), inventory(tx), tx.blobs()
                put(tx, "org/new", d=1)
            break
        except VolumeError:
            assert ledger.rebuilt
    with ledger.transaction() as tx:
        assert tx.model("org/new", "1") is not None
    ledger.close()


def test_damage_found_later_is_told_and_the_next_transaction_has_an_empty_ledger(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with ledger.transaction() as tx:
        tx.reconciled()
        for number in range(300):
            put(tx, f"org/{number}", **{f"d{number}": 10})
        lease = tx.lease("org/1", "1", "engine")
        tx.reserve("f", 5, for_=("org/2", "1"))
    content = bytearray(ledger_path(tmp_path).read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    content[24:28] = b"\xff\xff\xff\xff"  # the change counter, by which other processes' writes are noticed
    with ledger_path(tmp_path).open("r+b") as file:
        file.write(content)

    with (
        pytest.raises(VolumeError, match=r"set aside as ledger\.sqlite\.damaged; try again"),
        ledger.transaction() as tx,
    ):
        tx.models()

    assert ledger.rebuilt
    with ledger.transaction() as tx:
        assert tx.models() == ()
        assert [(one.id, one.name) for one in tx.leases()] == [(lease, "engine")]
        assert tx.reserved_others() == 5


def test_a_ledger_that_somebody_deleted_is_made_anew_with_the_leases_of_the_living(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with ledger.transaction() as tx:
        tx.reconciled()
        kept, given_back = tx.lease("org/a", "1", "engine"), tx.lease("org/a", "1", "other")
    with ledger.transaction() as tx:
        tx.unlease(given_back)
    ledger_path(tmp_path).unlink()

    with ledger.transaction() as tx:
        assert [lease.id for lease in tx.leases()] == [kept]
    assert ledger.rebuilt


# what SQLite and the operating system refuse


def test_a_ledger_that_stays_locked_is_told_with_the_way_to_find_who_has_it(tmp_path: Path) -> None:
    first, second = opened(tmp_path, "first"), opened(tmp_path, "second", busy_s=0.05)

    with (
        first.transaction(),
        pytest.raises(VolumeError, match="stayed locked by another process; find it with `fuser"),
    ):
        second.transaction().__enter__()

    with second.transaction() as tx:
        assert tx.models() == ()


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with ledger.transaction() as tx:
        put(tx, "org/a", d1=10)
        tx._run("PRAGMA max_page_count = 1")  # answers as a full disk does

    with pytest.raises(DiskFullError, match="the disk is full; make room on the disk that holds"):
        fill(ledger)

    with ledger.transaction() as tx:
        assert [model.repo for model in tx.models()] == ["org/a"]


def fill(ledger: Ledger) -> None:
    with ledger.transaction() as tx:
        for number in range(1000):
            put(tx, f"org/{number}", **{f"d{number}": 10})


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / ".cotenant").write_text("a file")

    with pytest.raises(VolumeError, match="let this user write below"):
        opened(tmp_path)


def test_errors_of_the_caller_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), opened(tmp_path).transaction():
        (tmp_path / "elsewhere").read_bytes()
