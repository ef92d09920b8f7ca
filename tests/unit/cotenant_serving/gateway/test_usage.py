"""Usage records: one line each, whatever the disk does; and what stands in for them until they are written."""

import errno
import fcntl
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from cotenant_serving.gateway import journal as journals
from cotenant_serving.gateway import usage as usages
from cotenant_serving.gateway.board import LocalCount
from cotenant_serving.gateway.journal import Journal
from cotenant_serving.gateway.usage import UsageLog, UsageRecord
from cotenant_serving.gateway.usage_file import UsageFile


def record(request_id: str = "req-1", **fields) -> UsageRecord:
    given = {
        "time": 1700000000.5,
        "tenant": "search",
        "model": "search/echo",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "estimated": False,
        "outcome": "ok",
        "status": 200,
        "duration_s": 0.5,
        "time_to_first_byte_s": 0.1,
        **fields,
    }
    return UsageRecord(request_id=request_id, **given)


class Disk:
    """A file that may not grow: what a full disk does to it, the kernel's limit on file sizes does too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full_after(self, more_bytes: int) -> None:
        size = self.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + more_bytes, self._before[1]))

    def empty(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)

    def ids(self) -> list[str]:
        return [orjson.loads(line)["request_id"] for line in self.path.read_bytes().splitlines()]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN, "Python ignores it, so writes fail instead"
    made = Disk(tmp_path / "usage.jsonl")
    yield made
    made.empty()


class Made:
    """A usage log with its parts."""

    def __init__(self, path: Path, cells: int = 8) -> None:
        self.waiting, self.dropped, self.flag = LocalCount(), LocalCount(), LocalCount()
        self.journal = Journal.in_memory(cells)
        self.log = UsageLog(UsageFile(path, self.flag), self.journal, waiting=self.waiting, dropped=self.dropped)

    def add(self, *ids: str) -> None:
        for one in ids:
            entry = self.journal.begin(one, "search", "search/echo", prompt_tokens=1, now=1.0)
            self.log.add(record(one), entry)


class Batched:
    """As a worker has it: its journal is a file, and lines are written when `soon` runs."""

    def __init__(self, folder: Path, cells: int = 8) -> None:
        self.soon: list[Callable[[], None]] = []
        self.waiting, self.dropped = LocalCount(), LocalCount()
        self.journal = Journal.create(folder, 0, cells)
        file = UsageFile(folder / "usage.jsonl", LocalCount())
        later = self.soon.append
        self.log = UsageLog(file, self.journal, waiting=self.waiting, dropped=self.dropped, later=later)

    add = Made.add

    def kept(self) -> list[str]:
        contents = self.journal.contents()
        assert contents.requests == ()
        return [orjson.loads(line)["request_id"] for line in contents.lines]

    def time_passes(self) -> None:
        due, self.soon[:] = self.soon[:], []
        for work in due:
            work()


def ids(path: Path) -> list[str]:
    return [orjson.loads(line)["request_id"] for line in path.read_bytes().splitlines()]


def test_a_journal_that_found_no_room_is_made_once_no_line_waits_for_the_disk(tmp_path: Path, disk: Disk):
    soon: list[Callable[[], None]] = []
    room = False

    def create() -> Journal:
        if not room:
            raise OSError(errno.ENOSPC, "no room")
        return Journal.create(tmp_path, 0, 8)

    file = UsageFile(disk.path, LocalCount())
    log = UsageLog(file, Journal.in_memory(8), waiting=LocalCount(), dropped=LocalCount(), later=soon.append)
    running = log.journal.begin("req-1", "search", "search/echo", prompt_tokens=1, now=1.0)
    log.renew(create)
    assert not log.journal.outlives
    disk.full_after(0)
    log.add(record("req-2"), log.journal.begin("req-2", "search", "search/echo", prompt_tokens=1, now=1.0))
    room = True
    log.renew(create)
    assert not log.journal.outlives, "a line waits"
    disk.empty()
    log.retry(2.0)
    log.renew(create)
    assert log.journal.outlives

    log.add(record("req-1"), running)
    assert [orjson.loads(line)["request_id"] for line in log.journal.contents().lines] == ["req-1"]
    soon[0]()
    assert disk.ids() == ["req-2", "req-1"]


def test_a_record_is_in_the_journal_when_add_returns_and_soon_in_the_file_with_others(tmp_path: Path):
    made = Batched(tmp_path)

    made.add("req-1", "req-2")

    assert (ids(tmp_path / "usage.jsonl"), made.kept(), len(made.soon)) == ([], ["req-1", "req-2"], 1)
    made.time_passes()
    assert (ids(tmp_path / "usage.jsonl"), made.kept(), len(made.soon)) == (["req-1", "req-2"], [], 0)
    made.add("req-3")
    made.log.retry(1.0)
    made.time_passes()
    made.add("req-4")
    made.log.close(2.0)
    made.time_passes()
    assert ids(tmp_path / "usage.jsonl") == ["req-1", "req-2", "req-3", "req-4"]
    assert list(tmp_path.iterdir()) == [tmp_path / "usage.jsonl"]
    assert made.waiting.total() == 0


def test_a_journal_that_is_full_of_lines_does_not_wait_for_more(tmp_path: Path):
    made = Batched(tmp_path, cells=2)
    made.add("req-1", "req-2", "req-3", "req-4")
    assert (ids(tmp_path / "usage.jsonl"), made.kept()) == (["req-1", "req-2", "req-3", "req-4"], [])
    made.log.close(1.0)


def test_a_journal_that_does_not_outlive_the_process_keeps_no_line_waiting(tmp_path: Path):
    soon: list[Callable[[], None]] = []
    file = UsageFile(tmp_path / "usage.jsonl", LocalCount())
    journal = Journal.in_memory(8)
    log = UsageLog(file, journal, waiting=LocalCount(), dropped=LocalCount(), later=soon.append)

    log.add(record("req-1"), journal.begin("req-1", "search", "search/echo", prompt_tokens=1, now=1.0))

    assert (ids(tmp_path / "usage.jsonl"), soon) == (["req-1"], [])


def test_what_cannot_be_written_at_the_end_is_left_to_the_next_start(tmp_path: Path, disk: Disk):
    made = Batched(tmp_path)
    disk.full_after(0)
    made.add("req-1")
    made.time_passes()
    assert made.waiting.total() == 1

    made.log.close(1.0)
    disk.empty()

    (left,) = tmp_path.glob("*.journal")
    assert [orjson.loads(line)["request_id"] for line in journals.read(left.read_bytes()).lines] == ["req-1"]


def test_a_disk_with_room_for_some_lines_gets_those(tmp_path: Path, disk: Disk):
    made = Batched(tmp_path)
    made.add("req-1", "req-2", "req-3")
    disk.full_after(2 * len(record("req-1").line()) + 100)

    made.time_passes()

    assert (disk.ids(), made.kept(), made.waiting.total()) == (["req-1", "req-2"], ["req-3"], 1)
    disk.empty()
    made.log.retry(1.0)
    assert (disk.ids(), made.kept(), made.waiting.total()) == (["req-1", "req-2", "req-3"], [], 0)
    made.log.close(2.0)


def test_a_request_that_has_ended_changes_no_other_ones_cell(tmp_path: Path):
    made = Batched(tmp_path)
    entry = made.journal.begin("req-1", "search", "search/echo", prompt_tokens=1, now=1.0)
    made.log.add(record("req-1"), entry)
    made.journal.begin("req-2", "search", "search/echo", prompt_tokens=1, now=2.0)

    entry.sent(True)
    entry.forwarded(9)
    entry.first_byte(1.0)
    entry.end()

    (found,) = made.journal.contents().requests
    assert (found.request_id, found.sent, found.events, found.first_byte_s) == ("req-2", False, 0, None)
    made.log.close(3.0)


@pytest.mark.parametrize("room", [0, 100], ids=["no room", "room for a part of the line"])
def test_on_a_full_disk_records_wait_whole_and_are_written_in_order_later(disk: Disk, room: int):
    made = Made(disk.path)
    made.add("req-1")
    disk.full_after(room)

    made.add("req-2", "req-3")

    assert disk.ids() == ["req-1"]
    assert (made.waiting.total(), made.dropped.total()) == (2, 0)
    kept = made.journal.contents()
    assert kept.requests == ()
    assert sorted(orjson.loads(line)["request_id"] for line in kept.lines) == ["req-2", "req-3"]
    made.log.retry(5.0)
    assert made.waiting.total() == 2

    disk.empty()
    made.log.retry(6.0)
    made.add("req-4")
    assert disk.ids() == ["req-1", "req-2", "req-3", "req-4"]
    assert made.waiting.total() == 0
    assert made.journal.contents().lines == ()


def test_more_than_may_wait_are_given_up_oldest_first_and_counted(disk: Disk, monkeypatch):
    monkeypatch.setattr(usages, "MAX_WAITING", 2)
    made = Made(disk.path)
    disk.full_after(0)

    made.add("req-1", "req-2", "req-3")
    disk.empty()
    made.log.retry(1.0)

    assert disk.ids() == ["req-2", "req-3"]
    assert (made.waiting.total(), made.dropped.total()) == (0, 1)


def test_a_full_disk_is_named_once_and_then_each_minute(disk: Disk, caplog):
    made = Made(disk.path)
    made.add("req-1")
    disk.full_after(0)

    def said() -> int:
        return caplog.text.count("records wait")

    made.add("req-2")
    began = record().time
    for half_seconds in range(119):
        made.log.retry(began + half_seconds / 2)
    assert said() == 1
    made.log.retry(began + 60)
    made.log.retry(began + 60.5)
    made.add("req-3")
    disk.empty()
    assert said() == 2


def test_a_usage_file_that_is_moved_away_gets_a_successor_with_the_next_line(tmp_path: Path):
    path, flag = tmp_path / "usage.jsonl", LocalCount()
    first, second = UsageFile(path, flag), UsageFile(path, flag)
    first.append(record("req-1").line())
    path.rename(tmp_path / "old.jsonl")
    assert first.size_bytes() == 0

    first.append(record("req-2").line())
    second.append(record("req-3").line())
    path.unlink()
    second.append(record("req-4").line())
    first.append(record("req-5").line())

    assert (tmp_path / "old.jsonl").read_bytes() == record("req-1").line()
    assert path.read_bytes() == record("req-4").line() + record("req-5").line()
    assert path.stat().st_mode & 0o777 == 0o600
    assert first.size_bytes() == path.stat().st_size


def test_a_line_waits_while_a_process_that_was_stopped_holds_the_lock(tmp_path: Path):
    made = Made(tmp_path / "usage.jsonl")
    with (tmp_path / "usage.jsonl").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        made.add("req-1", "req-2")
        made.log.retry(1.0)
        UsageFile(tmp_path / "usage.jsonl", made.flag).repair()
        assert made.waiting.total() == 2
        assert len(made.journal.contents().lines) == 2

    made.log.retry(2.0)

    assert made.waiting.total() == 0
    assert (tmp_path / "usage.jsonl").read_bytes() == record("req-1").line() + record("req-2").line()


def test_in_a_full_journal_a_line_takes_the_place_of_its_request(disk: Disk):
    made = Made(disk.path, cells=1)
    disk.full_after(0)

    made.add("req-1")
    disk.empty()

    kept = made.journal.contents()
    assert (kept.requests, kept.lines) == ((), (record("req-1").line(),))


def test_a_full_journal_loses_no_record(disk: Disk):
    made = Made(disk.path, cells=1)
    disk.full_after(0)
    made.add("req-1", "req-2", "req-3")
    disk.empty()
    made.log.retry(1.0)
    assert disk.ids() == ["req-1", "req-2", "req-3"]


def test_a_line_that_a_kill_has_torn_is_ended_by_the_next_writer(tmp_path: Path):
    path, flag = tmp_path / "usage.jsonl", LocalCount()
    path.write_bytes(record("req-1").line() + b'{"time":17')
    flag.set(1)  # the writer was killed within its write

    UsageFile(path, flag).append(record("req-2").line())

    assert path.read_bytes() == record("req-1").line() + b'{"time":17\n' + record("req-2").line()
    assert flag.get() == 0


def test_a_write_that_ended_just_before_the_kill_needs_no_mending(tmp_path: Path):
    path, flag = tmp_path / "usage.jsonl", LocalCount()
    path.write_bytes(record("req-1").line())
    flag.set(1)

    UsageFile(path, flag).append(record("req-2").line())

    assert path.read_bytes() == record("req-1").line() + record("req-2").line()


def test_a_torn_end_is_mended_at_the_start(tmp_path: Path):
    path = tmp_path / "usage.jsonl"
    path.write_bytes(b'{"time":17')
    file = UsageFile(path, LocalCount())

    file.repair()
    file.repair()

    assert path.read_bytes() == b'{"time":17\n'
    assert path.stat().st_mode & 0o777 == 0o600


def test_lines_are_shorter_than_a_pipes_buffer_even_with_the_longest_names():
    longest = record("req-" + "f" * 24, tenant="t" * 40, model="n" * 63 + "/" + "m" * 40, outcome="upstream_error")
    assert len(longest.line()) < 600
