"""What `cotenant logs` makes of the engines' files: the right ones, from the right place, in the order of time."""

import os
from pathlib import Path

import msgspec
import pytest

from cotenant_operator import engine_logs
from cotenant_operator.engine_logs import (
    begin_of_last_run,
    begin_of_tail,
    cause,
    merged,
    newest_revision,
    starts,
)
from cotenant_operator.log_follow import Follower
from cotenant_serving.contract import Heartbeat, Reason

OLD, NEW = "01d01d00", "abcdef01"


class Logs:
    """A state directory in which lines can be added to logs of engines of search/chat.v2."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.folder = state / "logs" / "engines"
        self.folder.mkdir(parents=True)

    def add(self, lines: str, *, revision: str = NEW, slot: int = 0, model: str = "search.chat.v2") -> Path:
        path = self.folder / f"{model}-{revision}-{slot}.log"
        with path.open("a") as file:
            file.write(lines)
        return path

    def of(self, model: str = "search/chat.v2") -> list[engine_logs.EngineLog]:
        return [log for log in engine_logs.engine_logs(self.state) if log.model == model]

    def follower(self, begin: dict[Path, int] | None = None) -> Follower:
        return Follower(self.state, "search/chat.v2", begin or {})


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def line(second: int, text: str) -> str:
    return f"2026-11-26 10:00:{second:02},000 INFO {text}\n"


def start(second: int, instance: str = "f00d") -> str:
    return line(second, f"starting app: process 7, instance {instance}, port 8800")


def texts(lines: object) -> list[str]:
    return [item.text for item in lines]  # type: ignore[attr-defined]


def test_logs_are_found_by_model_whatever_its_name_and_nothing_else_is_a_log(logs: Logs) -> None:
    logs.add("x\n")
    logs.add("x\n", slot=11)
    logs.add("x\n", model="search.chat.v2-abcdef01-0")  # a model whose name looks like an app
    (logs.folder / "search.chat.v2-abcdef01-0.cause.json").write_text("{}")
    (logs.folder / "notes.log").write_text("x\n")

    assert [(log.revision, log.slot) for log in logs.of()] == [(NEW, 0), (NEW, 11)]
    assert len(engine_logs.engine_logs(logs.state)) == 3
    assert engine_logs.engine_logs(logs.state / "nowhere") == []


def test_the_newest_revision_is_the_one_that_was_started_last_not_the_one_that_wrote_last(logs: Logs) -> None:
    old = logs.add(start(1), revision=OLD)
    logs.add(start(5), slot=0)
    logs.add(start(6), slot=1)
    logs.add(line(9, "stopped"), revision=OLD)
    os.utime(old, (2**31, 2**31))

    assert {(log.revision, log.slot) for log in newest_revision(logs.of())} == {(NEW, 0), (NEW, 1)}
    assert newest_revision([]) == []


def test_lines_of_several_engines_come_in_the_order_of_time_and_tracebacks_stay_whole(logs: Logs) -> None:
    logs.add(line(1, "a") + line(4, "d") + "Traceback\n  boom\n" + line(6, "f"))
    logs.add(line(2, "b") + line(5, "e"), slot=1)

    shown = [text.split(" INFO ")[-1] for text in texts(merged(logs.of(), {}))]
    assert shown == ["a", "b", "d", "Traceback", "  boom", "e", "f"]


def test_of_a_progress_bar_only_its_last_state_is_shown(logs: Logs) -> None:
    logs.add("\rloading 0%\rloading 50%\rloading 100%\n")

    assert texts(merged(logs.of(), {})) == ["loading 100%"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("block", [1, 3, 1 << 16])
def test_a_tail_is_the_last_lines_however_the_file_is_read(
    logs: Logs, monkeypatch: pytest.MonkeyPatch, count: int, block: int
) -> None:
    path = logs.add("one\ntwo\n\nfour\n")
    monkeypatch.setattr(engine_logs, "_BLOCK_BYTES", block)

    wanted = ["one", "two", "", "four"][max(0, 4 - count) :]
    assert path.read_text()[begin_of_tail(path, count) :].split("\n")[:-1] == wanted


@pytest.mark.parametrize("block", [7, 100, 1 << 16])
def test_starts_are_found_from_the_end(logs: Logs, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    path = logs.add(start(1, "aa") + line(2, "x") + start(3, "bb") + "raw\n" * 50)
    monkeypatch.setattr(engine_logs, "_BLOCK_BYTES", block)

    found = list(starts(path))
    assert [item.instance for item in found] == ["bb", "aa"]
    assert path.read_text()[found[0].position :].startswith("2026-11-26 10:00:03,000 INFO starting")


def test_the_last_run_begins_at_its_start_once_it_has_loaded_or_failed(logs: Logs) -> None:
    first = start(1) + "2026-11-26 10:00:02,000 ERROR cannot load search/chat.v2: boom\n"
    path = logs.add(first + start(3))
    assert begin_of_last_run(path) == 0  # it may be about to fail in the same way

    logs.add(line(4, "ready after 1.0 s"))
    assert begin_of_last_run(path) == len(first)


def test_a_log_without_any_start_is_shown_whole(logs: Logs) -> None:
    assert begin_of_last_run(logs.add("raw\n")) == 0


def test_the_cause_is_told_only_of_the_run_that_failed(logs: Logs) -> None:
    logs.add(start(1, "aa"))
    beat = Heartbeat(
        app="a",
        model="search/chat.v2",
        revision=NEW,
        instance="aa",
        host="h",
        port=1,
        pid=1,
        device_id="d",
        state="failed",
        reason=Reason.LOAD_FAILED,
        message="boom",
    )
    (logs.folder / f"search.chat.v2-{NEW}-0.cause.json").write_bytes(msgspec.json.encode(beat))
    (log,) = logs.of()

    said = cause(log)
    assert said is not None
    assert said.message == "boom"
    logs.add(start(2, "bb"))
    assert cause(log) is None


def test_following_goes_on_over_new_lines_new_engines_and_a_rotation(logs: Logs) -> None:
    path = logs.add(line(1, "old") + line(2, "new"))
    follower = logs.follower({path: len(line(1, "old"))})
    assert texts(follower.news()) == [line(2, "new").rstrip()]

    logs.add("half a li")
    assert follower.news() == []
    logs.add("ne\n")
    assert texts(follower.news()) == ["half a line"]

    logs.add(start(3), revision=OLD, slot=1)  # another engine, and another revision
    assert texts(follower.news()) == [start(3).rstrip()]

    path.write_text("after copytruncate\n")
    assert texts(follower.news()) == ["after copytruncate"]


def test_following_a_model_that_has_no_engine_yet_shows_its_first_one_whole(logs: Logs) -> None:
    follower = logs.follower()
    assert follower.news() == []
    logs.add(start(1) + line(2, "x"))
    assert len(follower.news()) == 2


def test_engines_that_are_not_asked_for_are_followed_from_their_end(logs: Logs) -> None:
    logs.add(start(1), revision=OLD)
    path = logs.add(start(2))
    follower = logs.follower({path: 0})
    assert texts(follower.news()) == [start(2).rstrip()]
    logs.add(line(3, "again"), revision=OLD)
    assert texts(follower.news()) == [line(3, "again").rstrip()]
