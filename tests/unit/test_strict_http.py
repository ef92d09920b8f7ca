"""The tests' own reading of HTTP/1.1, by which the gateway's is judged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.raw_cases import raw_case
from tests.builders.strict_http import AnswerReader, WrongError, read_requests

GET = b"GET /a%20b?c HTTP/1.1\r\nHost: x\r\n\r\n"


def post(*lines: bytes) -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", b"host: x", *lines)) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "count", "rest"),
    [
        (b"", 0, "nothing"),
        (GET * 3, 3, "nothing"),
        (GET[:-1], 0, "unfinished"),
        (post(b"content-length: 2") + b"{}" + GET, 2, "nothing"),
        (post(b"content-length: 3") + b"{}", 0, "unfinished"),
        (post(b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n" + GET, 2, "nothing"),
        (post(b"transfer-encoding: chunked") + b"2\r\n{}\r\n0\r\n", 0, "unfinished"),
        (post(b"transfer-encoding: chunked") + b"2\r\n{}XX0\r\n\r\n", 0, "wrong"),
        (post(b"transfer-encoding: chunked") + b"2\n{}\r\n0\r\n\r\n", 0, "wrong"),
        (post(b"transfer-encoding: chunked", b"content-length: 2") + b"0\r\n\r\n", 0, "wrong"),
        (post(b"content-length: 2", b"content-length: 2") + b"{}", 0, "wrong"),
        (post(b"content-length: +2") + b"{}", 0, "wrong"),
        (GET + post(b"content-length : 2") + b"{}", 1, "wrong"),
        (GET + post(b"a: b", b" folded") + GET, 1, "wrong"),
        (GET + post(b"a: b\nc: d"), 1, "wrong"),
        (GET.replace(b"Host: x", b"a: b"), 0, "wrong"),
        (GET.replace(b"Host: x", b"host: x\r\nhost: y"), 0, "wrong"),
        (GET.replace(b"1.1", b"2.0"), 0, "wrong"),
        (b"GET /\r\n\r\n", 0, "wrong"),
    ],
)
def test_requests_are_read_by_the_letter(data: bytes, count: int, rest: str) -> None:
    stream = read_requests(data)

    assert (len(stream.requests), stream.rest) == (count, rest)


def test_a_path_is_decoded_and_a_body_put_together() -> None:
    body = b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n"
    first, second = read_requests(GET + post(b"transfer-encoding: chunked") + body).requests

    assert (first.path, second.body) == (b"/a b", b"{}")


@given(st.integers(1, 60))
def test_answers_are_read_from_pieces_of_any_size(size: int) -> None:
    data = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nyo\r\n0\r\n\r\n"
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
    )
    reader = AnswerReader([b"GET", b"GET", b"HEAD"])
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])

    assert [(one.status, one.body, one.last) for one in reader.answers] == [
        (200, b"hi", False),
        (200, b"yo", False),
        (404, b"", True),
    ]
    assert reader.unfinished == b""


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\na: b\rc: d\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a\r\nhi\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nInvalid request\r\n\r\n",
    ],
)
def test_a_wrong_answer_is_told(data: bytes) -> None:
    with pytest.raises(WrongError):
        AnswerReader().feed(data)


def test_a_seed_gives_the_same_case_and_right_ones_are_right_by_the_letter() -> None:
    cases = [raw_case(seed) for seed in range(2000)]

    assert [case.data for case in cases[:50]] == [raw_case(seed).data for seed in range(50)]
    assert len({case.name for case in cases}) == 11
    for case in cases:
        stream = read_requests(case.data)
        assert not case.pristine or (stream.requests and stream.rest == "nothing"), case
    assert {read_requests(case.data).rest for case in cases} == {"nothing", "unfinished", "wrong"}
