"""The `echo` engine: a deterministic stand-in for load and fault tests, with a checksum in every answer.

Its tokens are words. With max_tokens n an answer has exactly n tokens: the words of the last user message (or of
the prompt), in turn, and as the n-th the checksum ` [crc32=xxxxxxxx]` of all text before it. Without max_tokens
it has each word once, and the checksum. `verify` tells whether such a text arrived whole.

A prompt of exactly `!allocate N` makes the engine allocate N bytes and keep them before it answers: that is how
tests exceed a memory share. Do not give this engine to tenants you do not trust.
"""

import asyncio
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

from cotenant_serving.contract import EchoOptions
from cotenant_serving.engine.base import Delta, DeltaStream, FinishReason, GenerationError, Job, Progress, Prompt
from cotenant_serving.engine.detokenize import StopMatcher
from cotenant_serving.openai_api import GenerateRequest

NO_WORDS = ("empty",)
LOAD_STEP_S = 0.1
_CHECKSUM = re.compile(r"(.*) \[crc32=([0-9a-f]{8})\]", re.DOTALL)
_ALLOCATE = re.compile(r"!allocate ([0-9]{1,15})")


def verify(text: str) -> bool:
    """Whether `text` is a whole answer of an echo engine: its last token is the checksum of what stands before."""
    match = _CHECKSUM.fullmatch(text)
    return match is not None and match[2] == _crc32(match[1])


def answer_tokens(words: Sequence[str], count: int) -> Iterator[str]:
    """The `count` tokens of an answer, count ≥ 1; joined they satisfy `verify`."""
    crc, source = 0, cycle(words or NO_WORDS)
    for index in range(count - 1):
        token = next(source) if index == 0 else " " + next(source)
        crc = zlib.crc32(token.encode(), crc)
        yield token
    yield f" [crc32={crc:08x}]"


def prompt_words(request: GenerateRequest) -> tuple[str, ...]:
    """The words of the last user message, of the text prompt, or the token ids as words."""
    if request.kind == "chat":
        users = [message.content for message in request.messages if message.role == "user"]
        return tuple((users or [request.messages[-1].content])[-1].split())
    if isinstance(request.prompt, str):
        return tuple(request.prompt.split())
    return tuple(map(str, request.prompt))


class EchoEngine:
    """See the module. `sleep` blocks (loading), in seconds."""

    def __init__(
        self, options: EchoOptions, context_tokens: int, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._options = options
        self._context_tokens = context_tokens
        self._sleep = sleep
        self._kept: list[bytearray] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def fetch(self, progress: Progress) -> None:
        """It has no files."""

    def load(self, progress: Progress) -> None:
        """Takes `load_s` seconds in steps, then allocates `allocate_bytes`."""
        steps = max(1, round(self._options.load_s / LOAD_STEP_S))
        for step in range(steps if self._options.load_s > 0 else 0):
            progress("pretending to load", step / steps)
            self._sleep(self._options.load_s / steps)
        self._allocate(self._options.allocate_bytes)
        progress("loaded", 1.0)

    async def encode(self, request: GenerateRequest) -> Prompt:
        words = prompt_words(request)
        command = _ALLOCATE.fullmatch(" ".join(words))
        return Prompt(
            tokens=len(words),
            words=words,
            default_max_tokens=len(words) + 1,
            allocate_bytes=int(command[1]) if command else 0,
        )

    def start(self, job: Job, stream: DeltaStream) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(job, stream))
        self._tasks[job.request_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.request_id, None))

    def cancel(self, request_id: str) -> None:
        if task := self._tasks.pop(request_id, None):
            task.cancel()

    def healthy(self) -> bool:
        return True

    def close(self) -> None:
        for request_id in list(self._tasks):
            self.cancel(request_id)
        self._kept.clear()

    async def _answer(self, job: Job, stream: DeltaStream) -> None:
        try:
            await asyncio.to_thread(self._allocate, job.prompt.allocate_bytes)
            await self._write(job, stream)
        except asyncio.CancelledError:
            stream.fail(GenerationError("The request was cancelled.", code="cancelled"))
            raise
        except MemoryError:
            stream.fail(GenerationError(f"The engine cannot allocate {job.prompt.allocate_bytes} bytes."))

    async def _write(self, job: Job, stream: DeltaStream) -> None:
        matcher = StopMatcher(job.sampling.stop)
        ending: FinishReason = "stop" if job.sampling.max_tokens is None else "length"
        loop = asyncio.get_running_loop()
        started = loop.time()
        for count, token in enumerate(answer_tokens(job.prompt.words, job.max_tokens), start=1):
            text = matcher.push(token)
            last = count == job.max_tokens
            if last and not matcher.matched:
                text += matcher.finish()
            await self._pace(loop, started, count)
            finish: FinishReason | None = "stop" if matcher.matched else ending if last else None
            stream.put(Delta(text, count, finish))
            if finish:
                return

    async def _pace(self, loop: asyncio.AbstractEventLoop, started: float, count: int) -> None:
        if rate := self._options.tokens_per_second:
            await asyncio.sleep(max(0.0, started + count / rate - loop.time()))
        elif count % 64 == 0:
            await asyncio.sleep(0)  # a long answer must not stop the other streams

    def _allocate(self, size_bytes: int) -> None:
        if size_bytes:
            self._kept.append(bytearray(b"\x01") * size_bytes)  # not zeros: those pages would not be resident


def _crc32(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
