"""The echo engine: deterministic answers that prove their own wholeness."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_serving.contract import EchoOptions
from cotenant_serving.engine.base import DeltaStream, GenerationError, Job
from cotenant_serving.engine.echo import EchoEngine, answer_tokens, prompt_words, verify
from cotenant_serving.openai_api import ChatMessage, GenerateRequest, Sampling, parse_completion


def chat(*contents: str) -> GenerateRequest:
    return GenerateRequest(kind="chat", model="m", messages=tuple(ChatMessage("user", text) for text in contents))


async def answer(engine: EchoEngine, request: GenerateRequest, sampling: Sampling) -> tuple[str, int, str | None]:
    prompt = await engine.encode(request)
    limit = sampling.max_tokens or prompt.default_max_tokens or 0
    stream, text, reason = DeltaStream(), "", None
    engine.start(Job("r", prompt, limit, sampling), stream)
    while reason is None:
        for delta in await stream.take():
            text += delta.text
            reason = delta.finish_reason
    return text, stream.tokens, reason


@given(st.lists(st.text("abc", min_size=1), max_size=5), st.integers(1, 30))
def test_an_answer_has_exactly_the_tokens_asked_for_and_verifies(words: list[str], count: int) -> None:
    tokens = list(answer_tokens(words, count))
    assert len(tokens) == count
    assert verify("".join(tokens))


@pytest.mark.parametrize("broken", ["", "hello", "hello [crc32=00000000]", "hullo [crc32=3610a686]"])
def test_a_text_that_lost_or_changed_something_does_not_verify(broken: str) -> None:
    assert not verify(broken)


def test_a_missing_token_in_the_middle_is_noticed() -> None:
    tokens = list(answer_tokens(["a", "b", "c"], 7))
    assert verify("".join(tokens))
    assert not verify("".join(tokens[:2] + tokens[3:]))


async def test_without_a_limit_it_says_each_word_once_and_stops() -> None:
    text, tokens, reason = await answer(EchoEngine(EchoOptions(), 512), chat("ignored", "one two"), Sampling())
    assert text.startswith("one two [crc32=")
    assert (tokens, reason) == (3, "stop")


async def test_with_a_limit_it_cycles_and_ends_by_length() -> None:
    text, tokens, reason = await answer(EchoEngine(EchoOptions(), 512), chat("one two"), Sampling(max_tokens=6))
    assert text.startswith("one two one two one [crc32=")
    assert (tokens, reason) == (6, "length")


async def test_a_stop_string_ends_it() -> None:
    sampling = Sampling(max_tokens=9, stop=("two",))
    assert await answer(EchoEngine(EchoOptions(), 512), chat("one two"), sampling) == ("one ", 2, "stop")


def test_token_ids_are_words_too() -> None:
    request = parse_completion(b'{"model": "m", "prompt": [7, 11]}')
    assert prompt_words(request) == ("7", "11")


async def test_cancelling_ends_the_stream_with_an_error() -> None:
    engine = EchoEngine(EchoOptions(tokens_per_second=0.001), 512)
    stream = DeltaStream()
    engine.start(Job("r", await engine.encode(chat("a b")), 3, Sampling()), stream)
    await asyncio.sleep(0.01)
    engine.cancel("r")
    with pytest.raises(GenerationError, match="cancelled"):
        await asyncio.wait_for(stream.take(), 5)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("!allocate 300", 300), ("please !allocate 300", 0), ("!allocate x", 0)]
)
async def test_only_a_message_of_exactly_the_command_allocates(text: str, size_bytes: int) -> None:
    assert (await EchoEngine(EchoOptions(), 512).encode(chat(text))).allocate_bytes == size_bytes


def test_loading_reports_progress_in_steps_and_takes_its_time() -> None:
    slept: list[float] = []
    steps: list[float] = []
    engine = EchoEngine(EchoOptions(load_s=0.5), 512, sleep=slept.append)
    engine.load(lambda _, fraction: steps.append(fraction))
    assert sum(slept) == pytest.approx(0.5)
    assert steps == sorted(steps)
    assert steps[-1] == 1.0
    assert len(steps) == 6
