"""What a person sees: nothing that a model's files hold steers a terminal."""

import io
import json

import pytest

from cotenant_operator.local import say_on_stderr
from cotenant_operator.output import as_json, error, note, print_table, warning
from cotenant_operator.waking import Wake, WakeBoard

EVIL = "\x1b]0;mine\x07\x9b31m\x7f\ud800end"
HARMLESS = "]0;mine31mend"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_table_holds_no_control_character(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    print_table(("MODEL",), [(EVIL,)], out=(out := kind()))

    assert [line.strip() for line in out.getvalue().splitlines()] == ["MODEL", HARMLESS]


@pytest.mark.parametrize("say", [error, warning, note, say_on_stderr])
def test_a_line_for_people_holds_no_control_character(say, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"first {EVIL}")

    assert capsys.readouterr().err.endswith(f"first {HARMLESS}\n")


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_what_the_board_says_holds_no_control_character(
    kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    board = WakeBoard(out := kind())
    board.say(f"a/b: {EVIL}")
    board.lines([Wake("a/b", f"loading {EVIL}", None)])
    board.close()

    assert out.getvalue().startswith(f"a/b: {HARMLESS}\n")
    assert "\x9b" not in out.getvalue()
    assert "\x07" not in out.getvalue()


def test_json_is_the_same_value_without_control_characters() -> None:
    text = as_json({"said": EVIL, "name": "naïve"})

    assert json.loads(text) == {"said": EVIL, "name": "naïve"}
    assert "naïve" in text
    assert all(char.isprintable() or char == "\n" for char in text)
