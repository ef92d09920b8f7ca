"""The memory that workers share, when processes that write to it are killed at any moment."""

import os
import random
import subprocess
import sys
import time

import pytest

from cotenant_serving.gateway.board import SharedBoard

pytestmark = pytest.mark.integration

WRITE_FOR_EVER = """
import sys
from cotenant_serving.gateway.board import SharedBoard
board = SharedBoard(int(sys.argv[1]), column=1, columns=2)
account, count, number = board.account("search"), board.count("running"), 0.0
print("writes", flush=True)
while True:
    with account:
        number = account.load()[0] + 1.0
        account.store((number,) * 4)
    count.add(1)
"""


def test_whoever_is_killed_leaves_whole_levels_and_no_lock():
    board = SharedBoard.create(column=0, columns=2)
    account, rng = board.account("search"), random.Random(1)
    before = 0.0
    for _ in range(12):
        writers = [start(board.fileno()) for _ in range(2)]
        time.sleep(rng.uniform(0, 0.02))
        for writer in writers:
            writer.kill()
            writer.communicate()

        with account:  # would wait for ever for a lock that a dead process holds
            levels = account.load()
        assert set(levels) == {levels[0]}
        assert levels[0] > before
        before = levels[0]
    assert board.count("running").total() > 0
    board.clear(1)
    assert board.count("running").total() == 0
    board.close()


def start(file: int) -> "subprocess.Popen[str]":
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(file)],
        pass_fds=(file,),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writes\n"
    return writer
