"""Usage lines that wait to be written together, when their worker is killed with -9 at any moment."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest

from cotenant_serving.gateway.board import SharedBoard
from cotenant_serving.gateway.recovery import Recovery
from cotenant_serving.gateway.usage_file import UsageFile

pytestmark = pytest.mark.integration

ROUNDS, WRITERS = 15, 4
"""Kills: the product of both."""

SETTLE_FOR_EVER = """
import os, random, sys, time
from pathlib import Path
from cotenant_serving.gateway.board import LocalCount, SharedBoard
from cotenant_serving.gateway.journal import Journal
from cotenant_serving.gateway.usage import UsageLog, UsageRecord
from cotenant_serving.gateway.usage_file import UsageFile

folder, name = Path(sys.argv[1]), sys.argv[2]
board, rng, due = SharedBoard(int(sys.argv[3]), column=0, columns=1), random.Random(name), []
journal = Journal.create(folder / "journals", 0, 64)
file = UsageFile(folder / "usage.jsonl", board.usage_open)
log = UsageLog(file, journal, waiting=LocalCount(), dropped=LocalCount(), later=due.append)
log.retry(time.time())
number = 0
while True:
    entries = []
    for number in range(number + 1, number + rng.randint(2, 12)):
        request_id = f"req-{name}-{number}"
        entry = journal.begin(request_id, "search", "search/echo", prompt_tokens=1, now=time.time())
        entry.sent(True)
        entries.append((request_id, entry))
    for request_id, entry in entries:
        log.add(UsageRecord(time=time.time(), tenant="search", model="search/echo", request_id=request_id,
            prompt_tokens=1, completion_tokens=2, estimated=False, outcome="ok", status=200, duration_s=0.5,
            time_to_first_byte_s=None), entry)
        os.write(1, request_id.encode() + b"\\n")  # only now has its client the last byte
        if due and rng.random() < 0.2:
            due.pop()()
    if rng.random() < 0.05:
        log.retry(time.time())
"""


def test_what_was_answered_before_a_kill_is_counted_once_and_nothing_twice(tmp_path: Path):
    board, rng = SharedBoard.create(column=0, columns=1), random.Random(1)
    usage = UsageFile(tmp_path / "usage.jsonl", board.usage_open)
    recovered = board.count("recovered")
    recovery = Recovery(tmp_path / "journals", usage, recovered)
    recovery.prepare()
    answered: list[str] = []
    for turn in range(ROUNDS):
        writers = [start(tmp_path, f"{turn}-{number}", board) for number in range(WRITERS)]
        for writer in writers:
            assert writer.stdout is not None
            answered.append(writer.stdout.readline().strip())
        for writer in writers:
            time.sleep(rng.uniform(0, 0.01))
            writer.kill()
        for writer in writers:
            answered += writer.communicate()[0].split()
        recovery.run()

    whole = [line for line in usage.path.read_bytes().splitlines() if line.endswith(b"}")]
    records = [orjson.loads(line) for line in whole]
    times = Counter(record["request_id"] for record in records)
    assert max(times.values()) == 1
    outcomes = {record["request_id"]: record["outcome"] for record in records}
    assert {outcomes.get(one) for one in answered} == {"ok"}
    assert set(outcomes.values()) == {"ok", "gateway_lost"}
    assert recovered.total() > ROUNDS * WRITERS
    assert list((tmp_path / "journals").iterdir()) == []
    board.close()


def start(folder: Path, name: str, board: SharedBoard) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SETTLE_FOR_EVER, str(folder), name, str(board.fileno())],
        pass_fds=(board.fileno(),),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
