"""How a model that wakes is shown: pure part, and the board where there is a terminal and where there is none."""

import io
import threading
from typing import Any

import pytest

from cotenant_operator.waking import Wake, WakeBoard, wake_of, watch_wake
from cotenant_serving.contract import EngineStatus, Fetch, ModelStatus, PoolStatus, Reason


def status(state: str = "waking", *engines: dict[str, Any], message: str = "") -> ModelStatus:
    made = tuple(EngineStatus(app="a", model="search/chat", revision="r", **engine) for engine in engines)
    return ModelStatus(model="search/chat", state=state, reason=Reason.WAKING, message=message, engines=made)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "doing", "fraction"),
    [
        (status(), "about to start", None),
        (status("waiting", message="no room"), "no room", None),
        (status("waking", {"state": "starting"}), "its process starts", None),
        (
            status("waking", {"state": "waiting", "stage": "waiting for the start lease"}),
            "waiting for the start lease",
            None,
        ),
        (
            status("waking", {"state": "starting"}, {"state": "loading", "stage": "reading", "progress": 0.4}),
            "reading",
            0.4,
        ),
        (
            status(
                "waking",
                {
                    "state": "loading",
                    "stage": "fetching its weights: 2.0 of 8.0 GB",
                    "progress": 0.025,
                    "fetch": Fetch(done_bytes=2 * 10**9, total_bytes=8 * 10**9, bytes_per_s=10**8),
                },
            ),
            "fetching its weights: 2.0 of 8.0 GB, about 60 s",
            0.25,
        ),
    ],
)
def test_the_engine_that_is_furthest_says_how_far_a_model_is(
    seen: ModelStatus, doing: str, fraction: float | None
) -> None:
    assert wake_of(seen) == Wake("search/chat", doing, fraction)


@pytest.mark.parametrize("state", ["cold", "ready", "failed"])
def test_what_is_not_on_its_way_is_not_shown(state: str) -> None:
    assert wake_of(status(state)) is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_a_line_for_each_stage_and_no_bar() -> None:
    out = io.StringIO()
    board = WakeBoard(out)
    for fraction in (0.1, 0.2):
        board.lines([Wake("m", "reading", fraction)])
    board.lines([Wake("m", "ready soon", 0.9)])
    board.show([Wake("m", "unseen", None)])
    board.close()

    assert out.getvalue() == "m: reading\nm: ready soon\n"


def test_a_terminal_gets_a_bar_with_percents_and_keeps_only_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    board = WakeBoard(out)
    board.lines([Wake("m", "reading\x1b[2J", 0.4)])
    board.say("error: something")
    board.show([])
    board.say("warning: later")

    text = out.getvalue()
    assert "m: reading[2J 40%" in text  # the engine's own control characters do not reach the terminal
    assert "\x1b[31merror:\x1b[0m something" in text
    assert "\x1b[?25h" in text  # the cursor is back
    assert text.endswith("\x1b[33mwarning:\x1b[0m later\n")


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    WakeBoard(out).say("error: plain")

    assert out.getvalue() == "error: plain\n"


class Conductor:
    def __init__(self) -> None:
        self.asked = 0
        self.asked_again = threading.Event()

    def status(self) -> PoolStatus:
        self.asked += 1
        if self.asked > 1:
            self.asked_again.set()
        engine = {"state": "loading", "stage": "reading", "progress": 0.4}
        return PoolStatus(pool="p", epoch="e", generation=1, models=(status("waking", engine),))


def test_a_command_that_waits_shows_the_wake_until_it_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    conductor = Conductor()
    with watch_wake(conductor, "chat") as answered:  # type: ignore[arg-type]
        # Not by reading what is captured: that takes it away, also in the middle of a write.
        assert conductor.asked_again.wait(30)  # so the first answer has been shown
        answered()
        asked = conductor.asked
    assert capsys.readouterr().err == "search/chat: reading\n"
    assert conductor.asked == asked


def test_another_gateway_has_no_conductor_to_ask() -> None:
    with watch_wake(None, "chat") as answered:
        answered()


def test_a_full_disk_loses_lines_and_ends_nothing():
    with open("/dev/full", "wb", buffering=0) as full:
        stream = io.TextIOWrapper(full, write_through=True)
        WakeBoard(stream).say("ready: http://127.0.0.1:8080/v1")
        stream.detach()
