"""What is read before any weights, from hubs that do not end, break off, or say nothing that is a listing."""

import socket
from collections.abc import Callable

import pytest
from tests.builders.talking_server import drip, talking_server

from cotenant_cache.errors import CorruptWeightsError, HubUnreachableError, ModelNotFoundError
from cotenant_cache.hub import resolve
from cotenant_cache.hub_reads import HubReads
from cotenant_cache.source import HubAccess, HubSource

pytestmark = pytest.mark.integration
COMMIT = "c" * 40
INVALID = {"x_error_message": "Invalid credentials in Authorization header"}


def at(url: str, revision: str = "main") -> HubSource:
    return HubSource("org/a", revision, HubAccess(endpoint=url, token="hf_secret"))


def answer(body: bytes, status: str = "200 OK", **headers: str) -> Callable[[socket.socket], None]:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return lambda connection: connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


@pytest.mark.parametrize("begun", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\n\r\n["])
def test_a_hub_that_sends_a_byte_now_and_then_is_left_in_time(begun: bytes) -> None:
    with talking_server(drip(begun)) as (url, _):
        reads = HubReads(at(url), whole_s=0.6)
        with pytest.raises(HubUnreachableError, match=r"did not give its list of files in time: .* had 0\.6 s"):
            reads.listing()
        with pytest.raises(HubUnreachableError, match=r"config\.json in time"):  # of the same 0.6 s
            reads.file("config.json", 100)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>login</html>", "what is no listing"),
        (b"[" * 100_000, "what is no listing"),
        (b'{"sha": "../../etc", "siblings": []}', "named no commit"),
        (
            b'{"sha": "%s", "siblings": [{"rfilename": 7}]}' % COMMIT.encode(),
            r"Expected `str`, got `int` .*rfilename",
        ),
    ],
)
def test_what_is_no_listing_is_refused(body: bytes, said: str) -> None:
    with talking_server(answer(body)) as (url, _), pytest.raises(HubUnreachableError, match=said):
        resolve(at(url))


def test_a_body_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    with (
        talking_server(answer(b'{"sha": "' + COMMIT.encode() + b'"}', content_length="500")) as (url, _),
        pytest.raises(HubUnreachableError, match=r"did not give its list of files \(the connection ended") as caught,
    ):
        resolve(at(url))
    assert caught.value.transient


@pytest.mark.parametrize(
    ("status", "headers", "error", "said"),
    [
        ("404 Not Found", {"x_error_code": "RepoNotFound"}, ModelNotFoundError, "has no model org/a, or HF_TOKEN"),
        (
            "404 Not Found",
            {"x_error_code": "RevisionNotFound"},
            ModelNotFoundError,
            "no branch, tag or commit 'main'",
        ),
        ("403 Forbidden", {"x_error_code": "GatedRepo"}, ModelNotFoundError, "is gated"),
        ("401 Unauthorized", {}, ModelNotFoundError, "HF_TOKEN may not read it"),
        ("401 Unauthorized", INVALID, HubUnreachableError, "does not take HF_TOKEN .*renew the token"),
        ("403 Forbidden", {}, HubUnreachableError, "HTTP 403"),
        ("404 Not Found", {}, HubUnreachableError, "did not give its list of files .HTTP 404"),
        ("503 Busy", {"retry_after": "7"}, HubUnreachableError, "HTTP 503"),
    ],
)
def test_what_a_hub_refuses_has_its_reason(status: str, headers: dict[str, str], error: type, said: str) -> None:
    with talking_server(answer(b"", status, **headers)) as (url, _), pytest.raises(error, match=said) as caught:
        resolve(at(url))
    assert "hf_secret" not in str(caught.value)
    assert getattr(caught.value, "retry_after_s", None) == (7.0 if "retry_after" in headers else None)


def test_a_part_is_that_part_or_an_error() -> None:
    whole = b"0123456789"
    with talking_server(answer(whole, content_length="10")) as (url, requests):
        reads = HubReads(at(url, COMMIT))
        assert reads.part("model.safetensors", 0, 10) == whole
        for begin, end in ((2, 10), (0, 4), (0, 11)):
            with pytest.raises(HubUnreachableError, match=r"answers no part of model\.safetensors"):
                reads.part("model.safetensors", begin, end)
        with pytest.raises(CorruptWeightsError, match=r"config\.json is longer than .* at most 4 bytes"):
            reads.file("config.json", 4)
    assert [b"range: bytes=0-9\r\n" in requests[0], b"range: bytes=2-9\r\n" in requests[1]] == [True, True]


def test_a_part_of_another_place_is_not_taken_for_the_one_that_was_asked_for() -> None:
    moved = answer(b"0123", "206 Partial Content", content_range="bytes 4-7/10", content_length="4")
    with talking_server(moved) as (url, _):
        reads = HubReads(at(url, COMMIT))
        assert reads.part("model.safetensors", 4, 8) == b"0123"
        for begin, end in ((2, 6), (4, 7)):
            with pytest.raises(HubUnreachableError, match="answers no part"):
                reads.part("model.safetensors", begin, end)


def test_a_listing_that_comes_compressed_is_told_as_that() -> None:
    with (
        talking_server(answer(b"\x1f\x8b", content_encoding="gzip")) as (url, _),
        pytest.raises(HubUnreachableError, match=r"compressed .'gzip'"),
    ):
        resolve(at(url))


def test_each_large_file_has_its_time_on_top() -> None:
    now = [0.0]
    reads = HubReads(at("http://127.0.0.1:1"), whole_s=5.0, clock=lambda: now[0])
    reads.allow(3)
    now[0] = 34.0
    assert not reads._over()
    now[0] = 35.0
    assert reads._over()


@pytest.mark.parametrize(
    "address",
    [
        "http://bob:s3cret@127.0.0.1:1",
        "http://bob:s3cret",
        "http://bob:s3/cret@127.0.0.1",
        "bob:s3cret@127.0.0.1",
        "//bob:s3cret@127.0.0.1",
        "http://[::1",
        "http://127.0.0.1:99999",
        "ftp://127.0.0.1",
        "not a url",
    ],
)
def test_what_is_no_address_of_a_hub_is_refused_and_stands_in_no_message(address: str) -> None:
    for read in (lambda: resolve(at(address)), lambda: HubReads(at(address, COMMIT)).file("config.json", 9)):
        with pytest.raises(HubUnreachableError, match=r"hub's address .HF_ENDPOINT.* without a user") as caught:
            read()
        assert "s3" not in str(caught.value)
