"""Servers that are no servers: what they say, or do not, ends in an error in time and reaches nobody else."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.builders.talking_server import drip, talking_server

from cotenant_cache.backoff import TryAgainError
from cotenant_cache.connections import Waits, get
from cotenant_cache.errors import HubUnreachableError
from cotenant_cache.origins import Origin, ask

pytestmark = pytest.mark.integration

WAITS = Waits(connect_s=60.0, answer_s=60.0, stall_s=60.0)


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    with talking_server(talk) as (url, requests):
        yield f"{url}/file", requests


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 hf_secret\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000 + b"\r\n",
    ],
)
def test_what_is_no_answer_may_be_asked_for_again(said: bytes) -> None:
    with (
        server(lambda connection: connection.sendall(said)) as (url, _),
        pytest.raises(TryAgainError) as caught,
    ):
        get(url, {"authorization": "Bearer hf_secret"}, inner_allowed=True, waits=WAITS)
    assert "hf_secret" not in caught.value.reason


def test_headers_that_drip_have_an_end() -> None:
    with (
        server(drip(b"HTTP/1.1 200 OK\r\nx: ")) as (url, _),
        pytest.raises(TryAgainError, match=r"no whole answer came in 0\.4 s"),
    ):
        get(url, {}, inner_allowed=True, waits=replace(WAITS, answer_s=0.4))


def test_a_public_hub_leads_to_no_inner_address() -> None:
    with server(lambda connection: None) as (url, requests):
        for address in (url, url.replace("127.0.0.1", "localhost"), url.replace("127.0.0.1", "[::ffff:127.0.0.1]")):
            with pytest.raises(HubUnreachableError, match="that is not followed"):
                get(address, {}, inner_allowed=False, waits=WAITS)
        assert requests == []


def test_secrets_do_not_follow_a_redirect_to_another_port() -> None:
    with server(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")) as (
        other,
        requests,
    ):
        answer = f"HTTP/1.1 302 Found\r\nlocation: {other}\r\ncontent-length: 0\r\n\r\n".encode()
        with server(lambda connection: connection.sendall(answer)) as (url, first):
            origin = Origin(url, "hub", {"user-agent": "me"}, {"authorization": "Bearer hf_secret"})
            with ask(origin, 0, WAITS) as answered:
                assert answered.status == 200
    assert b"authorization: Bearer hf_secret" in first[0]
    assert b"hf_secret" not in requests[0]
    assert b"user-agent: me" in requests[0]


def test_a_certificate_that_nobody_vouches_for_is_not_asked_for_again(tmp_path: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def accept() -> None:
            connection, _ = listening.accept()
            with closing(connection), suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        url = f"https://localhost:{listening.getsockname()[1]}/"
        with pytest.raises(HubUnreachableError, match="SSL_CERT_FILE"):
            get(url, {}, inner_allowed=True, waits=WAITS)
        thread.join()
