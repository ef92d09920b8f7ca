"""`cotenant chat`: one question, or a conversation on a terminal. Streams answers; keeps nothing on disk."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from cotenant_operator.gateway_client import GatewayClient, GatewayError
from cotenant_operator.output import coloured, error, harmless, note

PATH = "/v1/chat/completions"
Message = dict[str, str]
Waiting = Callable[[], AbstractContextManager[Callable[[], None]]]
"""Shows that the model wakes until what it yields is called."""


@dataclass(slots=True)
class Conversation:
    """The messages so far; `options` go into every request. `client` is made for each, for its key may change."""

    client: Callable[[], GatewayClient]
    model: str
    options: dict[str, Any]
    waiting: Waiting
    messages: list[Message] = field(default_factory=list)

    def body(self, text: str) -> dict[str, Any]:
        messages = [*self.messages, {"role": "user", "content": text}]
        return {"model": self.model, "messages": messages, **self.options}

    def whole(self, text: str) -> dict[str, Any]:
        """The gateway's whole answer. Raises GatewayError."""
        with self.waiting():
            return self.client().ask(PATH, self.body(text))

    def say(self, text: str) -> None:
        """Ask, print the answer as it comes, remember both: also as far as it had come when Ctrl-C stopped it.

        Raises GatewayError; then the question is forgotten, so that the next one has a chance.
        """
        parts: list[str] = []
        try:
            with self.waiting() as answered:
                for event in self.client().stream(PATH, self.body(text)):
                    for part in texts_of(event):
                        answered()
                        parts.append(part)
                        _print(part)
        except KeyboardInterrupt:
            self._remember(text, parts)
            raise
        finally:
            if parts:
                _print("\n")
        self._remember(text, parts)

    def _remember(self, question: str, answer: list[str]) -> None:
        if answer:
            self.messages.append({"role": "user", "content": question})
            self.messages.append({"role": "assistant", "content": "".join(answer)})


def texts_of(event: dict[str, Any]) -> Iterator[str]:
    """What an event of a stream adds to the answer. Pure."""
    for choice in event.get("choices") or ():
        if text := (choice.get("delta") or {}).get("content"):
            yield text


def converse(conversation: Conversation, whom: str) -> int:
    """Questions from the terminal until Ctrl-D (0) or Ctrl-C (KeyboardInterrupt)."""
    import readline  # noqa: F401 - gives input() editing and a history of this conversation

    note(f"{whom}; Ctrl-C stops an answer, Ctrl-D ends")
    prompt = "\001\033[1;36m\002> \001\033[0m\002" if coloured(sys.stdout) else "> "
    while True:
        try:
            text = input(prompt)
        except EOFError:
            _print("\n")
            return 0
        if not text.strip():
            continue
        try:
            conversation.say(text)
        except GatewayError as problem:
            error(str(problem))
        except KeyboardInterrupt:
            note("stopped")


def _print(text: str) -> None:
    sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
