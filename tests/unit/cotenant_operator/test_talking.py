"""`cotenant chat` and `cotenant embed` against a gateway of a few lines."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.small_gateway import Answer, SmallGateway, chunk

from cotenant_operator import cli

KEY = "ct-canary-0123456789abcdef"
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}]}


def answer(path: str, body: dict[str, Any], key: str) -> Answer:
    if key != KEY:
        return 401, {"error": {"message": "No such key.", "code": "invalid_api_key"}}
    if path == "/v1/embeddings":
        data = [
            {"index": index, "embedding": [1.0, 0.0, float(index), 0.0, 0.5]} for index, _ in enumerate(body["input"])
        ]
        return 200, {"model": "m", "data": list(reversed(data)), "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    if body["model"] == "broken":
        return 503, {"error": {"message": "It failed.", "code": "model_failed"}}
    if body["model"] == "breaks":
        return 200, [
            ": waiting",
            chunk("hel"),
            'data: {"error": {"message": "engine lost", "code": "upstream_error"}}',
        ]
    if body["model"] == "ends":
        return 200, [chunk("hel")]
    return 200, [": waiting", chunk("hel"), chunk("lo\x1b[31m"), "data: [DONE]"] if body.get("stream") else WHOLE


class Talk:
    def __init__(self, gateway: SmallGateway, run: Callable[..., tuple[int, str, str]]) -> None:
        self.gateway, self.run = gateway, run


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.setenv("COTENANT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COTENANT_API_KEY", KEY)
    with SmallGateway(answer) as gateway:

        def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
            monkeypatch.setattr(sys, "argv", ["cotenant", *arguments, "--url", f"{gateway.url}/v1/"])
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
            code = cli.main()
            captured = capsys.readouterr()
            return code, captured.out, captured.err

        yield Talk(gateway, run)


def test_one_message_is_asked_and_its_answer_is_printed(talk: Talk) -> None:
    code, out, _ = talk.run(
        "chat", "m", "-m", "hi", "--system", "be short", "--max-tokens", "5", "--temperature", "0"
    )

    assert (code, out) == (0, "hello\x1b[31m\n")  # a pipe gets the bytes as they are
    path, body, key = talk.gateway.asked[-1]
    assert (path, key) == ("/v1/chat/completions", KEY)
    assert body == {
        "model": "m",
        "stream": True,
        "max_tokens": 5,
        "temperature": 0.0,
        "messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "hi"}],
    }


def test_stdin_is_the_message_when_it_is_no_terminal(talk: Talk) -> None:
    talk.run("chat", "m", stdin="from a pipe\n")

    assert talk.gateway.asked[-1][1]["messages"][-1]["content"] == "from a pipe\n"


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_the_whole_answer_comes_as_json_or_yaml(talk: Talk, form: str, read: Callable[[str], Any]) -> None:
    code, out, _ = talk.run("chat", "m", "-m", "hi", "-o", form)

    assert (code, read(out)) == (0, WHOLE)


@pytest.mark.parametrize(
    ("model", "out", "message"),
    [
        ("broken", "", "It failed. On the machine of `up`, `cotenant logs MODEL`"),
        ("breaks", "hel\n", "engine lost"),
        ("ends", "hel\n", "ended the answer in the middle; send it again"),
    ],
)
def test_an_answer_that_breaks_off_tells_the_servers_words(talk: Talk, model: str, out: str, message: str) -> None:
    code, printed, err = talk.run("chat", model, "-m", "hi")

    assert (code, printed) == (1, out)
    assert err.startswith("error: ")
    assert message in err


def test_a_wrong_key_is_told_and_not_repeated(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTENANT_API_KEY", "ct-wrong")
    code, out, err = talk.run("chat", "m", "-m", "hi")

    assert code == 1
    assert "cotenant key create TENANT" in err
    assert "ct-wrong" not in out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chat", "m", "-m", " "), "the message is empty"),
        (("embed", "m"), "no text is given"),
        (("chat", "m", "-m", "x", "--tenant", "ads"), "--tenant says for whom a key is made"),
        (("chat", "m", "-m", "x", "--temperature", "3"), "--temperature"),
    ],
)
def test_mistakes_in_the_flags_exit_with_2(talk: Talk, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = talk.run(*arguments)

    assert code == 2
    assert message in err
    assert talk.gateway.asked == []


def test_another_gateway_needs_a_key(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COTENANT_API_KEY")

    code, _, err = talk.run("chat", "m", "-m", "hi")
    assert code == 2
    assert "--url needs a key of that gateway" in err


def test_vectors_come_in_the_order_of_the_texts(talk: Talk) -> None:
    code, out, _ = talk.run("embed", "m", "one", "two")

    assert code == 0
    assert out.splitlines()[0].split() == ["TEXT", "DIMENSIONS", "VECTOR"]
    assert out.splitlines()[1].split(maxsplit=2) == ["one", "5", "+1.0000, +0.0000, +0.0000, +0.0000, …"]
    assert "+1.0000, +0.0000, +1.0000" in out.splitlines()[2]


def test_wide_tells_how_near_texts_are_and_json_has_the_whole_vectors(talk: Talk) -> None:
    _, out, _ = talk.run("embed", "m", "-o", "wide", stdin="one\n\ntwo\n")
    assert [line.split()[2:4] for line in out.splitlines()[1:]] == [["1.1180", "1.0000"], ["1.5000", "0.7454"]]

    document = json.loads(talk.run("embed", "m", "one", "two", "-o", "json")[1])
    assert document["data"][1] == {"text": "two", "embedding": [1.0, 0.0, 1.0, 0.0, 0.5]}
    assert document["usage"]["total_tokens"] == 2


def test_a_gateway_that_is_not_there_says_what_to_look_at(talk: Talk) -> None:
    talk.gateway.stop()

    code, _, err = talk.run("chat", "m", "-m", "hi")
    assert code == 1
    assert "does not answer" in err


@pytest.mark.parametrize(
    "url", ["ftp://x", "127.0.0.1:8080", "http://", "http://u:p@h", "http://h:x", "http://h?q=1"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    from cotenant_operator.failure import FlagError
    from cotenant_operator.gateway_client import base_url

    with pytest.raises(FlagError, match="is no address of a gateway"):
        base_url(url)
    assert base_url("https://h:1/v1/") == "https://h:1"
