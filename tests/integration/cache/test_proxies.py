"""A proxy that does not do what a proxy does: told as that, in time, and without what it was sent."""

import socket
import ssl
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.builders.talking_server import drip, talking_server

from cotenant_cache import connections
from cotenant_cache.backoff import TryAgainError
from cotenant_cache.connections import Waits, get
from cotenant_cache.errors import FetchStoppedError

pytestmark = pytest.mark.integration

WAITS = Waits(connect_s=60.0, answer_s=60.0, stall_s=60.0)


@pytest.fixture(autouse=True)
def no_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def through(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("https_proxy", url.replace("http://", "http://user:secret@"))


def test_a_proxy_that_drips_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with talking_server(drip(b"HTTP/1.1 200 OK\r\nx: ")) as (url, requests):
        through(monkeypatch, url)
        with pytest.raises(
            TryAgainError, match=r"proxy of HTTPS_PROXY did not connect: no whole answer came in 0\.4 s"
        ):
            get("https://hub.example/x", {}, inner_allowed=True, waits=replace(WAITS, answer_s=0.4))
    assert requests[0].startswith(
        b"CONNECT hub.example:443 HTTP/1.1\r\nhost: hub.example:443\r\nproxy-authorization: "
    )


def test_who_is_told_to_stop_does_not_wait_for_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with talking_server(drip(b"")) as (url, requests):
        through(monkeypatch, url)
        with pytest.raises(FetchStoppedError):
            get("https://[2001:db8::1]/x", {}, inner_allowed=True, waits=replace(WAITS, stop=lambda: bool(requests)))
    assert requests[0].startswith(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 407 no secret, no connection\r\n\r\n", "HTTP 407$"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: secret\r\n" * 1000 + b"\r\n", "HTTPException$"),
        (b"secret\r\n", "BadStatusLine$"),
        (b"", "."),
    ],
)
def test_what_a_proxy_answers_instead_is_told_without_its_words(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str
) -> None:
    with talking_server(lambda connection: connection.sendall(answer)) as (url, _):
        through(monkeypatch, url)
        with pytest.raises(TryAgainError, match=f"proxy of HTTPS_PROXY did not connect: {said}") as caught:
            get("https://hub.example/x", {}, inner_allowed=True, waits=WAITS)
    assert "secret" not in caught.value.reason


def test_a_hub_is_asked_through_a_proxy_as_if_there_was_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "cert"
    names = ["-subj", "/CN=hub.example", "-addext", "subjectAltName=DNS:hub.example"]
    where = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names, *where],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    asked: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\nvia: me\r\n\r\n")
        with suppress(OSError), server.wrap_socket(connection, server_side=True) as hub:
            asked.append(hub.recv(65536))
            hub.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

    monkeypatch.setattr(connections, "_tls", lambda: ssl.create_default_context(cafile=certificate))
    with talking_server(talk) as (url, _):
        through(monkeypatch, url)
        with get("https://hub.example/x?y", {"a": "b"}, inner_allowed=True, waits=WAITS) as answer:
            assert answer.whole(100) == b"hello"
            assert not answer.inner
    assert asked == [b"GET /x?y HTTP/1.1\r\nhost: hub.example\r\nconnection: close\r\na: b\r\n\r\n"]
