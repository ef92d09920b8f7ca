"""What a fetch holds (its lease, its promised bytes) when it ends and the ledger cannot be written right then."""

import sqlite3
import threading
from pathlib import Path

import pytest
from tests.builders.cache_ledger import ledger_path, opened
from tests.builders.cached_models import model_files, volume_bytes
from tests.builders.fake_hub import FakeHub

from cotenant_cache.cache import Cache
from cotenant_cache.errors import VolumeError

pytestmark = pytest.mark.integration

MIB = 2**20


class Busy:
    """Somebody else has the ledger from the first byte of a fetch on, until it is `free`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._other: sqlite3.Connection | None = None
        self._turn = threading.Lock()  # files come by several threads
        self.wanted = True

    def step(self, what: str) -> None:
        with self._turn:
            if what == "partial.write:before" and self.wanted and self._other is None:
                self._other = sqlite3.connect(ledger_path(self._root), isolation_level=None, check_same_thread=False)
                self._other.execute("BEGIN IMMEDIATE")

    def free(self) -> None:
        assert self._other is not None
        self._other.close()
        self.wanted = False


def test_a_fetch_that_fails_while_the_ledger_is_busy_holds_nothing_as_soon_as_it_is_free(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "")
    hub.put("org/a", model_files(3 * MIB))
    busy = Busy(tmp_path)
    with Cache(tmp_path, 7 * MIB, step=busy.step) as cache, Cache(tmp_path, 7 * MIB) as other:
        cache._store.ledger._connection.execute("PRAGMA busy_timeout = 50")  # ms, instead of 30 s
        with pytest.raises(VolumeError, match="stayed locked"):
            cache.ensure("hf://org/a")
        busy.free()
        assert [model.leases for model in cache.models()] == [0]
        assert other.usage().reserved_bytes == 0
        assert other.usage().used_bytes == volume_bytes(tmp_path)
        assert other.evict(["hf://org/a"], yes=True).refusal == ""


def test_bytes_that_are_given_back_late_are_not_those_that_another_was_promised_since(tmp_path: Path) -> None:
    mine, theirs = opened(tmp_path, "mine"), opened(tmp_path, "theirs")
    with mine.transaction() as tx:
        tx.reserve("a", 100, for_=("org/a", "1"))
    with theirs.transaction() as tx:
        tx.reserve("a", 30, for_=("org/a", "1"))
    with mine.transaction() as tx:
        tx.release("a")
        assert tx.reserved_others() == 30
