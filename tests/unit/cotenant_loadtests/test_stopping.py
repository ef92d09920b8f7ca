"""The first wish to stop is asked, the second is obeyed at once."""

import signal
from pathlib import Path

import pytest

from cotenant_loadtests.stopping import ONE_WISH_S, stopping


class Clock:
    def __init__(self) -> None:
        self.at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


def test_a_key_that_is_pressed_twice_is_one_wish(tmp_path: Path) -> None:
    clock = Clock()

    with stopping(tmp_path, clock) as stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
            clock.at_s += ONE_WISH_S / 3

        assert stop.is_set()


def test_a_later_one_ends_at_once_with_a_sentence_and_no_empty_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, folder = Clock(), tmp_path / "out"
    folder.mkdir()

    def run() -> None:
        with stopping(folder, clock):
            signal.raise_signal(signal.SIGINT)
            clock.at_s += 2 * ONE_WISH_S
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run()

    assert capsys.readouterr().err == (
        "ended at once, as was asked twice: what was measured and not written yet is lost\n"
    )
    assert not folder.exists()


def test_what_was_written_stays_when_something_goes_wrong(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("")

    with pytest.raises(RuntimeError), stopping(tmp_path):
        raise RuntimeError

    assert (tmp_path / "results.json").exists()


def test_a_terminal_that_is_closed_asks_only_once(tmp_path: Path) -> None:
    clock = Clock()

    with stopping(tmp_path, clock) as stop:
        signal.raise_signal(signal.SIGHUP)
        clock.at_s += 60
        signal.raise_signal(signal.SIGHUP)

        assert stop.is_set()
