"""The generate engine on a tiny random Llama, against transformers itself and over real HTTP."""

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.builders.engine import (
    MIB,
    RunningEngine,
    chat_body,
    fake_conductor,
    generate_args,
    make_tiny_llama,
    running_engine,
    soonest_s,
)

from cotenant_serving.contract import Heartbeat, Reason
from cotenant_serving.engine.base import DeltaStream, GenerationError, Job, LoadError, Prompt
from cotenant_serving.engine.generate import GenerateEngine
from cotenant_serving.engine.loader import load
from cotenant_serving.engine.model_source import ModelSource
from cotenant_serving.openai_api import Sampling

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's and transformers' own
]

PROMPTS = ["hello", "the quick brown fox jumps", "x" * 90, "Ünïcödé 🙂", "1 2 3 4 5 6 7"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def engine(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    args = generate_args(model)
    with fake_conductor() as conductor, running_engine(args, tmp_path_factory.mktemp("engine"), conductor) as running:
        yield running


@pytest.fixture(scope="module")
def greedy(model: Path) -> Callable[[str, int], list[int]]:
    """Greedy ids of a chat prompt by transformers' own generate."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    reference = AutoModelForCausalLM.from_pretrained(model, attn_implementation="sdpa").eval()

    def generate(prompt: str, count: int) -> list[int]:
        messages = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        with torch.no_grad():
            output = reference.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=False,
                max_new_tokens=count,
            )
        generated: list[int] = output[0, len(ids) :].tolist()
        return generated

    return generate


@pytest.fixture(scope="module")
def decode(model: Path) -> Callable[[list[int]], str]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)

    def text(ids: list[int]) -> str:
        decoded: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return decoded

    return text


def test_greedy_answers_of_several_prompts_at_once_equal_transformers_own(
    engine: RunningEngine, greedy: Callable[[str, int], list[int]], decode: Callable[[list[int]], str]
) -> None:
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        answers = list(pool.map(lambda text: engine.chat(text, max_tokens=40, temperature=0, stream=True), PROMPTS))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = greedy(prompt, 40)
        assert answer.text == decode(expected), prompt
        assert f'"completion_tokens":{len(expected)}}}'.encode() in answer.body


def test_streamed_and_whole_answers_are_the_same_text(engine: RunningEngine) -> None:
    whole = engine.chat("again", max_tokens=30, temperature=0)
    stream = engine.chat("again", max_tokens=30, temperature=0, stream=True)
    assert whole.text == stream.text
    assert whole.json["choices"][0]["finish_reason"] in ("length", "stop")


def test_a_stop_string_ends_the_text_before_itself(
    engine: RunningEngine, greedy: Callable[[str, int], list[int]], decode: Callable[[list[int]], str]
) -> None:
    text = decode(greedy("stop here", 60))
    stop = text[20:23]
    answer = engine.chat("stop here", max_tokens=60, temperature=0, stop=stop, stream=True)
    assert answer.text == text[: text.index(stop)]
    assert answer.events[-1]["choices"][0]["finish_reason"] == "stop"
    usage = json.loads(answer.body.split(b": cotenant-usage ")[1].split(b"\n")[0])
    assert usage["completion_tokens"] < 60


def test_a_prompt_that_is_too_long_is_refused_while_others_stream_on(engine: RunningEngine) -> None:
    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(engine.chat, f"go on {index}", stream=True, max_tokens=300) for index in range(2)]
        engine.wait_until(lambda state: state.running == 2)
        refused = engine.chat("y" * 2000)
        answers = [stream.result() for stream in streams]
    assert (refused.status, refused.json["error"]["code"]) == (400, "context_length_exceeded")
    assert "512 tokens" in refused.json["error"]["message"]
    assert all(answer.body.endswith(b"data: [DONE]\n\n") for answer in answers)


def test_more_requests_than_the_cache_holds_wait_their_turn_and_all_complete(model: Path, tmp_path: Path) -> None:
    kv_bytes = 20 * 32 * 512  # 20 pages of 32 tokens: one context and a bit
    with (
        fake_conductor() as conductor,
        running_engine(generate_args(model, kv_cache_bytes=kv_bytes), tmp_path, conductor) as engine,
        ThreadPoolExecutor(6) as pool,
    ):
        answers = list(pool.map(lambda index: engine.chat(f"n{index}", max_tokens=250, stream=True), range(6)))
    assert all(answer.body.endswith(b"data: [DONE]\n\n") for answer in answers)


def test_a_cancel_frees_the_slot_and_the_cache(engine: RunningEngine) -> None:
    def freed_after_s() -> float:
        connections = []
        for index in range(8):
            headers = {"x-request-id": f"c{index}"}
            connections.append(engine.send("POST", "/v1/chat/completions", chat_body("go", stream=True), headers))
        engine.wait_until(lambda state: state.running == 8)
        statuses = [engine.request("DELETE", f"/v1/requests/c{index}").status for index in range(8)]
        cancelled_s = time.monotonic()
        engine.wait_until(lambda state: state.running == 0)
        took_s = time.monotonic() - cancelled_s
        for connection in connections:
            connection.close()
        assert 200 in statuses
        return took_s

    assert soonest_s(freed_after_s, enough_s=2.0) <= 2.0
    assert engine.chat("still here", max_tokens=5).json["usage"]["completion_tokens"] <= 5


def test_a_client_that_leaves_frees_its_slot(engine: RunningEngine) -> None:
    def freed_after_s() -> float:
        connection = engine.send("POST", "/v1/chat/completions", chat_body("go", stream=True))
        connection.getresponse().readline()
        return engine.freed_after_s(connection)

    assert soonest_s(freed_after_s, enough_s=1.0) <= 1.0


def test_token_ids_are_taken_and_checked(engine: RunningEngine) -> None:
    fine = engine.request("POST", "/v1/completions", {"model": "m", "prompt": [1, 2, 3], "max_tokens": 3})
    assert fine.json["usage"]["prompt_tokens"] == 3
    refused = engine.request("POST", "/v1/completions", {"model": "m", "prompt": [1, 99999]})
    assert refused.status == 400
    assert "99999" in refused.json["error"]["message"]


def test_what_the_chat_template_refuses_is_the_clients_error(engine: RunningEngine) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "system", "content": "late"}]
    refused = engine.request("POST", "/v1/chat/completions", {"model": "m", "messages": messages})
    assert refused.status == 400
    assert "a system message must come first" in refused.json["error"]["message"]


def test_sampling_is_per_request(engine: RunningEngine) -> None:
    with ThreadPoolExecutor(8) as pool:
        greedy = pool.map(lambda _: engine.chat("same", max_tokens=30, temperature=0).text, range(4))
        hot = pool.map(lambda _: engine.chat("same", max_tokens=30, temperature=2.0).text, range(4))
        assert len(set(greedy)) == 1
        assert len(set(hot)) == 4


def test_a_top_k_above_the_vocabulary_harms_nobody(engine: RunningEngine) -> None:
    assert engine.chat("k", max_tokens=5, top_k=10**9).status == 200
    assert engine.chat("k", max_tokens=5, top_k=1).text == engine.chat("k", max_tokens=5, temperature=0).text


def test_files_that_are_overwritten_or_cut_do_not_change_what_serves(tmp_path: Path) -> None:
    """The weights were copied from the files when the model was loaded."""
    folder = make_tiny_llama(tmp_path / "model")
    with fake_conductor() as conductor, running_engine(generate_args(folder), tmp_path, conductor) as engine:
        before = engine.chat("Hello", max_tokens=20, temperature=0).text
        weights = folder / "model.safetensors"
        with weights.open("r+b") as file:
            file.seek(weights.stat().st_size // 2)
            file.write(b"\xff" * 1000)
        os.truncate(weights, weights.stat().st_size - 4096)
        after = engine.chat("Hello", max_tokens=20, temperature=0).text
    assert after == before


def test_a_model_without_a_chat_template_serves_completions_only(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "model", chat_template=None)
    with fake_conductor() as conductor, running_engine(generate_args(folder), tmp_path, conductor) as engine:
        refused = engine.chat("hi")
        assert (refused.status, refused.json["error"]["code"]) == (400, "no_chat_template")
        assert "/v1/completions" in refused.json["error"]["message"]
        answer = engine.request("POST", "/v1/completions", {"model": "m", "prompt": "hi", "max_tokens": 4})
        assert answer.json["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}


async def read_to_the_end(stream: DeltaStream) -> None:
    while (await stream.take())[-1].finish_reason is None:
        pass


def broken_forward(*_: object, **__: object) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


async def test_a_generation_loop_that_dies_is_replaced(model: Path) -> None:
    engine = GenerateEngine(generate_args(model))
    await asyncio.to_thread(engine.load, lambda *_, **__: None)
    try:
        victim, after = DeltaStream(), DeltaStream()
        assert engine._loaded is not None
        model_that_breaks = engine._loaded.model
        model_that_breaks.forward = broken_forward
        engine.start(Job("a", Prompt(tokens=4, ids=(1, 2, 3, 4)), 500, Sampling()), victim)
        with pytest.raises(GenerationError):
            await asyncio.wait_for(read_to_the_end(victim), 30)
        del model_that_breaks.forward
        async with asyncio.timeout(30):
            while not engine.restarts:
                await asyncio.sleep(0.05)
        engine.start(Job("b", Prompt(tokens=4, ids=(1, 2, 3, 4)), 5, Sampling()), after)
        await asyncio.wait_for(read_to_the_end(after), 30)
        assert after.tokens <= 5
        assert engine.healthy()
    finally:
        engine.close()


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


LOAD_FAILURES: list[tuple[Callable[[Path], object], Reason, str]] = [
    (shutil.rmtree, Reason.MODEL_NOT_FOUND, ""),
    (lambda folder: (folder / "config.json").unlink(), Reason.FILE_MISSING, "config.json"),
    (lambda folder: (folder / "model.safetensors").unlink(), Reason.FILE_MISSING, "safetensors"),
    (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
     Reason.UNSAFE_FILES, "pytorch_model.bin"),
    (lambda folder: edit_config(folder, auto_map={"AutoModelForCausalLM": "x.Y"}), Reason.UNSAFE_FILES, "auto_map"),
    (cut_off, Reason.CORRUPT_WEIGHTS, "bytes"),
    (lambda folder: edit_config(folder, architectures=["BertForMaskedLM"], model_type="bert"),
     Reason.UNSUPPORTED_ARCHITECTURE, "BertForMaskedLM"),
    (lambda folder: edit_config(folder, architectures=["NewForCausalLM"], model_type="never-heard-of"),
     Reason.UNSUPPORTED_ARCHITECTURE, "NewForCausalLM"),
    (lambda folder: edit_config(folder, num_hidden_layers=3), Reason.CORRUPT_WEIGHTS, "lack"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), Reason.LOAD_FAILED, "file://"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "reason", "words"),
    LOAD_FAILURES,
    ids=[
        "gone",
        "no-config",
        "no-weights",
        "pickle",
        "own-code",
        "cut-off",
        "bert",
        "unknown",
        "layers",
        "tokenizer",
    ],
)
def test_every_failure_to_load_has_its_reason(
    model: Path, tmp_path: Path, broken: Callable[[Path], object], reason: Reason, words: str
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    broken(folder)
    with pytest.raises(LoadError) as caught:
        load(args := generate_args(folder), ModelSource(args), lambda *_, **__: None)
    assert caught.value.reason is reason, caught.value.message
    assert words in caught.value.message
    assert str(folder) in caught.value.message


def test_a_failure_to_load_reaches_the_conductor_and_the_disk(tmp_path: Path) -> None:
    args = generate_args(tmp_path / "nowhere", log_dir=str(tmp_path / "logs"))
    with fake_conductor() as conductor, running_engine(args, tmp_path, conductor, wait=False) as engine:
        assert engine.process.wait(timeout=60) == 1
        beat = conductor.wait_for(lambda beat: beat.state == "failed")
    assert beat.reason is Reason.MODEL_NOT_FOUND
    assert not beat.holds_lease
    cause = msgspec.json.decode((tmp_path / "logs" / f"{args.app}.cause.json").read_bytes(), type=Heartbeat)
    assert cause.message == beat.message
    assert "ModelNotFound" in (tmp_path / "logs" / f"{args.app}.log").read_text()


def test_a_cache_that_holds_no_context_does_not_fit(model: Path, tmp_path: Path) -> None:
    with fake_conductor() as conductor:
        args = generate_args(model, kv_cache_bytes=MIB // 16)
        with running_engine(args, tmp_path, conductor, wait=False) as engine:
            assert engine.process.wait(timeout=60) == 1
            assert conductor.wait_for(lambda beat: beat.state == "failed").reason is Reason.DOES_NOT_FIT
