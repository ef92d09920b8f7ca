"""The cache's ledger between processes: budgets, kills, versions, and a file that somebody took away."""

import multiprocessing
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from tests.builders import cache_ledger as programs
from tests.builders.cache_ledger import MIB, NEWER, Disk, ledger_path, opened, put

from cotenant_cache.errors import DiskFullError

pytestmark = pytest.mark.integration

WAIT_S = 60
Start = Callable[..., tuple[BaseProcess, Connection]]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(program, *arguments)` → a process with a pipe to it, killed at the end."""
    spawn = multiprocessing.get_context("spawn")
    running = []

    def begin(program: Callable[..., None], *arguments: object) -> tuple[BaseProcess, Connection]:
        here, there = spawn.Pipe()
        process = spawn.Process(target=program, args=(*arguments, there), daemon=True)
        process.start()
        there.close()
        running.append((process, here))
        return process, here

    yield begin
    for process, pipe in running:
        process.kill()
        process.join(WAIT_S)
        pipe.close()


def heard(pipe: Connection) -> object:
    assert pipe.poll(WAIT_S), "the other process says nothing"
    return pipe.recv()


def test_processes_that_reserve_at_once_never_promise_more_than_the_budget(tmp_path: Path, start: Start) -> None:
    """Four of them; one model of 10 MiB is in use and stays, two of 5 MiB go."""
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/used", d1=10 * MIB)
        tx.lease("org/used", "1", "engine")
        put(tx, "org/free", d2=5 * MIB)
        put(tx, "org/also", d3=5 * MIB)
    pipes = [start(programs.reserve_until_full, str(tmp_path), f"p{n}", 30 * MIB, MIB)[1] for n in range(4)]
    assert [heard(pipe) for pipe in pipes] == ["ready"] * 4
    for pipe in pipes:
        pipe.send("go")
    taken = [heard(pipe) for pipe in pipes]

    assert sum(int(str(count)) for count in taken) == 20
    with opened(tmp_path).transaction() as tx:
        found = tx.inventory(30 * MIB, Disk(), 0, 0)
    assert [held.repo for held in found.models] == ["org/used"]
    assert found.used_bytes + found.reserved_bytes == 30 * MIB


def test_uses_that_many_processes_count_at_once_are_all_counted(tmp_path: Path, start: Start) -> None:
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/a", d1=10)
    processes = [start(programs.add_uses, str(tmp_path), f"p{n}", 5)[0] for n in range(4)]
    for process in processes:
        process.join(WAIT_S)

    with opened(tmp_path).transaction() as tx:
        assert tx.inventory(100, Disk(), 0, 0).models[0].uses == 20


@pytest.mark.parametrize("spilled", [False, True], ids=["in memory", "already in the file"])
def test_a_process_killed_in_the_middle_of_a_transaction_has_done_nothing(
    tmp_path: Path, start: Start, spilled: bool
) -> None:
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/a", d1=10)
        tx.reconciled()
    before = ledger_path(tmp_path).read_bytes()

    process, _ = start(programs.die_in_a_transaction, str(tmp_path), spilled)
    process.join(WAIT_S)

    assert process.exitcode == -9
    if spilled:  # or the test shows less than it says
        assert ledger_path(tmp_path).read_bytes() != before
        assert ledger_path(tmp_path).with_name("ledger.sqlite-journal").stat().st_size > 0
    ledger = opened(tmp_path)
    assert not ledger.rebuilt
    with ledger.transaction() as tx:
        assert [(model.repo, model.present_bytes) for model in tx.models()] == [("org/a", 10)]
        assert not tx.models()[0].pinned
    assert ledger_path(tmp_path).read_bytes()[100:] == before[100:]


def test_an_open_ledger_goes_on_after_another_process_was_killed_in_its_transaction(
    tmp_path: Path, start: Start
) -> None:
    ledger = opened(tmp_path)
    process, _ = start(programs.die_in_a_transaction, str(tmp_path), True)
    process.join(WAIT_S)

    with ledger.transaction() as tx:
        assert tx.models() == ()
        put(tx, "org/a", d1=10)
    with opened(tmp_path).transaction() as tx:
        assert len(tx.models()) == 1


def test_processes_killed_at_any_moment_leave_whole_transactions(tmp_path: Path, start: Start) -> None:
    for number in range(5):
        process, pipe = start(programs.pin_in_pairs, str(tmp_path), f"p{number}")
        assert heard(pipe) == "begun"
        time.sleep(0.02 * number)
        process.kill()
        process.join(WAIT_S)

        ledger = opened(tmp_path)
        with ledger.transaction() as tx:
            pins = tx._pins()
        ledger.close()
        assert {repo for repo, side in pins if side == "left"} == {repo for repo, side in pins if side == "right"}
    assert not list(tmp_path.rglob("*.damaged"))


def test_a_newer_cotenant_takes_over_and_the_older_one_writes_no_more(tmp_path: Path, start: Start) -> None:
    with opened(tmp_path).transaction() as tx:
        put(tx, "org/a", d1=10)
    _, older = start(programs.lease_and_wait, str(tmp_path), "older")
    assert heard(older) == "leased"

    newer = opened(tmp_path, "newer", migrations=NEWER)
    older.send("again")

    assert heard(older) == "NewerFormat"
    with newer.transaction() as tx:
        assert [lease.holder for lease in tx.leases(["older"])] == ["older"]
        assert [lease.holder for lease in tx.leases([])] == []
        assert tx.models()[0].repo == "org/a"


def test_leases_of_a_living_process_come_back_after_the_ledger_was_damaged(tmp_path: Path, start: Start) -> None:
    with opened(tmp_path).transaction() as tx:
        tx.reconciled()
    _, living = start(programs.lease_and_wait, str(tmp_path), "living")
    assert heard(living) == "leased"
    ledger_path(tmp_path).write_bytes(b"no ledger any more")

    ledger = opened(tmp_path)
    assert ledger.rebuilt
    with ledger.transaction() as tx:
        assert tx.leases() == ()
    living.send("again")

    assert heard(living) == "1 leases"
    with ledger.transaction() as tx:
        assert [(lease.holder, lease.repo, lease.name) for lease in tx.leases()] == [("living", "org/a", "engine")]
        assert tx.reserved_others() == 7


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 KiB of tmpfs; skipped where this user may not mount."""
    root = tmp_path / "disk"
    root.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"this user may not mount a tmpfs: {mounted.stderr.decode()}")
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


def test_a_disk_that_somebody_filled_loses_nothing_and_room_on_it_is_enough(small_disk: Path) -> None:
    ledger = opened(small_disk)
    with ledger.transaction() as tx:
        put(tx, "org/a", d1=10)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(2**20))

    with pytest.raises(DiskFullError):
        pin_much(ledger)

    with ledger.transaction() as tx:
        assert [model.repo for model in tx.models()] == ["org/a"]
    filler.unlink()
    pin_much(ledger)
    ledger.close()
    with sqlite3.connect(ledger_path(small_disk)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    connection.close()


def pin_much(ledger: programs.Ledger) -> None:
    with ledger.transaction() as tx:
        for number in range(300):
            tx.pin(f"org/{number}", "1")
