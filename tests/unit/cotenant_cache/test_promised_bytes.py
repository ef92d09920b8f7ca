"""What is promised to fetches, and how much of it is on the disk already."""

from pathlib import Path

import pytest
from tests.builders.cache_ledger import MIB, files

from cotenant_cache.evicting import make_room
from cotenant_cache.plan import Inventory
from cotenant_cache.store import Store, flight_key


def begin(store: Store, repo: str, commit: str, **sizes_mib: int) -> None:
    """The fetch of a commit: its files are known, and their room is promised. Nothing is written yet."""
    with store.transaction() as tx:
        tx.put_model(repo, commit, files(**{digest: size * MIB for digest, size in sizes_mib.items()}))
        tx.reserve(flight_key(repo), sum(sizes_mib.values()) * MIB, for_=(repo, commit))


def write(store: Store, repo: str, digest: str, size_mib: int) -> None:
    with store.volume.open_partial(repo, digest) as partial:
        for _ in range(size_mib):
            partial.write(memoryview(bytes(MIB)))


def inventory(store: Store) -> Inventory:
    with store.transaction() as tx:
        return store.inventory(tx)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A volume on which the fetch of `org/a@1` was killed after 4 MiB."""
    first = Store(tmp_path, 10 * MIB)
    begin(first, "org/a", "1", old=4)
    write(first, "org/a", "old", 4)
    first.close()
    return tmp_path


def test_what_was_written_of_another_commit_was_not_promised_to_this_one(killed: Path) -> None:
    second, other = Store(killed, 10 * MIB), Store(killed, 10 * MIB)
    begin(second, "org/a", "2", new=5)

    found = inventory(other)
    assert (found.partial_bytes, found.reserved_bytes) == (4 * MIB, 5 * MIB)
    with other.transaction() as tx:
        plan = make_room(other, tx, 5 * MIB, ("org/b", "1"))
    assert [(gone.repo, gone.commit, gone.frees_bytes) for gone in plan.evict] == [("org/a", "1", 4 * MIB)]
    assert inventory(other).used_bytes == 0


def test_what_one_fetch_has_written_hides_nothing_of_what_another_is_promised(tmp_path: Path) -> None:
    store, looking = Store(tmp_path, None), Store(tmp_path, None)
    begin(store, "org/a", "1", one=3, two=2)
    begin(store, "org/b", "1", three=5)
    write(store, "org/a", "one", 3)
    assert inventory(looking).reserved_bytes == 7 * MIB

    with store.transaction() as tx:  # as a fetch whose published files left nothing promised to it
        tx.shrink_reservation(flight_key("org/a"), 4 * MIB)
    assert inventory(looking).reserved_bytes == 5 * MIB


def test_a_file_that_two_commits_share_counts_for_the_one_that_is_fetched(killed: Path) -> None:
    second, looking = Store(killed, 10 * MIB), Store(killed, 10 * MIB)
    begin(second, "org/a", "2", old=4, new=3)
    assert inventory(looking).reserved_bytes == 3 * MIB


def test_a_partial_beside_its_file_or_longer_than_it_makes_no_room(tmp_path: Path) -> None:
    """Another tool has put the whole file there, or a file was announced longer once."""
    store, looking = Store(tmp_path, None), Store(tmp_path, None)
    write(store, "org/a", "here", 2)
    write(store, "org/a", "long", 4)
    begin(store, "org/a", "1", long=3, new=5)
    with store.transaction() as tx:
        tx.put_model("org/a", "1", files(here=2 * MIB, long=3 * MIB, new=5 * MIB))
        tx.blob_published("org/a", "here", 2 * MIB, verified=True)
    assert inventory(looking).reserved_bytes == 5 * MIB
