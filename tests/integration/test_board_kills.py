"""The memory that workers share, when processes that write to it are killed at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from cotenant_serving.gateway.board import SharedBoard

pytestmark = pytest.mark.integration

SEED = 1
BEGIN = """
import os, signal, sys
from cotenant_serving.gateway.board import SharedBoard
board = SharedBoard(int(sys.argv[1]), column=1, columns=2)
account, count, number = board.account("search"), board.count("running"), board.number("level")
print("begins", flush=True)
"""
WRITES_FOR_EVER = """
while True:
    with account.lock:
        level = account.load()[0] + 1.0
        account.store((level,) * 4)
    count.add(1)
"""
KILLED_WITHIN = """
with account.lock:
    account.store((account.load()[0] + 1.0,) * 4)
    os.kill(os.getpid(), signal.SIGKILL)
"""
STOPPED_WITHIN = """
with account.lock:
    print("holds", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""
COUNTS = """
for _ in range(5000):
    with account.lock:
        account.store((account.load()[0] + 1.0,) * 4)
    number.add(1.0)
"""


@pytest.fixture(params=["mutexes", "file locks"])
def board(request: pytest.FixtureRequest) -> Iterator[SharedBoard]:
    one = SharedBoard.create(column=0, columns=2, mutexes=request.param == "mutexes")
    yield one
    one.close()


def test_whoever_is_killed_leaves_whole_levels_and_no_lock(board: SharedBoard):
    account, rng = board.account("search"), random.Random(SEED)
    before = 0.0
    for _ in range(12):
        writers = [start(board, WRITES_FOR_EVER) for _ in range(2)]
        time.sleep(rng.uniform(0, 0.02))
        for writer in writers:
            writer.kill()
            writer.communicate()

        with account.lock:  # would wait for ever for a lock that a dead process holds
            levels = account.load()
        assert set(levels) == {levels[0]}, f"seed {SEED}"
        assert levels[0] > before
        before = levels[0]
    assert board.count("running").total() > 0
    board.clear(1)
    assert board.count("running").total() == 0


def test_what_was_stored_by_one_who_was_killed_with_the_lock_stands_and_the_lock_is_free(board: SharedBoard):
    account = board.account("search")
    for kills in range(1, 5):
        killed = start(board, KILLED_WITHIN)
        assert killed.wait(timeout=60) == -signal.SIGKILL
        killed.communicate()

        with account.lock:
            assert account.load() == (kills,) * 4


def test_who_is_stopped_with_the_lock_keeps_it_and_those_that_wait_get_it_when_he_is_killed(board: SharedBoard):
    account = board.account("search")
    stopped = start(board, STOPPED_WITHIN)
    assert stopped.stdout is not None
    assert stopped.stdout.readline() == "holds\n"
    waiting = start(board, KILLED_WITHIN)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=0.2)
    assert account.load()[0] == 0

    stopped.kill()
    assert waiting.wait(timeout=60) == -signal.SIGKILL

    with account.lock:
        assert account.load()[0] == 1.0
    for process in (stopped, waiting):
        process.communicate()


def test_no_change_is_lost_between_processes_that_all_change_the_same(board: SharedBoard):
    counting = [start(board, COUNTS) for _ in range(4)]
    for process in counting:
        assert process.wait(timeout=120) == 0
        process.communicate()

    assert board.account("search").load() == (20_000.0,) * 4
    assert board.number("level").get() == 20_000.0


def start(board: SharedBoard, work: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + work, str(board.fileno())],
        pass_fds=(board.fileno(),),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    return process
