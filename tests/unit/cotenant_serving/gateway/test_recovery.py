"""A killed worker's requests: each gets the one record that it would have had."""

import fcntl
from pathlib import Path

import orjson
import pytest
from tests.unit.cotenant_serving.gateway.test_usage import record

from cotenant_serving.gateway import journal as journals
from cotenant_serving.gateway.board import LocalCount
from cotenant_serving.gateway.journal import InFlight, Journal, JournalError
from cotenant_serving.gateway.recovery import Recovery, lost_lines
from cotenant_serving.gateway.usage_file import UsageFile


class State:
    """A state directory with journals; `kill` is what the kernel does for a dead process: it unlocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "journals"
        self.flag = LocalCount()
        self.file = UsageFile(folder / "usage.jsonl", self.flag)
        self.recovered = LocalCount()
        self.recovery = Recovery(self.folder, self.file, self.recovered)
        self.recovery.prepare()

    def journal(self, worker: int = 0, cells: int = 4) -> Journal:
        made = Journal.create(self.folder, worker, cells)
        made.alive(1000.0, self.file.size_bytes())
        return made

    def kill(self, journal: Journal) -> None:
        journal._path = None  # nobody is left to take the file away
        journal.close()

    def records(self) -> list[dict]:
        return [orjson.loads(line) for line in self.file.path.read_bytes().splitlines()]

    def files(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()]


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


def begin(journal: Journal, request_id: str, *, now: float = 990.0) -> journals.Entry:
    return journal.begin(request_id, "search", "search/echo", prompt_tokens=11, now=now)


def test_a_request_at_an_engine_is_counted_by_estimate(state: State):
    journal = state.journal()
    entry = begin(journal, "req-1")
    entry.sent(True)
    entry.first_byte(0.25)
    entry.forwarded(7)
    state.kill(journal)

    state.recovery.run()

    (found,) = state.records()
    assert found == {
        "time": 1000.0,
        "tenant": "search",
        "model": "search/echo",
        "request_id": "req-1",
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "estimated": True,
        "outcome": "gateway_lost",
        "status": 200,
        "duration_s": 10.0,
        "time_to_first_byte_s": 0.25,
    }
    assert state.files() == []
    assert state.recovered.total() == 1


def test_a_request_that_no_engine_had_cost_nothing(state: State):
    journal = state.journal()
    begin(journal, "req-1")
    back = begin(journal, "req-2")
    back.sent(True)
    back.sent(False)  # an engine sent it back: it waited when the kill came
    state.kill(journal)

    state.recovery.run()

    found = {(one["prompt_tokens"], one["estimated"], one["status"]) for one in state.records()}
    assert found == {(0, False, 0)}


def test_a_request_whose_line_was_written_just_before_the_kill_is_not_counted_again(state: State):
    state.file.append(record("req-0").line())
    journal = state.journal()
    begin(journal, "req-1")
    begin(journal, "req-2")
    state.file.append(record("req-1").line())
    state.kill(journal)

    state.recovery.run()

    assert [(one["request_id"], one["outcome"]) for one in state.records()] == [
        ("req-0", "ok"),
        ("req-1", "ok"),
        ("req-2", "gateway_lost"),
    ]


LINE = record("req-1", tenant="team}", time_to_first_byte_s=None).line()


@pytest.mark.parametrize("cut", range(1, len(LINE) + 1))
def test_a_line_that_the_kill_has_torn_is_no_record_wherever_it_ends(state: State, cut: int):
    journal = state.journal()
    begin(journal, "req-1")
    state.flag.set(1)  # killed within its write
    with state.file.path.open("ab") as file:
        file.write(LINE[:cut])
    state.kill(journal)
    state.file.append(record("req-2").line())  # another worker ends that line

    state.recovery.run()

    *_, last = state.file.path.read_bytes().splitlines()
    whole = cut >= len(LINE) - 1
    assert orjson.loads(last)["request_id"] == ("req-2" if whole else "req-1")
    assert state.recovered.total() == (0 if whole else 1)


def test_a_recovery_that_is_killed_too_is_gone_on_with(state: State):
    journal = state.journal()
    begin(journal, "req-1")
    begin(journal, "req-2")
    state.kill(journal)
    (path,) = state.folder.iterdir()
    left = path.read_bytes()

    state.recovery.run()
    path.write_bytes(left)  # as if the kill had come before it was removed
    state.recovery.run()

    assert sorted(one["request_id"] for one in state.records()) == ["req-1", "req-2"]


def test_records_that_waited_for_the_disk_are_written_as_they_were(state: State):
    journal = state.journal()
    begin(journal, "req-1")
    assert journal.put(record("req-1", completion_tokens=9).line())  # killed before the entry ended: both are there

    state.kill(journal)

    state.recovery.run()

    (found,) = state.records()
    assert (found["outcome"], found["completion_tokens"]) == ("ok", 9)


@pytest.mark.parametrize("written", range(4))
def test_lines_that_were_written_together_just_before_the_kill_are_not_written_again(state: State, written: int):
    lines = [record(f"req-{number}").line() for number in range(3)]
    journal = state.journal()
    begin(journal, "req-3")
    for number, line in enumerate(lines):
        entry = begin(journal, f"req-{number}")
        assert journal.put(line)
        entry.end()
    with state.file.path.open("ab") as file:
        file.write(b"".join(lines)[: written * len(lines[0]) + 9])  # the kill came within the write
    state.flag.set(1)
    state.kill(journal)

    state.recovery.run()

    whole = [line for line in state.file.path.read_bytes().splitlines() if line.endswith(b"}")]
    found = [(one["request_id"], one["outcome"]) for one in map(orjson.loads, whole)]
    assert sorted(found) == [("req-0", "ok"), ("req-1", "ok"), ("req-2", "ok"), ("req-3", "gateway_lost")]
    assert state.recovered.total() == 4 - written


def test_the_journal_of_a_worker_that_lives_is_left_alone(state: State):
    journal = state.journal()
    begin(journal, "req-1")

    state.recovery.run()

    assert state.records() == []
    assert state.recovery.held()
    state.kill(journal)
    assert not state.recovery.held()


def test_a_worker_that_ends_well_leaves_no_journal(state: State):
    journal = state.journal()
    begin(journal, "req-1").end()
    journal.close()
    assert state.files() == []
    state.recovery.run()
    assert state.records() == []


def test_a_usage_file_that_was_cut_since_is_searched_whole(state: State):
    for number in range(20):
        state.file.append(record(f"req-old-{number}").line())
    journal = state.journal()
    begin(journal, "req-1")
    state.file.path.write_bytes(b"")  # copytruncate
    state.file.append(record("req-1").line())
    state.kill(journal)

    state.recovery.run()

    assert [one["request_id"] for one in state.records()] == ["req-1"]


def test_requests_are_recovered_into_a_new_file_when_the_old_one_was_moved_away(state: State):
    state.file.append(record("req-0").line())
    journal = state.journal()
    begin(journal, "req-1")
    state.file.path.rename(state.file.path.with_name("old.jsonl"))
    state.kill(journal)

    state.recovery.run()

    assert [one["request_id"] for one in state.records()] == ["req-1"]
    assert state.files() == []


def test_a_lock_that_another_process_keeps_puts_recovery_off(state: State):
    journal = state.journal()
    begin(journal, "req-1")
    state.kill(journal)
    with state.file.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        state.recovery.run()
        assert state.records() == []

    state.recovery.run()

    assert [one["request_id"] for one in state.records()] == ["req-1"]


def test_what_cannot_be_written_now_is_written_later(state: State, caplog):
    journal = state.journal()
    begin(journal, "req-1")
    state.kill(journal)
    broken = Recovery(state.folder, UsageFileThatIsFull(state.file.path, LocalCount()), state.recovered)

    broken.run()
    broken.run()
    assert caplog.text.count("it is tried again") == 1
    assert len(state.files()) == 1
    state.recovery.run()

    assert [one["request_id"] for one in state.records()] == ["req-1"]


class UsageFileThatIsFull(UsageFile):
    def append(self, lines: bytes, wait_s: float = 0) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("content", [b"", b"x" * 1000])
def test_a_file_that_is_no_journal_is_dropped_with_a_word(state: State, caplog, content: bytes):
    (state.folder / "0-1-abc.journal").write_bytes(content)
    state.recovery.run()
    assert state.files() == []
    assert "not a journal" in caplog.text
    with pytest.raises(JournalError):
        journals.read(content)


def test_a_journal_that_was_not_whole_yet_goes_at_the_next_start(state: State):
    (state.folder / "0-1-abc.new").write_bytes(b"")
    state.recovery.prepare()
    assert state.files() == []


def test_a_table_that_was_not_whole_yet_goes_at_the_next_start(state: State):
    left, table = (state.folder.parent / name for name in ("table.json.7.tmp", "table.json"))
    left.write_bytes(b"{")
    table.write_bytes(b"{}")
    state.recovery.prepare()
    assert (left.exists(), table.exists()) == (False, True)


def test_cells_are_used_again_and_a_request_without_one_is_served_all_the_same(state: State):
    journal = state.journal(cells=2)
    entries = [begin(journal, f"req-{number}") for number in range(3)]
    entries[2].sent(True)
    entries[2].end()
    entries[0].end()
    begin(journal, "req-3")
    assert sorted(one.request_id for one in journal.contents().requests) == ["req-1", "req-3"]
    journal.close()


def test_the_longest_names_fit_and_longer_ones_are_cut(state: State):
    journal = state.journal()
    journal.begin("req-1", "t" * 40, "n" * 63 + "/" + "m" * 40, prompt_tokens=2**40, now=1.0)
    journal.begin("req-2", "ü" * 400, "n" * 400, prompt_tokens=1, now=1.0)
    first, second = sorted(journal.contents().requests, key=lambda one: one.request_id)
    assert (first.tenant, len(first.model), first.prompt_tokens) == ("t" * 40, 104, 2**32 - 1)
    assert len(second.model) == 256
    journal.close()


def test_a_lost_request_gets_no_second_record_from_a_line_of_its_own():
    one = InFlight("req-1", "t", "m", began=5.0, sent=True, prompt_tokens=1, events=0, first_byte_s=None)
    contents = journals.Contents(alive=4.0, usage_bytes=0, requests=(one,), lines=(record("req-1").line(),))

    assert lost_lines(contents, {"req-1"}) == []
    assert lost_lines(contents, set()) == [record("req-1").line()]
