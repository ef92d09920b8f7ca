"""A server on loopback that says whatever a test wants it to, HTTP or not."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress


@contextmanager
def talking_server(talk: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """Its address without a path, and the requests that came; `talk` has each connection after the request."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        requests: list[bytes] = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with closing(connection), suppress(OSError):
                    requests.append(connection.recv(65536))
                    talk(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", requests
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def drip(begun: bytes) -> Callable[[socket.socket], None]:
    """After `begun` a byte now and then, so quickly that no single wait is long, until the caller has gone."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(begun)
        while True:
            connection.sendall(b" ")
            threading.Event().wait(0.05)

    return talk
