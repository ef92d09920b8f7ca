"""The memory guard ends the engine that exceeds its share, after two samples and with numbers."""

import errno
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cotenant_serving.contract import Reason
from cotenant_serving.engine.guard import FAILURES, Guard, judge

MIB = 2**20


@pytest.mark.parametrize("used_mib", [0, 100, 110])
def test_use_within_the_tolerance_is_fine_and_forgets_what_was(used_mib: int) -> None:
    verdict = judge(used_mib * MIB, 100 * MIB, over=1)
    assert (verdict.over, verdict.kill) == (0, False)


def test_one_sample_over_the_limit_is_only_counted() -> None:
    verdict = judge(111 * MIB, 100 * MIB, over=0)
    assert (verdict.over, verdict.kill) == (1, False)


def test_the_second_sample_in_a_row_kills_and_says_both_numbers() -> None:
    verdict = judge(111 * MIB, 100 * MIB, over=1)
    assert verdict.kill
    assert str(111 * MIB) in verdict.message
    assert str(100 * MIB) in verdict.message


def test_without_a_share_there_is_nothing_to_exceed() -> None:
    assert not judge(10**12, 0, over=5).kill


def test_the_guard_reports_every_sample_and_ends_once_it_must() -> None:
    samples = iter([50, 150, 50, 150, 151])
    reported: list[int] = []
    ended: list[tuple[Reason, str]] = []
    guard = Guard(lambda: next(samples), 100, reported.append, lambda *said: ended.append(said))
    kills = [guard.sample().kill for _ in range(5)]
    assert kills == [False, False, False, False, True]
    assert reported == [50, 150, 50, 150, 151]
    assert [reason for reason, _ in ended] == [Reason.MEMORY_EXCEEDED]
    assert "151 bytes" in ended[0][1]


def measures(*samples: int | Exception) -> Callable[[], int]:
    """Yields or raises each in turn."""
    left = iter(samples)

    def used_bytes() -> int:
        sample = next(left)
        if isinstance(sample, Exception):
            raise sample
        return sample

    return used_bytes


def no_files() -> OSError:
    return OSError(errno.EMFILE, "Too many open files")


def test_a_sample_that_cannot_be_taken_does_not_end_the_guard() -> None:
    ended: list[tuple[Reason, str]] = []
    used = measures(150, no_files(), RuntimeError("NVML: GPU is lost"), 151)
    guard = Guard(used, 100, lambda _: None, lambda *said: ended.append(said))
    assert [guard.sample().kill for _ in range(4)] == [False, False, False, True]
    assert [reason for reason, _ in ended] == [Reason.MEMORY_EXCEEDED]


def test_the_guards_thread_outlives_an_error() -> None:
    ended: list[tuple[Reason, str]] = []
    guard = Guard(measures(no_files(), 150, 151), 100, lambda _: None, lambda *said: ended.append(said))
    guard.start()
    guard._thread.join(timeout=30)
    assert [reason for reason, _ in ended] == [Reason.MEMORY_EXCEEDED]


def test_an_engine_that_cannot_be_guarded_is_ended_and_says_so() -> None:
    ended: list[tuple[Reason, str]] = []
    used = measures(*[no_files()] * FAILURES)
    guard = Guard(used, 100, lambda _: None, lambda *said: ended.append(said))
    kills = [guard.sample().kill for _ in range(FAILURES)]
    assert kills == [False] * (FAILURES - 1) + [True]
    ((reason, message),) = ended
    assert reason is Reason.ENGINE_DIED
    assert "could not be guarded" in message
    assert "25 times in a row (5 s)" in message
    assert "Too many open files" in message


def test_only_failures_in_a_row_end_an_engine() -> None:
    ended: list[tuple[Reason, str]] = []
    used = measures(*[no_files()] * (FAILURES - 1), 50, *[no_files()] * (FAILURES - 1))
    guard = Guard(used, 100, lambda _: None, lambda *said: ended.append(said))
    for _ in range(2 * FAILURES - 1):
        guard.sample()
    assert ended == []


def test_each_kind_of_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    used = measures(no_files(), no_files(), RuntimeError("lost"), OSError(errno.ENFILE, "file table"), no_files())
    guard = Guard(used, 100, lambda _: None, lambda *_: None)
    with caplog.at_level(logging.WARNING, logger="cotenant.engine"):
        for _ in range(5):
            guard.sample()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert ["Too many open files" in said[0], "lost" in said[1], "file table" in said[2]] == [True] * 3


LAST_WORDS_FAIL = """
import sys
from tests.builders.engine import echo_args
from cotenant_serving.contract import Reason
from cotenant_serving.engine.process import EngineProcess

# A token over two lines makes no header, which http.client says with a ValueError.
process = EngineProcess(echo_args(pool_token_file=sys.argv[1]))
process._end_myself(Reason.MEMORY_EXCEEDED, "too much")
"""


def test_an_engine_that_must_end_ends_even_when_it_cannot_say_why(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\ntwo\n")
    root = Path(__file__).parents[4]
    command = [sys.executable, "-c", LAST_WORDS_FAIL, str(tmp_path / "token")]
    assert subprocess.run(command, cwd=root, timeout=60, check=False).returncode == -signal.SIGKILL
