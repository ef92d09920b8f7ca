"""Mixed load on echo models, and a verdict on every single answer.

Each request has words of its own, so an answer that is cut, mixed up with another or given by another model shows.
"""

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cotenant_serving.engine.echo import answer_tokens, verify
from tests.builders.up import Up, key_of, until

Verdict = Literal["complete", "broken"] | str
"""`broken`: it ends as a stream that had begun must. Anything else is a sentence about what is wrong."""
HANG_S = 60.0
"""Silence that counts as a hang; engines come back within a few seconds."""


@dataclass(frozen=True, slots=True)
class Question:
    model: str
    words: tuple[str, ...]
    stream: bool

    @property
    def answer(self) -> str:
        return "".join(answer_tokens(self.words, self.tokens))

    @property
    def tokens(self) -> int:
        return len(self.words) + 1

    @property
    def body(self) -> bytes:
        message = {"role": "user", "content": " ".join(self.words)}
        return json.dumps({"model": self.model, "messages": [message], "stream": self.stream}).encode()


@dataclass(slots=True)
class Outcome:
    """What the client of one request saw. `events`: pieces of the answer, without errors and `[DONE]`."""

    question: Question
    request_id: str = ""
    status: int = 0
    text: str = ""
    models: set[str] = field(default_factory=set)
    events: int = 0
    done: bool = False
    error: dict[str, Any] | None = None
    after_the_end: bytes = b""
    problem: str = ""
    """The connection's own failure: time-out, reset."""

    @property
    def verdict(self) -> Verdict:
        if self.problem:
            return f"no end: {self.problem}"
        if self.status != 200 or (self.error and not self.question.stream):
            return f"HTTP {self.status}: {self.error}"
        if self.models - {self.question.model}:
            return f"answered by {self.models}"
        if self.after_the_end:
            return f"something follows the end: {self.after_the_end!r}"
        if self.error:
            return self._judge_broken()
        if self.question.stream and not self.done:
            return f"cut off without an error after {self.text!r}"
        if not verify(self.text) or self.text != self.question.answer:
            return f"wrong answer {self.text!r}"
        return "complete"

    def _judge_broken(self) -> Verdict:
        if self.done:
            return f"[DONE] in spite of the error {self.error}"
        if not self.question.answer.startswith(self.text):
            return f"wrong beginning {self.text!r}"
        return "broken"


class Load:
    """`with Load(...)`: clients that ask without pause, streamed or not, until the block ends.

    Every client makes at most `most` requests over one connection. `outcomes` is whole once the block has ended.
    """

    def __init__(self, up: Up, who: str, models: Sequence[str], *, clients: int, seed: int, most: int = 2000) -> None:
        self.outcomes: list[Outcome] = []
        self.began = time.time()
        self._up, self._who, self._models, self._most = up, who, tuple(models), most
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(client, random.Random(seed * 1000 + client)), daemon=True)
            for client in range(clients)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * HANG_S)
        assert not any(thread.is_alive() for thread in self._threads), "a client never came to an end"

    def verdicts(self) -> Counter[str]:
        return Counter(outcome.verdict for outcome in self.outcomes)

    def at(self) -> int:
        """Requests that have ended."""
        return len(self.outcomes)

    def _ask(self, client: int, rng: random.Random) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._up.port, timeout=HANG_S)
        for number in range(self._most):
            if self._stop.is_set():
                break
            stream = rng.random() < 0.7
            count = rng.randint(5, 60) if stream else rng.randint(1, 10)
            words = tuple(f"c{client}q{number}w{word}" for word in range(count))
            self.outcomes.append(ask(connection, self._who, Question(rng.choice(self._models), words, stream)))
        connection.close()


def ask(connection: http.client.HTTPConnection, who: str, question: Question) -> Outcome:
    """One request to its end, whatever that is."""
    outcome = Outcome(question)
    headers = {"authorization": f"Bearer {key_of(who)}", "content-type": "application/json"}
    try:
        connection.request("POST", "/v1/chat/completions", question.body, headers)
        response = connection.getresponse()
        outcome.status, outcome.request_id = response.status, response.headers["x-request-id"]
        if response.headers["content-type"].startswith("text/event-stream"):
            _read_events(response, outcome)
        else:
            _read_whole(response, outcome)
    except (OSError, http.client.HTTPException) as problem:
        outcome.problem = f"{type(problem).__name__}: {problem}"
        connection.close()
    return outcome


def _read_whole(response: http.client.HTTPResponse, outcome: Outcome) -> None:
    body = json.loads(response.read())
    outcome.error = body.get("error")
    if outcome.error is None:
        outcome.models = {body["model"]}
        outcome.text = body["choices"][0]["message"]["content"]


def _read_events(response: http.client.HTTPResponse, outcome: Outcome) -> None:
    for line in response:
        if outcome.done or outcome.error:
            outcome.after_the_end += line.strip()
        elif line.strip() == b"data: [DONE]":
            outcome.done = True
        elif line.startswith(b"data: "):
            _read_event(json.loads(line[6:]), outcome)


def _read_event(event: dict[str, Any], outcome: Outcome) -> None:
    if "error" in event:
        outcome.error = event["error"]
        return
    outcome.events += 1
    outcome.models.add(event["model"])
    outcome.text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])


def usage_since(up: Up, began: float, count: int) -> list[dict[str, Any]]:
    """The usage records of requests that ended after `began` (Unix seconds), once there are `count` of them.

    One more look shows records that should not be.
    """

    def written() -> list[dict[str, Any]]:
        return [record for record in up.usage() if record["time"] >= began]

    until(lambda: len(written()) >= count, f"{count} usage records", explain=lambda: str(len(written())))
    time.sleep(0.5)
    return written()
