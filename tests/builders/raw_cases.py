"""What hostile and broken clients send, byte by byte: a seed gives a case. Pure; `raw_client` sends it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.builders.raw_material import (
    CODING_NAMES,
    CODINGS,
    EXTRA,
    GARBAGE,
    HOSTS,
    LAST_CHUNKS,
    LENGTH_NAMES,
    LINE_ENDS,
    LINES,
    TARGETS,
    lengths,
    nearly_chunks,
)
from tests.builders.raw_requests import chat, chunk, good, head, prompt


@dataclass(frozen=True, slots=True)
class RawCase:
    """`pieces` are sent one by one, then `ending` happens.

    `ending`: `wait` reads what comes; `half_close` says that nothing more will be sent, and reads; `close` and
    `reset` leave at once. `pristine`: every request in it is right, so that none may be refused.
    """

    name: str
    pieces: tuple[bytes, ...]
    ending: Literal["wait", "half_close", "close", "reset"] = "wait"
    pristine: bool = False

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


def raw_case(seed: int) -> RawCase:
    rng = random.Random(seed)
    make = rng.choices([family for family, _ in _FAMILIES], [weight for _, weight in _FAMILIES])[0]
    return make(rng, f"mark{seed}")


def _pipeline(rng: random.Random, mark: str, most: int = 4) -> list[bytes]:
    return [good(rng, f"{mark}-{number}") for number in range(rng.randint(1, most))]


def pipelined(rng: random.Random, mark: str) -> RawCase:
    pieces = _pipeline(rng, mark)
    if rng.random() < 0.5:
        pieces = [b"".join(pieces)]
    return RawCase("pipelined", tuple(pieces), pristine=True)


def split(rng: random.Random, mark: str) -> RawCase:
    data = b"".join(_pipeline(rng, mark, 2))
    if rng.random() < 0.3:
        return RawCase("split at every byte", tuple(data[at : at + 1] for at in range(len(data))), pristine=True)
    cuts = sorted(rng.sample(range(1, len(data)), rng.randint(1, 6)))
    pieces = [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return RawCase("split", tuple(pieces), pristine=True)


def mutated(rng: random.Random, mark: str) -> RawCase:
    """Some bytes of right requests are changed, wherever they are."""
    data = bytearray(b"".join(_pipeline(rng, mark, 3)))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        _mutate(rng, data)
    return RawCase("mutated", (bytes(data),))


def mutated_head(rng: random.Random, mark: str) -> RawCase:
    """As `mutated`, but before the body of the first of two requests."""
    first, second = good(rng, f"{mark}-0"), good(rng, f"{mark}-1")
    at = first.index(b"\r\n\r\n") + 4
    start = bytearray(first[:at])
    for _ in range(rng.choice((1, 1, 2))):
        _mutate(rng, start)
    return RawCase("mutated head", (bytes(start) + first[at:] + second,))


def _mutate(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    kind = rng.randrange(6)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at] = rng.choice(b"\x00\t\n\r \x0b\x0c:;,/\\\"'0f-+\x7f\x80\xff")
    elif kind == 2:
        del data[at : at + rng.choice((1, 1, 2, 8, 40))]
    elif kind == 3:
        data[at:at] = data[at : at + rng.choice((1, 2, 8, 60))]
    elif kind == 4:
        data[at:at] = rng.choice((b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b"\r\n\r\n", b"0\r\n\r\n", b": "))
    else:
        other = rng.randrange(len(data))
        data[at], data[other] = data[other], data[at]


def line_ends(rng: random.Random, mark: str) -> RawCase:
    """CRLF in other spellings, in one place or everywhere before the body."""
    first = chat(rng, f"{mark}-0")
    start, _, body = first.partition(b"\r\n\r\n")
    other = rng.choice(LINE_ENDS)
    if rng.random() < 0.5:
        lines = start.split(b"\r\n")
        at = rng.randrange(1, len(lines))
        start = b"\r\n".join(lines[:at]) + other + b"\r\n".join(lines[at:])
    else:
        start = start.replace(b"\r\n", other)
    end = rng.choice((b"\r\n\r\n", b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\r"))
    return RawCase("line ends", (start + end + body + good(rng, f"{mark}-1"),))


def framing(rng: random.Random, mark: str) -> RawCase:
    """Lengths and codings that two readers may take for two things, with a second request hidden in the body."""
    hidden = chat(rng, f"{mark}-hidden")
    bodies = (
        b"0\r\n\r\n" + hidden,
        chunk(hidden) + b"0\r\n\r\n",
        prompt(rng, f"{mark}-0") + hidden,
        b"",
    )
    body = rng.choice(bodies)
    size = b"%d" % len(body)
    length = rng.choice(LENGTH_NAMES) + b": " + rng.choice(lengths(size))
    coding = rng.choice(CODING_NAMES) + b": " + rng.choice(CODINGS)
    lines = rng.choice(
        ((length,), (coding,), (length, coding), (coding, length), (length, b"content-length: " + size))
    )
    more = rng.choice(((), (), (b"te: trailers",), (b"connection: close",), (b"connection: content-length",)))
    first = head(rng.choice(LINES), *lines, *more) + body
    return RawCase("framing", (first, good(rng, f"{mark}-1")) if rng.random() < 0.5 else (first,))


def chunks(rng: random.Random, mark: str) -> RawCase:
    """Chunked bodies that are nearly right."""
    body = prompt(rng, f"{mark}-0")
    first, last = rng.choice(nearly_chunks(body)), rng.choice(LAST_CHUNKS)
    start = head(b"POST /v1/chat/completions HTTP/1.1", b"transfer-encoding: chunked")
    return RawCase("chunks", (start + first + last + good(rng, f"{mark}-1"),))


def cut_short(rng: random.Random, mark: str) -> RawCase:
    data = b"".join(_pipeline(rng, mark, 2))
    sent = data[: rng.randrange(1, len(data) + 1)]
    ending = rng.choice(("half_close", "close", "reset", "reset"))
    return RawCase("cut short", (sent,) if rng.random() < 0.7 else (sent[:9], sent[9:]), ending)


def fields(rng: random.Random, mark: str) -> RawCase:
    """Hosts, keys and other fields that are doubled, missing, too long, too many, or meant to look like ours."""
    body = prompt(rng, f"{mark}-0")
    line = rng.choice(TARGETS) if rng.random() < 0.4 else b"POST /v1/chat/completions HTTP/1.1"
    host = rng.choice(HOSTS) if rng.random() < 0.4 else b"host: x"
    extra = [rng.choice(EXTRA) for _ in range(rng.choice((0, 1, 1, 2)))]
    start = head(line, b"content-length: %d" % len(body), *extra, host=host)
    return RawCase("fields", (start + body + good(rng, f"{mark}-1"),))


def garbage(rng: random.Random, mark: str) -> RawCase:
    """What is no HTTP/1.1 at all."""
    start = rng.choice(GARBAGE) if rng.random() < 0.6 else rng.randbytes(rng.choice((1, 5, 60, 900)))
    more = rng.choice((b"", b"\r\n\r\n", rng.randbytes(40), good(rng, f"{mark}-1")))
    return RawCase("garbage", (start + more,))


_FAMILIES: tuple[tuple[Callable[[random.Random, str], RawCase], float], ...] = (
    (pipelined, 2),
    (split, 2),
    (mutated, 6),
    (mutated_head, 6),
    (line_ends, 2),
    (framing, 5),
    (chunks, 4),
    (cut_short, 3),
    (fields, 4),
    (garbage, 2),
)
