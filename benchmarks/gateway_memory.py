"""Memory that one more connection takes in a proxy, idle after a request, and with a stream under way."""

import http.client
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import msgspec

from benchmarks.gateway_backend import SLOW_USER
from benchmarks.gateway_sides import KEY, Side

IDLE_CONNECTIONS, OPEN_STREAMS, BEFORE = 1500, 1000, 500
"""2,000 connections in all: half of what a gateway has are one tenant's."""
SETTLED_S = 0.5
"""For what a proxy does a moment after an answer."""


def bytes_of_idle_connection(side: Side) -> float:
    """Of a connection whose request was answered. `side` is fresh: memory that was freed would be used again."""
    return growth(side, IDLE_CONNECTIONS, keep_alive)


def bytes_of_stream(side: Side) -> float:
    """Of a stream under way, with both its connections. `side` is fresh."""
    return growth(side, OPEN_STREAMS, open_stream)


def growth(side: Side, count: int, another: Callable[[Side, ExitStack], None]) -> float:
    """Of resident memory, bytes for each of `count`; those before them have used what was free."""
    with ExitStack() as held:
        for _ in range(BEFORE):
            another(side, held)
        time.sleep(SETTLED_S)
        before = side.rss_bytes()
        for _ in range(count):
            another(side, held)
        time.sleep(SETTLED_S)
        return (side.rss_bytes() - before) / count


def keep_alive(side: Side, held: ExitStack) -> None:
    """A connection that was answered once, and stays open."""
    with ask(side, held, stream=False) as answer:
        answer.read()


def open_stream(side: Side, held: ExitStack) -> None:
    """A stream whose first event came; the others come once a second."""
    held.enter_context(ask(side, held, stream=True)).readline()


def ask(side: Side, held: ExitStack, *, stream: bool) -> http.client.HTTPResponse:
    """Raises RuntimeError when it was refused."""
    connection = held.enter_context(closing(http.client.HTTPConnection(urlsplit(side.url).netloc, timeout=30)))
    body = {"model": side.model, "messages": [{"role": "user", "content": "a few words"}], "max_tokens": 100}
    body |= {"stream": True, "user": SLOW_USER} if stream else {}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", msgspec.json.encode(body), headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"{side.name}: HTTP {answer.status}: {answer.read()[:500]!r}")
    return answer
