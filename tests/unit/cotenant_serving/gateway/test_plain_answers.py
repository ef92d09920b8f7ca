"""Answers that are read without the parser are read as the parser would."""

import random

import httptools
import pytest

from cotenant_serving.gateway.upstream_answer import LeanAnswer

PLAIN = (
    b"HTTP/1.1 200 OK\r\ndate: Thu, 26 Nov 2026 19:00:00 GMT\r\ncontent-type: application/json\r\n"
    b'x-cotenant-usage: {"prompt_tokens":1,"completion_tokens":2}\r\ncontent-length: 5\r\n\r\nhello'
)
ODD = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b": ", b"\x00", b"\x7f", b"\x80", b"0", b"5", b"-", b"_",
    b"A", b"connection: close\r\n", b"connection: upgrade\r\nupgrade: x\r\n", b"proxy-connection: close\r\n",
    b"transfer-encoding: chunked\r\n", b"content-length: 5\r\n", b"content-length: 05\r\n", b"content-length: 4\r\n",
    b"keep-alive: timeout=5\r\n", b"date: again\r\n", b"x:\r\n", b"x: \r\n", b" folded\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
)  # fmt: skip


class Parsed:
    """What httptools makes of bytes. `whole`: they are one answer that keeps its connection, and nothing after it."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.begun = self.ended = 0
        self.keeps = False
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(data)
        self.whole = (self.begun, self.ended, self.keeps) == (1, 1, True)

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip(" \t")

    def on_headers_complete(self) -> None:
        self.keeps = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended += 1


def taken(data: bytes) -> LeanAnswer | None:
    answer = LeanAnswer(None)  # type: ignore[arg-type]
    return answer if answer.take_plain(data) else None


def mangled(rng: random.Random) -> bytes:
    data = PLAIN
    for _ in range(rng.randint(1, 2)):
        at, cut = rng.randrange(len(data)), rng.choice((0, 0, 1, 5))
        if rng.random() < 0.5:
            at = data.find(b"\r\n", at) + 2  # where a line begins, but for the last
        data = data[:at] + rng.choice(ODD) + data[at + cut :]
    return data


def test_a_plain_answer_is_taken_with_all_that_it_says() -> None:
    answer = taken(PLAIN)
    assert answer is not None
    assert (answer.status, answer.complete, answer.pieces, answer.size) == (200, True, [b"hello"], 5)
    assert answer.headers == Parsed(PLAIN).headers


def test_an_answer_with_no_body_is_taken() -> None:
    answer = taken(PLAIN[:-5].replace(b"content-length: 5", b"content-length: 0"))
    assert answer is not None
    assert (answer.complete, answer.pieces, answer.size) == (True, [], 0)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_taken_is_what_the_parser_reads(seed: int) -> None:
    rng = random.Random(seed)
    accepted = 0
    for _ in range(2000):
        data = mangled(rng)
        answer = taken(data)
        if answer is None:
            continue
        accepted += 1
        parsed = Parsed(data)
        assert parsed.whole, data
        assert (answer.headers, b"".join(answer.pieces)) == (parsed.headers, parsed.body), data
    assert accepted > 50


@pytest.mark.parametrize(
    "line",
    [
        b"connection: close",
        b"Connection: keep-alive",
        b"transfer-encoding: chunked",
        b"content-length: 5",
        b"date: 2",
    ],
)
def test_what_is_unusual_is_left_to_the_parser(line: bytes) -> None:
    assert taken(PLAIN.replace(b"date: ", line + b"\r\ndate: ")) is None


def test_a_head_without_bounds_is_left_to_the_parser() -> None:
    assert taken(PLAIN.replace(b"date: ", b"x: " + b"y" * (64 << 10) + b"\r\ndate: ")) is None
