"""Answers of hubs, read without a network: what begins where, what may be followed, how long to wait."""

import pytest

from cotenant_cache.backoff import TryAgainError
from cotenant_cache.errors import HubUnreachableError
from cotenant_cache.http_answers import body_start, is_inner, is_transient, next_url, origin_of, retry_after_s, shown
from cotenant_cache.origins import Origin


def test_a_whole_file_begins_at_zero_and_a_part_where_it_was_asked_for() -> None:
    assert body_start(200, {"content-length": "10"}, offset=0, size=10) == 0
    assert body_start(200, {}, offset=4, size=10) == 0
    assert body_start(206, {"content-range": "bytes 4-9/10"}, offset=4, size=10) == 4
    assert body_start(206, {"content-range": "bytes 4-5/*"}, offset=4, size=10) == 4


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"content-length": "9"}),
        (200, {"content-length": "11"}),
        (200, {"content-length": "10", "content-encoding": "gzip"}),
        (206, {}),
        (206, {"content-range": "bytes 4-9/11"}),
        (206, {"content-range": "bytes 0-9/10"}),
        (206, {"content-range": "bytes 5-9/10"}),
        (206, {"content-range": "bytes 4-10/10"}),
        (206, {"content-range": "bytes 4-3/10"}),
        (206, {"content-range": "bytes */10"}),
        (206, {"content-range": f"bytes {'4' * 5000}-9/10"}),
    ],
)
def test_not_a_byte_is_read_of_what_is_another_file(status: int, headers: dict[str, str]) -> None:
    with pytest.raises(TryAgainError) as caught:
        body_start(status, headers, offset=4, size=10)
    assert caught.value.wrong


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
    ],
)
def test_inner_addresses_are_known_however_they_are_written(address: str) -> None:
    assert is_inner(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_public(address: str) -> None:
    assert not is_inner(address)


def test_origins_differ_by_scheme_host_or_port() -> None:
    assert origin_of("https://Hub.co/a?b") == origin_of("https://hub.co:443/c")
    assert len({origin_of(url) for url in ("http://a", "https://a", "http://a:8080", "http://b")}) == 4


@pytest.mark.parametrize(
    "location",
    [
        "ftp://a/b",
        "file:///etc/passwd",
        "http://:80/",
        "http://a/b c",
        "http://a:x/",
        "http://a/\r\nx: y",
        "http://[::1",
    ],
)
def test_a_redirect_to_no_http_address_is_refused(location: str) -> None:
    with pytest.raises(HubUnreachableError):
        next_url("http://hub/x", location)


def test_redirects_may_be_relative_and_never_lose_encryption() -> None:
    assert next_url("https://hub/a/b", "/c?d=e") == "https://hub/c?d=e"
    assert next_url("http://hub/a", "https://cdn/b") == "https://cdn/b"
    with pytest.raises(HubUnreachableError, match="not encrypted"):
        next_url("https://hub/a", "http://cdn/b")


def test_addresses_are_shown_without_what_may_be_secret() -> None:
    assert shown("https://user:password@cdn/a/b?signature=secret#x") == "https://cdn/a/b"


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_s({"retry-after": "7"}, now=0.0) == 7.0
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, now=40.0) == 60.0
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, now=40.0) == 0.0
    assert [retry_after_s({"retry-after": value}, now=0.0) for value in ("", "soon", "nan", "inf")] == [None] * 4
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:00:00 +9999999999999999"}, now=0.0) is None


def test_what_may_be_asked_again() -> None:
    assert [status for status in range(200, 600) if is_transient(status)] == [408, 425, 429, *range(500, 600)]


def test_what_a_server_repeats_of_a_secret_is_not_passed_on() -> None:
    origin = Origin("http://hub", "hub", secret={"authorization": "Bearer hf_secret", "x-peer": ""})
    assert origin.without_secrets("you sent hf_secret (Bearer hf_secret)") == "you sent … (…)"
    assert "hf_secret" not in repr(origin)
