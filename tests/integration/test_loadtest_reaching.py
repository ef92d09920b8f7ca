"""A target that is not there is named before anything is sent or made."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.load_records import scenario_of, stream

from cotenant_loadtests.cli import make_app
from cotenant_loadtests.reaching import check_reached
from cotenant_loadtests.refusals import RefusedError

pytestmark = pytest.mark.integration
LOOPBACK = ("127.0.0.1",)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose connections are made, and never get an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def refusal(url: str, **target: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        check_reached(scenario_of(target={"url": url, **target}), LOOPBACK, patience_s=2.0)
    return str(caught.value)


def test_a_server_that_listens_is_good_enough(silent: int) -> None:
    check_reached(scenario_of(target={"url": f"http://127.0.0.1:{silent}"}), LOOPBACK)


def test_a_second_address_is_tried(silent: int) -> None:
    check_reached(scenario_of(target={"url": f"http://both.example:{silent}"}), ("127.0.0.2", "127.0.0.1"))


def test_what_stands_in_the_way_is_one_sentence(closed: int, silent: int) -> None:
    assert f"nothing listens at http://127.0.0.1:{closed}; start the server" in refusal(f"http://127.0.0.1:{closed}")
    assert "does not answer within 2 s" in refusal(f"https://127.0.0.1:{silent}")
    assert "target.ca_file" in refusal(f"https://127.0.0.1:{silent}", ca_file="/no/such/file.pem")


def test_a_server_without_tls_is_named() -> None:
    def answer(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        said = refusal(f"https://127.0.0.1:{listening.getsockname()[1]}")
        thread.join(10)
    assert "speaks no TLS" in said


@pytest.mark.parametrize(
    "words",
    [
        ["run", "SCENARIO"],
        ["fairness", "SCENARIO", "--light", "blue"],
        ["soak", "SCENARIO", "--hours", "0.001"],
        ["coldstart", "SCENARIO"],
        ["compare", "SCENARIO", "SCENARIO"],
    ],
)
def test_no_command_sends_to_a_target_that_is_not_there(
    words: list[str], closed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    streams = [stream(), {**stream(), "name": "other", "tenant": "other"}]
    scenario = tmp_path / "scenario.yaml"
    target = {"url": f"http://127.0.0.1:{closed}"}
    scenario.write_text(yaml.safe_dump({"name": "x", "duration_s": 2, "target": target, "streams": streams}))
    given = [str(scenario) if word == "SCENARIO" else word for word in words]

    code = make_app()([*given, "--out", str(tmp_path / "out")], standalone_mode=False)

    (line,) = capsys.readouterr().err.splitlines()
    assert (code, line.startswith("error: nothing listens at ")) == (3, True), line
    assert not (tmp_path / "out").exists()
