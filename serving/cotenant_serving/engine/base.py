"""What every engine offers to its HTTP server, in two kinds.

A *streaming* engine (`generate`, `echo`) writes the text of a request into the request's `DeltaStream`; the server
reads it and never touches the model. A *unary* engine (the other tasks) takes a body and answers with a body.
`fetch` and `load` block and run in a thread; everything else runs on the server's event loop.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from cotenant_serving.contract import Reason, Usage
from cotenant_serving.engine.weights_meter import WeightsRead
from cotenant_serving.openai_api import GenerateRequest, RequestError, Sampling

FinishReason = Literal["stop", "length"]


class Progress(Protocol):
    """Is told how far a load is."""

    def __call__(
        self,
        stage: str,
        fraction: float,
        *,
        fetched: tuple[int, int] | None = None,
        read: WeightsRead | None = None,
    ) -> None:
        """`stage`: for people. `fraction`: done, 0 to 1. `fetched`: bytes that are there of those of all files, only
        while they come. `read`: once weights were."""


class LoadError(Exception):
    """The model cannot be loaded here. `reason` goes into status; `message` says what, where and the next step."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class GenerationError(Exception):
    """A request that was accepted cannot be completed; `message` is for the client."""

    def __init__(self, message: str, *, code: str = "generation_failed") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of one answer. `tokens` is the number of completion tokens so far, this piece included."""

    text: str
    tokens: int
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenised request: its token ids (`generate`) or its words (`echo`)."""

    tokens: int
    ids: Sequence[int] = ()
    words: Sequence[str] = ()
    default_max_tokens: int | None = None
    """Completion tokens when the client names no limit; None is whatever the context leaves."""
    allocate_bytes: int = 0
    """`echo` only: memory to allocate and keep before it answers."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request as the engine sees it. `max_tokens` is resolved: prompt + max_tokens fit the context."""

    request_id: str
    prompt: Prompt
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)


class DeltaStream:
    """Mailbox between an engine and the server for one request. Event loop only; bounded by the job's max_tokens."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self._error: GenerationError | None = None
        self._closed = False
        self._changed = asyncio.Event()
        self.tokens = 0
        """Completion tokens so far, those not yet taken included."""

    def put(self, delta: Delta) -> None:
        """Adds a piece; one with a finish reason is the last. Nothing is added to a closed stream."""
        if self._closed:
            return
        self._deltas.append(delta)
        self.tokens = delta.tokens
        self._closed = delta.finish_reason is not None
        self._changed.set()

    def fail(self, error: GenerationError) -> None:
        """Ends the stream with an error, after what has been put before it."""
        if not self._closed:
            self._error = error
            self._closed = True
            self._changed.set()

    @property
    def closed(self) -> bool:
        return self._closed

    async def take(self) -> list[Delta]:
        """All pieces that are there, at least one. Raises GenerationError in the place of what is missing."""
        while not self._deltas:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        taken, self._deltas = self._deltas, []
        return taken


@dataclass(frozen=True, slots=True)
class UnaryRequest:
    """A request to a unary engine, whole and unread. `headers` are those that say how to read the body."""

    request_id: str
    method: str
    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    used: Callable[[Usage], None] = lambda usage: None
    """To be told what the request has cost so far: what is charged when it is cancelled or fails."""


@dataclass(frozen=True, slots=True)
class UnaryAnswer:
    body: bytes
    usage: Usage
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """One model that answers."""

    def fetch(self, progress: Progress) -> None:
        """Blocks until the model's files are on this machine, checked. Needs no device. Raises LoadError."""

    def load(self, progress: Progress) -> None:
        """Blocks until the model can answer. Raises LoadError."""

    def cancel(self, request_id: str) -> None:
        """Stops a request and frees what it holds. Unknown ids are ignored."""

    def healthy(self) -> bool:
        """False when only a new process can help."""

    def close(self) -> None:
        """Ends threads and tasks. Requests that still run fail."""


class StreamingEngine(Engine, Protocol):
    """`context_tokens` is valid once it is loaded."""

    @property
    def context_tokens(self) -> int: ...

    async def encode(self, request: GenerateRequest) -> Prompt:
        """Raises RequestError (400) for a prompt that this model cannot take."""

    def start(self, job: Job, stream: DeltaStream) -> None:
        """Begins to answer into `stream`; returns at once."""


@runtime_checkable
class UnaryEngine(Engine, Protocol):
    def serves(self, method: str, path: str) -> bool:
        """Whether this is a route of the task."""

    async def answer(self, request: UnaryRequest) -> UnaryAnswer:
        """Raises RequestError for what the client can mend, GenerationError for what it cannot."""


def resolve_max_tokens(prompt: Prompt, max_tokens: int | None, context_tokens: int, param: str) -> int:
    """Completion tokens that a request may use: its own limit, else the engine's default, else what is left.

    Raises RequestError (400, `context_length_exceeded`) when prompt, or prompt and completion, exceed the context.
    """
    left = context_tokens - prompt.tokens
    limit = f"This model's maximum context length is {context_tokens} tokens. However, "
    if left < 1:
        raise RequestError(
            400,
            limit + f"your {param} resulted in {prompt.tokens} tokens, and the answer needs at least 1 more. "
            f"Please reduce the length of the {param}.",
            param=param,
            code="context_length_exceeded",
        )
    wanted = max_tokens if max_tokens is not None else prompt.default_max_tokens
    if wanted is None:
        return left
    if wanted > left:
        raise RequestError(
            400,
            limit + f"you requested {prompt.tokens + wanted} tokens ({prompt.tokens} in the {param}, {wanted} in the "
            f"completion). Please reduce the length of the {param} or of the completion.",
            param=param,
            code="context_length_exceeded",
        )
    return wanted
