"""Tokens of programs are changed while these run, and no two of them disagree for a moment."""

import itertools
from pathlib import Path

import pytest

from cotenant_serving.gateway.config_source import read_token
from cotenant_serving.tokens import TokenFile, opens, shown, tokens_in

OLD, NEW = "o" * 32, "n" * 32


def replaced(path: Path, text: str) -> None:
    """As Kubernetes does: another file under the same name."""
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def header(token: str) -> bytes:
    return b"Bearer " + token.encode()


@pytest.mark.parametrize("text", ["a\nb", "a\nb\n", " a \r\n\n  b\n"])
def test_the_first_is_shown_and_each_is_taken(text: str) -> None:
    assert tokens_in(text) == ("a", "b")
    assert shown(text) == "a"
    assert [opens(header(token), text) for token in ("a", "b", "c", "", "a\nb")] == [True, True, False, False, False]


def test_without_a_token_nothing_opens() -> None:
    assert shown("\n") == ""
    assert not opens(b"Bearer ", "\n")
    assert not opens(b"", "")


def test_whoever_has_read_the_last_step_and_whoever_has_not_understand_each_other() -> None:
    steps = (OLD, f"{OLD}\n{NEW}", f"{NEW}\n{OLD}", NEW)
    for earlier, later in itertools.pairwise(steps):
        for one, other in itertools.product((earlier, later), repeat=2):
            assert opens(header(shown(one)), other)
    assert not opens(header(OLD), steps[-1]), "the old one opens nothing any more"


def test_a_file_is_read_again_when_it_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pool-token"
    path.write_text(OLD)
    token = TokenFile(path)
    assert token() == OLD
    replaced(path, f"{NEW}\n{OLD}")
    assert tokens_in(token()) == (NEW, OLD)
    assert read_token(path) == NEW, "what a gateway shows"


def test_a_file_that_is_gone_or_empty_or_no_text_closes_nothing_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pool-token"
    path.write_text(OLD)
    token = TokenFile(path)
    path.unlink()
    assert token() == OLD
    path.write_text("\n")
    assert token() == OLD
    path.write_bytes(b"\xff\xfe" + NEW.encode())
    assert token() == OLD
    assert caplog.text.count("stays as it was") == 3
    assert OLD not in caplog.text
    assert NEW not in caplog.text
    replaced(path, NEW)
    assert token() == NEW


def test_a_token_file_that_is_not_there_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TokenFile(tmp_path / "pool-token")
