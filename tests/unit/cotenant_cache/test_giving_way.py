"""Which preloads have to end for what is needed now: as few as can be, and the least important ones."""

from pathlib import Path

import pytest
from tests.builders.cache_ledger import MIB, files

from cotenant_cache.evicting import in_the_way
from cotenant_cache.giving_way import Sign, Word
from cotenant_cache.ledger_claims import FETCHING
from cotenant_cache.store import Store, flight_key

NEEDED = ("org/needed", "1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A volume of 10 MiB."""
    return Store(tmp_path, 10 * MIB)


def fetch(root: Path, repo: str, size_mib: int, priority: int | None, *words: Word) -> Store:
    """A fetch of somebody else, of which these signs are up."""
    other, model = Store(root, 10 * MIB), (repo, "1")
    with other.transaction() as tx:
        tx.put_model(*model, files(**{repo[4:]: size_mib * MIB}))
        tx.reserve(flight_key(repo), size_mib * MIB, for_=model)
        tx.lease(*model, FETCHING)
        if priority is not None:
            tx.set_preload([(*model, priority)])
    for word in words:
        Sign(root, flight_key(repo), word).show()
    return other


def ending(store: Store, needed_mib: int) -> tuple[str, ...] | None:
    with store.transaction() as tx:
        return in_the_way(store, tx, needed_mib * MIB, NEEDED)


def test_the_least_important_that_is_enough_ends(store: Store) -> None:
    others = [fetch(store.root, f"org/{name}", 3, priority, "preload") for name, priority in (("a", 5), ("b", 1))]
    assert ending(store, 4) == (), "there is room as it is"
    assert ending(store, 5) == ("models--org--b",)
    assert set(ending(store, 8) or ()) == {"models--org--a", "models--org--b"}
    assert ending(store, 11) is None, "that would be no help"
    for other in others:
        other.close()
    assert ending(store, 10) == (), "whoever promised it room has died"


def test_no_more_important_one_ends_beside_one_that_is_enough(store: Store) -> None:
    others = [
        fetch(store.root, f"org/{name}", size, priority, "preload")
        for name, size, priority in (("a", 1, 0), ("b", 6, 1), ("c", 2, 2))
    ]
    assert ending(store, 7) == ("models--org--b",)
    assert len(others) == 3


@pytest.mark.parametrize("words", [(), ("needed",), ("preload", "needed")])
def test_what_somebody_needs_now_does_not_end(store: Store, words: tuple[Word, ...]) -> None:
    other = fetch(store.root, "org/a", 6, 0, *words)
    assert ending(store, 5) is None
    other.close()


def test_a_model_of_a_preload_that_is_used_as_well_stays(store: Store) -> None:
    other = fetch(store.root, "org/a", 6, 0, "preload")
    with other.transaction() as tx:
        tx.blob_published("org/a", "a", 6 * MIB, verified=True)
        tx.lease("org/a", "1", "engine")
    assert ending(store, 5) is None
    other.close()
