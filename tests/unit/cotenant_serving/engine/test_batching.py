"""The batcher over a programmable manager: admission, stop strings, cancellation, a generation loop that dies."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from cotenant_serving.engine.admission import PageLedger
from cotenant_serving.engine.base import Delta, DeltaStream, GenerationError, Job, Prompt
from cotenant_serving.engine.batching import Batcher
from cotenant_serving.openai_api import Sampling

EOS = 0
VOCABULARY = 256


def decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


@dataclass
class FakeOutput:
    generated_tokens: list[int]
    finished: bool = False
    error: str | None = None

    def is_finished(self) -> bool:
        return self.finished


@dataclass
class FakeManager:
    """Takes requests; the test says what they produce."""

    alive: bool = True
    accepts: bool = True
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    handlers: dict[str, Callable[[Any], None]] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    stopped: bool = False

    def start(self) -> None: ...

    def stop(self, block: bool = True, timeout: float | None = None, *, hard_stop: bool = False) -> None:
        self.stopped, self.alive = True, False

    def is_running(self) -> bool:
        return self.alive

    def register_result_handler(self, request_id: str, callback: Callable[[Any], None]) -> None:
        self.handlers[request_id] = callback

    def add_request(self, input_ids: list[int], request_id: str, **options: Any) -> str | None:
        if not self.accepts:
            return None
        self.requests[request_id] = {"input_ids": input_ids} | options
        return request_id

    def cancel_request(self, request_id: str) -> None:
        self.cancelled.append(request_id)

    def produce(
        self, request_id: str, text: str | bytes, *, finished: bool = False, error: str | None = None
    ) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.handlers[request_id](FakeOutput(list(data), finished, error))


def batcher(*managers: FakeManager, pages: int = 8) -> Batcher:
    """The first manager runs; the others are what restarts get."""
    rest = iter(managers[1:])
    return Batcher(managers[0], lambda: next(rest), PageLedger(pages, 32), decode, frozenset({EOS}), VOCABULARY)


def job(request_id: str, tokens: int = 10, max_tokens: int = 22, **sampling: Any) -> Job:
    return Job(request_id, Prompt(tokens=tokens, ids=range(tokens)), max_tokens, Sampling(**sampling))


async def text_of(stream: DeltaStream) -> tuple[str, Delta]:
    deltas = await asyncio.wait_for(stream.take(), 30)
    return "".join(delta.text for delta in deltas), deltas[-1]


async def test_tokens_become_text_and_are_counted() -> None:
    manager, stream = FakeManager(), DeltaStream()
    batcher(manager).start(job("a"), stream)
    manager.produce("a", "h")
    manager.produce("a", "hi", finished=True)
    text, last = await text_of(stream)
    assert (text, last.tokens, last.finish_reason) == ("hi", 2, "length")


async def test_an_eos_token_counts_but_is_not_shown() -> None:
    manager, stream = FakeManager(), DeltaStream()
    batcher(manager).start(job("a"), stream)
    manager.produce("a", b"hi\x00", finished=True)
    text, last = await text_of(stream)
    assert (text, last.tokens, last.finish_reason) == ("hi", 3, "stop")


async def test_a_stop_string_ends_the_answer_and_the_generation() -> None:
    manager, stream = FakeManager(), DeltaStream()
    engine = batcher(manager)
    engine.start(job("a", stop=("END",)), stream)
    manager.produce("a", "go E")
    manager.produce("a", "go END!")
    text, last = await text_of(stream)
    assert (text, last.tokens, last.finish_reason) == ("go ", 6, "stop")
    assert manager.cancelled == ["a"]


async def test_temperature_zero_is_greedy_whatever_else_is_asked() -> None:
    manager = FakeManager()
    batcher(manager).start(job("a", temperature=0.0, top_p=0.5, top_k=7), DeltaStream())
    options = manager.requests["a"]
    assert (options["temperature"], options["top_p"], options["top_k"]) == (1e-5, 1.0, 1)


@pytest.mark.parametrize(("asked", "handed"), [(0, 256), (40, 40), (10**9, 256)])
async def test_top_k_is_off_as_the_whole_vocabulary_and_never_more(asked: int, handed: int) -> None:
    manager = FakeManager()
    batcher(manager).start(job("a", temperature=0.7, top_k=asked), DeltaStream())
    options = manager.requests["a"]
    assert (options["temperature"], options["top_p"], options["top_k"]) == (0.7, 1.0, handed)


async def test_a_request_is_handed_over_only_when_its_tokens_fit() -> None:
    manager = FakeManager()
    engine = batcher(manager, pages=2)
    engine.start(job("a", tokens=10, max_tokens=30), DeltaStream())
    engine.start(job("b", tokens=10, max_tokens=30), DeltaStream())
    assert list(manager.requests) == ["a"]
    manager.produce("a", "x", finished=True)
    assert list(manager.requests) == ["a", "b"]


async def test_cancelling_a_waiting_request_does_not_reach_the_manager() -> None:
    manager = FakeManager()
    engine = batcher(manager, pages=2)
    for name in "abc":
        engine.start(job(name, tokens=30, max_tokens=30), DeltaStream())
    engine.cancel("b")
    engine.cancel("a")
    assert manager.cancelled == ["a"]
    assert list(manager.requests) == ["a", "c"]


async def test_a_failed_request_ends_alone() -> None:
    manager, broken, fine = FakeManager(), DeltaStream(), DeltaStream()
    engine = batcher(manager)
    engine.start(job("a"), broken)
    engine.start(job("b"), fine)
    manager.produce("a", "", finished=True, error="Traceback\nsomething broke")
    manager.produce("b", "ok", finished=True)
    with pytest.raises(GenerationError, match="something broke"):
        await broken.take()
    assert (await text_of(fine))[0] == "ok"


async def test_a_dead_loop_fails_what_ran_and_starts_what_waited_on_a_new_one() -> None:
    first, second = FakeManager(), FakeManager()
    ran, waited = DeltaStream(), DeltaStream()
    engine = batcher(first, second, pages=2)
    engine.start(job("a", tokens=30, max_tokens=30), ran)
    engine.start(job("b", tokens=30, max_tokens=30), waited)
    first.alive = False
    with pytest.raises(GenerationError, match="loop ended"):
        await asyncio.wait_for(ran.take(), 5)
    assert engine.restarts == 1
    assert first.stopped
    second.produce("b", "hi", finished=True)
    assert (await text_of(waited))[0] == "hi"


async def test_a_loop_that_takes_no_requests_is_replaced_before_anyone_notices() -> None:
    first, second, stream = FakeManager(accepts=False), FakeManager(), DeltaStream()
    engine = batcher(first, second)
    engine.start(job("a"), stream)
    second.produce("a", "hi", finished=True)
    assert (await text_of(stream))[0] == "hi"
    assert engine.restarts == 1


async def test_a_new_loop_that_takes_no_requests_either_breaks_the_engine() -> None:
    stream = DeltaStream()
    engine = batcher(FakeManager(accepts=False), FakeManager(accepts=False))
    engine.start(job("a"), stream)
    assert engine.broken
    with pytest.raises(GenerationError, match="broken"):
        await stream.take()


async def test_when_no_new_loop_can_be_made_the_engine_says_it_is_broken() -> None:
    first, stream = FakeManager(accepts=False), DeltaStream()

    def fails() -> FakeManager:
        raise RuntimeError("no memory")

    engine = Batcher(first, fails, PageLedger(8, 32), decode, frozenset(), VOCABULARY)
    engine.start(job("a"), DeltaStream())
    engine.start(job("b"), stream)
    assert engine.broken
    with pytest.raises(GenerationError, match="broken"):
        await stream.take()


async def test_an_error_in_one_answer_does_not_reach_the_others() -> None:
    manager, bad, good = FakeManager(), DeltaStream(), DeltaStream()

    def picky(ids: Sequence[int]) -> str:
        if 255 in ids:
            raise ValueError("cannot decode 255")
        return decode(ids)

    engine = Batcher(manager, FakeManager, PageLedger(8, 32), picky, frozenset(), VOCABULARY)
    engine.start(job("a"), bad)
    engine.start(job("b"), good)
    manager.produce("a", b"\xff")
    manager.produce("b", "ok", finished=True)
    with pytest.raises(GenerationError, match="cannot decode 255"):
        await bad.take()
    assert (await text_of(good))[0] == "ok"
    assert manager.cancelled == ["a"]


async def test_closing_fails_what_runs() -> None:
    manager, stream = FakeManager(), DeltaStream()
    engine = batcher(manager)
    engine.start(job("a"), stream)
    engine.close()
    with pytest.raises(GenerationError, match="stopped"):
        await stream.take()
    assert manager.stopped
