"""A gateway of a few lines for tests of the command line: real HTTP on loopback, answers as the test says."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any] | list[str]]
"""Status, and a JSON body or the lines of a stream."""


class SmallGateway:
    """Use as a context manager. `answer(path, body, key)` decides; `asked` has what came."""

    def __init__(self, answer: Callable[[str, dict[str, Any], str], Answer]) -> None:
        self.asked: list[tuple[str, dict[str, Any], str]] = []
        self._answer = answer
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "SmallGateway":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Also again: it is stopped then."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._respond({})

            def do_POST(self) -> None:
                self._respond(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _respond(self, body: dict[str, Any]) -> None:
                key = self.headers.get("authorization", "").removeprefix("Bearer ")
                gateway.asked.append((self.path, body, key))
                status, answer = gateway._answer(self.path, body, key)
                lines = answer if isinstance(answer, list) else [json.dumps(answer)]
                self.send_response(status)
                self.end_headers()
                self.wfile.write("".join(line + "\n\n" for line in lines).encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def chunk(text: str) -> str:
    """One event of a streamed chat answer."""
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})
