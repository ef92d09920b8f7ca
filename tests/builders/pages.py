"""A server on loopback that answers every connection with bytes, as they are: right, wrong, slow or endless."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Pages:
    url: str
    asked: list[bytes] = field(default_factory=list)
    """The head of each request."""


def page(body: str, status: str = "200 OK", *headers: str) -> list[bytes]:
    """A whole answer."""
    data = body.encode()
    return ["\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(data)}", *headers, "", ""]).encode() + data]


@contextmanager
def answering_with(answer: Callable[[int], Iterable[bytes]]) -> Iterator[Pages]:
    """`answer(0)`, `answer(1)`, … are what the connections get, piece by piece; each is closed after its last."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        pages = Pages(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread = threading.Thread(target=_accept, args=(listening, pages, answer), daemon=True)
        thread.start()
        try:
            yield pages
        finally:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _accept(listening: socket.socket, pages: Pages, answer: Callable[[int], Iterable[bytes]]) -> None:
    number = 0
    with suppress(OSError):
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_serve, args=(connection, pages, answer(number)), daemon=True).start()
            number += 1


def _serve(connection: socket.socket, pages: Pages, answer: Iterable[bytes]) -> None:
    with connection, suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head and (read := connection.recv(65536)):
            head += read
        pages.asked.append(head)
        for piece in answer:
            connection.sendall(piece)
