"""Chat requests to a gateway, each on a connection of its own, and what came of them."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

PATIENCE_S = 60.0


def key_of(name: str) -> str:
    return f"ct-canary-key-of-{name}-0123456789abcdef"


class Calls:
    """Of tenants with the keys `key_of(who)`. Subclasses set `port`, and `host` where it is not this machine."""

    host = "127.0.0.1"
    port: int
    patience_s = PATIENCE_S

    def chat(self, who: str, name: str, content: str, **body: Any) -> tuple[int, dict[str, Any]]:
        """(status, body) of one chat request without a stream."""
        with self.request(who, name, content, **body) as response:
            return response.status, json.loads(response.read())

    def text(self, who: str, name: str, content: str, **body: Any) -> str:
        status, answer = self.chat(who, name, content, **body)
        assert status == 200, answer
        return str(answer["choices"][0]["message"]["content"])

    @contextlib.contextmanager
    def request(self, who: str, name: str, content: str, **body: Any) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.patience_s)
        payload = {"model": name, "messages": [{"role": "user", "content": content}], **body}
        headers = {"authorization": f"Bearer {key_of(who)}", "content-type": "application/json"}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(payload), headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def stream(self, who: str, name: str, content: str, **body: Any) -> "Stream":
        """Read one streamed answer to its end."""
        with self.request(who, name, content, stream=True, **body) as response:
            return read_stream(response)

    def metrics(self) -> str:
        """The gateway's, over all its workers."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.patience_s)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def retries(self, reason: str) -> float:
        """How often the gateway has sent a request back to its queue for it so far."""
        name = f'cotenant_upstream_retries_total{{reason="{reason}"}} '
        return sum(float(line.removeprefix(name)) for line in self.metrics().splitlines() if line.startswith(name))


class Stream:
    """What came of a streamed answer."""

    def __init__(self, status: int, text: str, *, done: bool, error: dict[str, Any] | None) -> None:
        self.status, self.text, self.done, self.error = status, text, done, error


def read_stream(response: http.client.HTTPResponse) -> Stream:
    if response.status != 200:
        return Stream(response.status, "", done=False, error=json.loads(response.read())["error"])
    texts, done, error = [], False, None
    for line in response:
        if line.strip() == b"data: [DONE]":
            done = True
        elif line.startswith(b"data: "):
            event = json.loads(line[6:])
            error = event.get("error", error)
            texts += [choice["delta"].get("content") or "" for choice in event.get("choices", [])]
    return Stream(200, "".join(texts), done=done, error=error)
