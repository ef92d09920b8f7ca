"""The client of the conductor: its own words for every way to fail, and no proxy in between."""

import http.server
import json
import subprocess
import sys
import threading

import pytest

from cotenant_operator.control import ControlClient, ControlError, ControlRefusedError
from cotenant_serving.contract import Desired


class Server:
    """Answers every request with `reply` (raw bytes), and notes what it was asked."""

    def __init__(self, reply: bytes) -> None:
        seen = self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append((self.path, self.headers.get("authorization")))
                self.wfile.write(reply)

            do_PUT = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve():
    started = []

    def start(reply: bytes) -> Server:
        started.append(Server(reply))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def client(tmp_path):
    (tmp_path / "token").write_text("secret-token\n")
    return lambda url: ControlClient(url, tmp_path / "token")


OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s"


def test_the_token_never_goes_to_a_proxy(serve, client, monkeypatch):
    proxy, conductor = serve(OK % (2, b"{}")), serve(OK % (2, b"{}"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    client(conductor.url).put_desired(Desired(generation=1, pool="default"))
    assert conductor.seen == [("/v1/desired", "Bearer secret-token")]
    assert proxy.seen == []


def test_a_refusal_is_told_apart_from_silence(serve, client):
    refused = serve(b"HTTP/1.1 409 Conflict\r\ncontent-length: 3\r\n\r\nold")
    with pytest.raises(ControlRefusedError, match="409"):
        client(refused.url).put_desired(Desired(generation=1, pool="default"))
    busy = serve(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
    with pytest.raises(ControlError) as caught:
        client(busy.url).status()
    assert not isinstance(caught.value, ControlRefusedError)


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
def test_a_token_that_is_not_taken_comes_with_the_next_step(serve, client, status):
    server = serve(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nno")
    with pytest.raises(ControlRefusedError, match=r"token in .*/token.*--state") as caught:
        client(server.url).status()
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", OK % (4, b"nope")])
def test_broken_answers_are_control_errors(serve, client, reply):
    with pytest.raises(ControlError):
        client(serve(reply).url).status()


def test_without_an_up_it_says_how_to_start_one(tmp_path):
    with pytest.raises(ControlError, match="cotenant up -f"):
        ControlClient.of_state(tmp_path)


def test_an_up_that_was_killed_is_told_apart_from_one_that_is_silent(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    control = {
        "conductor_url": "http://127.0.0.1:1",
        "control_token_file": "x",
        "gateway_url": "http://127.0.0.1:2",
        "pid": ended.pid,
    }
    (tmp_path / "control.json").write_text(json.dumps(control))
    with pytest.raises(ControlError, match=f"process {ended.pid}\\) was ended by force"):
        ControlClient.of_state(tmp_path)
