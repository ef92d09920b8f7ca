"""Usage on its way to the operator: every line once, whatever fails on the way."""

import random
from pathlib import Path

import msgspec
import pytest

from cotenant_serving.contract_usage import UsageBatch
from cotenant_serving.gateway.board import LocalCount
from cotenant_serving.gateway.usage import UsageRecord
from cotenant_serving.gateway.usage_file import UsageFile
from cotenant_serving.gateway.usage_sender import UsageSender
from cotenant_serving.gateway.usage_sums import Seen, totals_of

DAY_S = 1_795_651_200.0
"""2026-11-26 begins."""


def record(number: int, **fields: object) -> bytes:
    given = {
        "time": DAY_S + number,
        "tenant": "search",
        "model": "search/echo",
        "request_id": f"req-{number}",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "estimated": False,
        "outcome": "ok",
        "status": 200,
        "duration_s": 0.25,
        "time_to_first_byte_s": None,
    }
    return UsageRecord(**{**given, **fields}).line()


class Operator:
    """Keeps batches; `fails` makes the next calls fail, before or after the batch was kept."""

    def __init__(self) -> None:
        self.batches: dict[tuple[str, int], UsageBatch] = {}
        self.fails: list[str] = []

    def add(self, batch: UsageBatch) -> None:
        how = self.fails.pop() if self.fails else ""
        if how == "before":
            raise ConnectionError
        known = self.batches.setdefault((batch.boot, batch.sequence), batch)
        assert known == batch, "what is sent again is the same"
        if how == "after":
            raise ConnectionError

    @property
    def requests(self) -> int:
        return sum(total.requests for batch in self.batches.values() for total in batch.totals)


@pytest.fixture
def operator() -> Operator:
    return Operator()


def opened(state: Path) -> UsageFile:
    return UsageFile(state / "usage.jsonl", LocalCount())


def sender(state: Path, **fields: int) -> UsageSender:
    return UsageSender(state, opened(state), "gateway-a", **fields)


def send_all(one: UsageSender, operator: Operator) -> None:
    while one.step(operator.add):
        pass


def test_totals_are_by_day_tenant_model_and_outcome() -> None:
    lines = [
        record(1),
        record(2, estimated=True),
        record(3, tenant="ads", outcome="timeout"),
        record(-1),
        record(1),  # the same request again
        b'{"torn\n',
        b"\n",
        record(4, time=-5.0),
    ]
    totals, damaged = totals_of(lines, Seen())
    assert damaged == 2
    assert [(one.day, one.tenant, one.outcome, one.requests) for one in totals] == [
        ("2026-11-25", "search", "ok", 1),
        ("2026-11-26", "ads", "timeout", 1),
        ("2026-11-26", "search", "ok", 2),
    ]
    last = totals[-1]
    assert (last.prompt_tokens, last.completion_tokens, last.estimated, last.duration_s) == (6, 4, 1, 0.5)
    assert (last.first, last.last) == (DAY_S + 1, DAY_S + 2)


def test_only_so_many_ids_are_remembered() -> None:
    seen = Seen(most=2)
    assert [seen.add(name) for name in ("a", "b", "a", "c", "a")] == [True, True, False, True, True]


def test_lines_are_sent_once_and_a_line_in_the_middle_of_its_write_when_it_is_whole(
    tmp_path: Path, operator: Operator
) -> None:
    usage, one = opened(tmp_path), sender(tmp_path)
    usage.append(record(1) + record(2))
    with (tmp_path / "usage.jsonl").open("ab") as file:
        file.write(record(3)[:20])
    send_all(one, operator)
    assert operator.requests == 2
    with (tmp_path / "usage.jsonl").open("ab") as file:
        file.write(record(3)[20:])
    send_all(one, operator)
    assert operator.requests == 3
    assert [sequence for _, sequence in operator.batches] == [1, 2]
    assert one.waiting_bytes() == 0


def test_the_next_process_sends_the_same_batch_that_nobody_has_acknowledged(
    tmp_path: Path, operator: Operator
) -> None:
    usage = opened(tmp_path)
    usage.append(record(1))
    operator.fails = ["after"]
    with pytest.raises(ConnectionError):
        send_all(sender(tmp_path), operator)
    usage.append(record(2))

    send_all(sender(tmp_path), operator)

    assert operator.requests == 2
    assert len({boot for boot, _ in operator.batches}) == 1
    assert (tmp_path / "usage-sent.json").stat().st_mode & 0o777 == 0o600


def test_a_long_file_is_begun_anew_once_all_of_it_is_sent(tmp_path: Path, operator: Operator) -> None:
    usage, one = opened(tmp_path), sender(tmp_path, long_bytes=500)
    for number in range(30):
        usage.append(record(number))
        send_all(one, operator)
    assert operator.requests == 30
    assert usage.size_bytes() < 1000
    assert not (tmp_path / "usage.sending.jsonl").exists()


def test_a_file_that_somebody_moved_away_is_followed_by_the_new_one(tmp_path: Path, operator: Operator) -> None:
    usage, one = opened(tmp_path), sender(tmp_path)
    usage.append(record(1))
    send_all(one, operator)
    (tmp_path / "usage.jsonl").rename(tmp_path / "mine.jsonl")
    usage.append(record(2))
    send_all(one, operator)
    assert operator.requests == 2


def test_a_disk_that_takes_no_cursor_delays_a_batch_and_loses_none(tmp_path: Path, operator: Operator) -> None:
    usage, one = opened(tmp_path), sender(tmp_path)
    usage.append(record(1))
    blocker = tmp_path / "usage-sent.json.tmp"
    blocker.mkdir()
    for _ in range(2):
        with pytest.raises(OSError, match="directory"):
            one.step(operator.add)
    assert operator.requests == 0, "it might be counted twice if this process died now"
    blocker.rmdir()
    send_all(one, operator)
    assert operator.requests == 1


def test_a_damaged_cursor_counts_rather_twice_than_never_and_says_so(
    tmp_path: Path, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    opened(tmp_path).append(record(1))
    (tmp_path / "usage-sent.json").write_text("{")
    send_all(sender(tmp_path), operator)
    assert operator.requests == 1
    assert "sent once more" in caplog.text


@pytest.mark.parametrize("seed", range(30))
def test_every_line_is_counted_once_whatever_fails_and_whoever_is_killed(
    seed: int, tmp_path: Path, operator: Operator
) -> None:
    rng = random.Random(seed)
    usage, one, written = opened(tmp_path), sender(tmp_path, long_bytes=800), 0
    for _ in range(60):
        act = rng.random()
        if act < 0.5:
            for _ in range(rng.randint(1, 4)):
                usage.append(record(written))
                written += 1
        elif act < 0.7:
            operator.fails = rng.choices(["before", "after", ""], k=2)
        elif act < 0.8:
            one = sender(tmp_path, long_bytes=800)  # the process was killed, and another follows
        for _ in range(rng.randint(0, 3)):
            try:
                one.step(operator.add)
            except ConnectionError:
                break
    operator.fails = []
    send_all(one, operator)
    assert operator.requests == written
    assert sorted(sequence for _, sequence in operator.batches) == [*range(1, len(operator.batches) + 1)]
    assert one.waiting_bytes() == 0


def test_what_is_sent_names_no_request(tmp_path: Path, operator: Operator) -> None:
    opened(tmp_path).append(record(1))
    send_all(sender(tmp_path), operator)
    (batch,) = operator.batches.values()
    assert b"req-1" not in msgspec.json.encode(batch)
