"""The memory guard ends the engine that exceeds its share, after two samples and with numbers."""

import pytest

from cotenant_serving.engine.guard import Guard, judge

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
    ended: list[str] = []
    guard = Guard(lambda: next(samples), 100, reported.append, ended.append)
    kills = [guard.sample().kill for _ in range(5)]
    assert kills == [False, False, False, False, True]
    assert reported == [50, 150, 50, 150, 151]
    assert len(ended) == 1
    assert "151 bytes" in ended[0]
