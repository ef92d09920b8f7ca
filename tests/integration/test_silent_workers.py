"""A supervisor whose workers hang: the processes and the memory are real, the time is the test's."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cotenant_serving.gateway.board import SIGNS_OF_LIFE, USAGE_DROPPED, SharedBoard
from cotenant_serving.gateway.listening import take_port
from cotenant_serving.gateway.options import parse_options
from cotenant_serving.gateway.recovery import Recovery
from cotenant_serving.gateway.supervisor import SILENT_S, SPARED_S, Shared, Supervisor, Worker
from cotenant_serving.gateway.usage_file import UsageFile

pytestmark = pytest.mark.integration


class Sleepers(Supervisor):
    """Its workers do nothing at all."""

    def _process(self, worker: Worker) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["sleep", "600"])

    def process_ids(self) -> list[int]:
        return [worker.process.pid if worker.process else 0 for worker in self._workers]

    def wait(self, number: int) -> int:
        process = self._workers[number].process
        assert process is not None
        return process.wait(timeout=30)


class Made:
    """Two workers, their supervisor, and a view of the board for each."""

    def __init__(self, state: Path) -> None:
        arguments = ["--config", "c.json", "--port", "0", "--state", str(state), "--workers", "2"]
        self.board = SharedBoard.create(column=2, columns=3)
        self.workers = [SharedBoard(os.dup(self.board.fileno()), column=column, columns=3) for column in (0, 1)]
        usage = UsageFile(state / "usage.jsonl", self.board.usage_open)
        recovery = Recovery(state / "journals", usage, self.board.count("usage recovered"))
        recovery.prepare()
        self.port = take_port("127.0.0.1", 0, shared=True, ending=lambda: False)
        shared = Shared(recovery=recovery, port=self.port, admin=None, link=None, config=-1)
        self.supervisor = Sleepers(parse_options(arguments), arguments, self.board, shared)
        self.now_s = 1000.0

    def pass_s(self, seconds: float, *, alive: tuple[int, ...]) -> None:
        """Turns of the supervisor, while some workers give signs of life."""
        for _ in range(int(seconds)):
            for number in alive:
                self.workers[number].count(SIGNS_OF_LIFE).add(1)
            self.supervisor._turn(self.now_s)
            self.now_s += 1.0

    def close(self) -> None:
        self.supervisor._kill()
        self.port.close()
        for board in (*self.workers, self.board):
            board.close()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    one = Made(tmp_path)
    yield one
    one.close()


def test_a_worker_that_was_stopped_is_killed_and_started_again_and_the_others_stay(made: Made, caplog):
    made.workers[1].count(USAGE_DROPPED).add(3)
    made.workers[1].count("waiting").add(5)
    made.pass_s(3, alive=(0, 1))
    first, second = made.supervisor.process_ids()
    os.kill(second, signal.SIGSTOP)

    made.pass_s(SILENT_S - 1, alive=(0,))
    assert "no sign of life" not in caplog.text
    made.pass_s(1, alive=(0,))
    assert made.supervisor.wait(1) == -signal.SIGKILL
    made.pass_s(2, alive=(0,))

    assert made.supervisor.process_ids()[0] == first
    assert made.supervisor.process_ids()[1] not in (0, second)
    assert [record.fields["event"] for record in caplog.records] == ["worker_silent", "worker_ended"]
    assert made.board.count("waiting").total() == 0
    assert made.board.count(USAGE_DROPPED).total() == 3, "a counter does not go back"


def test_of_two_that_hang_one_is_killed_first_because_the_other_may_wait_for_it(made: Made):
    made.pass_s(3, alive=(0, 1))
    before = made.supervisor.process_ids()
    made.pass_s(1, alive=(0,))  # the second one is silent for longer

    made.pass_s(SILENT_S - 1, alive=())
    assert made.supervisor.wait(1) == -signal.SIGKILL
    made.pass_s(SPARED_S - 1, alive=())  # the first one has been silent for long enough too
    made.pass_s(SILENT_S, alive=(0,))

    assert made.supervisor.process_ids()[0] == before[0]
    assert made.supervisor.process_ids()[1] not in (0, before[1])
