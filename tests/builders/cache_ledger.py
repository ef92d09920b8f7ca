"""Ledgers of a weight cache for tests, and programs that use one from processes of their own."""

import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from cotenant_cache.contract import ModelFile
from cotenant_cache.errors import CacheError
from cotenant_cache.ledger import Ledger, Tx
from cotenant_cache.ledger_format import MIGRATIONS
from cotenant_cache.plan import plan_room

MIB = 2**20
NEWER = (*MIGRATIONS, ("ALTER TABLE models ADD COLUMN flavour TEXT NOT NULL DEFAULT 'plain'",))
"""Of a cotenant to come."""


@dataclass(frozen=True)
class Disk:
    free_bytes: int = 2**50


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def ledger_path(root: Path) -> Path:
    return root / ".cotenant" / "ledger.sqlite"


def opened(root: Path, holder: str = "me", **options: object) -> Ledger:
    return Ledger.open(ledger_path(root), holder=holder, **{"clock": Clock(), **options})


def files(**sizes: int) -> tuple[ModelFile, ...]:
    """`files(d1=10)`: a file of 10 bytes whose digest is `d1`."""
    return tuple(
        ModelFile(name=f"{digest}.safetensors", size_bytes=size, digest=digest) for digest, size in sizes.items()
    )


def put(tx: Tx, name: str, **sizes: int) -> None:
    """`org/a@2`, with all blobs on disk and verified."""
    repo, _, commit = name.partition("@")
    tx.put_model(repo, commit or "1", files(**sizes))
    for digest, size in sizes.items():
        tx.blob_published(repo, digest, size, verified=True, fetch_s=1.0)


def reserve_until_full(root: str, holder: str, budget_bytes: int, step_bytes: int, told: Connection) -> None:
    """Reserves for one flight after the other until a plan refuses; tells how many. Models go for it on the way."""
    ledger = Ledger.open(ledger_path(Path(root)), holder=holder)
    taken = 0
    told.send("ready")
    told.recv()
    while True:
        with ledger.transaction() as tx:
            inventory = tx.inventory(budget_bytes, Disk(), 0, 0)
            plan = plan_room(step_bytes, inventory, for_=(holder, str(taken)), now=time.time())
            if not plan.fits:
                break
            for gone in plan.evict:
                for digest in tx.remove_model(gone.repo, gone.commit):
                    tx.blob_gone(gone.repo, digest)
            tx.reserve(f"{holder}.{taken}", step_bytes, for_=(holder, str(taken)))
        taken += 1
    told.send(taken)


def die_in_a_transaction(root: str, spilled: bool, _: Connection) -> None:
    """Writes much, so that pages reach the file before the commit, which never comes."""
    ledger = Ledger.open(ledger_path(Path(root)), holder="dying")
    with ledger.transaction() as tx:
        if spilled:
            tx._run("PRAGMA cache_size = 4")
        tx.pin("org/never", "1")
        for number in range(400):
            tx.put_model(f"org/{number}", "1", files(**{f"digest-{number}-{n}": 10 for n in range(5)}))
        os.kill(os.getpid(), signal.SIGKILL)


def lease_and_wait(root: str, holder: str, told: Connection) -> None:
    """Takes a lease, waits for a word, then makes one more transaction and tells how it went."""
    ledger = Ledger.open(ledger_path(Path(root)), holder=holder)
    with ledger.transaction() as tx:
        tx.lease("org/a", "1", "engine")
        tx.reserve("flight", 7, for_=("org/b", "1"))
    told.send("leased")
    told.recv()
    told.send(_outcome(ledger))


def _outcome(ledger: Ledger) -> str:
    try:
        with ledger.transaction() as tx:
            return f"{len(tx.leases())} leases"
    except CacheError as error:
        return error.reason


def add_uses(root: str, holder: str, count: int, _: Connection) -> None:
    ledger = Ledger.open(ledger_path(Path(root)), holder=holder, clock=lambda: 0.0)
    for _ in range(count):
        with ledger.transaction() as tx:
            tx.touch("org/a", "1")


def pin_in_pairs(root: str, holder: str, told: Connection) -> None:
    """Two pins in each transaction, until it is killed."""
    ledger = Ledger.open(ledger_path(Path(root)), holder=holder)
    told.send("begun")
    number = 0
    while True:
        with ledger.transaction() as tx:
            tx.pin(f"{holder}/{number}", "left")
            tx.pin(f"{holder}/{number}", "right")
        number += 1
        time.sleep(0.01)
