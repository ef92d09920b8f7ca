"""What the APIs answer, as far as it is looked at. Decoding checks the shape; fields not named here are skipped."""

from typing import Any

import msgspec

from cotenant_loadtests.record import NEVER


class Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = NEVER
    completion_tokens: int = NEVER
    total_tokens: int = NEVER


class ChatText(msgspec.Struct, gc=False):
    """A delta, or a message. Models that think aloud answer in `reasoning_content` or `reasoning` first."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        return self.content or self.reasoning_content or self.reasoning or ""


class ChatDelta(msgspec.Struct, gc=False):
    delta: ChatText

    @property
    def text(self) -> str:
        return self.delta.content or self.delta.text


class ChatMessage(msgspec.Struct, gc=False):
    message: ChatText

    @property
    def text(self) -> str:
        return self.message.text


class Completion(msgspec.Struct, gc=False):
    text: str


class CompletionDelta(msgspec.Struct, gc=False):
    """LiteLLM's last events have choices without a text."""

    text: str = ""


class ChatEvent(msgspec.Struct, gc=False):
    choices: list[ChatDelta]
    model: str
    usage: Usage | None = None
    error: Any = None


class CompletionEvent(msgspec.Struct, gc=False):
    choices: list[CompletionDelta]
    model: str
    usage: Usage | None = None
    error: Any = None


class ChatAnswer(msgspec.Struct, gc=False):
    choices: list[ChatMessage]
    model: str
    usage: Usage | None = None


class CompletionAnswer(msgspec.Struct, gc=False):
    choices: list[Completion]
    model: str
    usage: Usage | None = None


class Embedding(msgspec.Struct, gc=False):
    embedding: list[float] | str
    """Numbers, or base64 of them."""
    index: int


class Embeddings(msgspec.Struct, gc=False):
    data: list[Embedding]
    model: str
    usage: Usage | None = None


class OutputTensor(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None
    """`binary_data_size`: its data follows the JSON."""


class Inference(msgspec.Struct, gc=False):
    model_name: str
    outputs: list[OutputTensor]
