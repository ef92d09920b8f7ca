"""Builders for engines: arguments, a tiny random Llama on disk, a fake conductor, a running engine process."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

import msgspec

from cotenant_serving.contract import (
    Candidate,
    EchoOptions,
    EngineArgs,
    EngineSpec,
    Heartbeat,
    HeartbeatReply,
)
from tests.builders.loopback import answering_posts

TOKEN = "pool-token-of-the-tests"
MIB = 2**20

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' and not loop.first %}"
    "{{ raise_exception('a system message must come first') }}{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_llama(folder: Path, seed: int = 0, *, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """A random Llama (2 layers, hidden 64) with a byte-level tokenizer in `folder`, in Hugging Face format."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>", extra_special_tokens=["<|im_start|>"]
    )
    fast.chat_template = chat_template
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
        initializer_range=0.3,
    )
    folder.mkdir(parents=True, exist_ok=True)
    LlamaForCausalLM(config).eval().save_pretrained(folder, safe_serialization=True)
    fast.save_pretrained(folder)
    return folder


def echo_args(**changes: Any) -> EngineArgs:
    """Arguments of an echo engine on the CPU. `echo`, `slots` and `context_tokens` go into its spec."""
    echo = changes.pop("echo", EchoOptions())
    return _args("echo", {"echo": echo}, changes)


def generate_args(folder: Path, **changes: Any) -> EngineArgs:
    """Arguments of a generate engine on the CPU. `slots` and `context_tokens` go into its spec."""
    return _args("generate", {"source": f"file://{folder}"}, {"kv_cache_bytes": 4 * MIB, **changes})


def text_args(task: Any, folder: Path, **changes: Any) -> EngineArgs:
    """Arguments of an embed, rerank, classify or tensor engine on the CPU. Fields of its spec go there."""
    spec = {name: changes.pop(name) for name in ("max_batch", "batch_wait_s") if name in changes}
    return _args(task, {"source": f"file://{folder}", **spec}, changes)


def _args(task: Any, spec: dict[str, Any], changes: dict[str, Any]) -> EngineArgs:
    share_bytes = changes.pop("share_bytes", 4096 * MIB)
    return EngineArgs(
        app=changes.pop("app", f"{task}-00000000-0"),
        spec=EngineSpec(
            model=changes.pop("model", f"team/{task}"),
            revision="00000000",
            task=task,
            candidates=(Candidate(group="cpu", share_bytes=share_bytes),),
            device=changes.pop("device", "cpu"),
            context_tokens=changes.pop("context_tokens", 512),
            concurrency=changes.pop("slots", 8),
            **spec,
        ),
        share_bytes=share_bytes,
        **{
            "device_id": "127.0.0.1/cpu/0",
            "device_index": 0,
            "device_bytes": 8192 * MIB,
            "conductor_url": "http://127.0.0.1:1",
            "pool_token_file": "",
            **changes,
        },
    )


@dataclass
class FakeConductor:
    """Answers heartbeats on loopback; grants the start lease while `grant` is true."""

    grant: bool = True
    heartbeats: list[Heartbeat] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    url: str = ""

    def last(self) -> Heartbeat | None:
        return self.heartbeats[-1] if self.heartbeats else None

    def states(self) -> list[str]:
        """The states that were reported, each once, in order."""
        return list(dict.fromkeys(beat.state for beat in self.heartbeats))

    def wait_for(self, seen: Callable[[Heartbeat], bool], timeout_s: float = 60.0) -> Heartbeat:
        """The first heartbeat, past or to come, for which `seen` is true."""
        index, deadline = 0, time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            while index < len(self.heartbeats):
                if seen(self.heartbeats[index]):
                    return self.heartbeats[index]
                index += 1
            time.sleep(0.02)
        raise AssertionError(f"no such heartbeat in {timeout_s} s; states: {self.states()}, last: {self.last()}")


@contextmanager
def fake_conductor(*, grant: bool = True) -> Iterator[FakeConductor]:
    fake = FakeConductor(grant=grant)

    def answer(_: str, headers: Message, body: bytes) -> tuple[str, bytes]:
        fake.tokens.add(headers["authorization"])
        heartbeat = msgspec.json.decode(body, type=Heartbeat)
        fake.heartbeats.append(heartbeat)
        lease = heartbeat.holds_lease or (fake.grant and heartbeat.state == "waiting")
        return "application/json", msgspec.json.encode(HeartbeatReply(lease=lease))

    with answering_posts(answer) as fake.url:
        yield fake


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The JSON of each server-sent event, without comments and [DONE]."""
        blocks = [block for block in self.body.split(b"\n\n") if block.startswith(b"data: ")]
        return [json.loads(block[6:]) for block in blocks if block != b"data: [DONE]"]

    @property
    def text(self) -> str:
        """The text of the answer, streamed or not."""
        choices = [choice for event in self.events for choice in event.get("choices", ())]
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            choices = self.json["choices"]
        return "".join(
            choice.get("text") or (choice.get("delta") or choice.get("message") or {}).get("content") or ""
            for choice in choices
        )


@dataclass
class RunningEngine:
    """An engine in a process of its own, and the pool's side of its HTTP."""

    process: subprocess.Popen[bytes]
    conductor: FakeConductor
    args: EngineArgs
    log: Path

    @property
    def beat(self) -> Heartbeat:
        last = self.conductor.last()
        assert last is not None
        return last

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, token: str = TOKEN
    ) -> Answer:
        connection = self.send(method, path, body, headers, token)
        try:
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, token: str = TOKEN
    ) -> http.client.HTTPConnection:
        """Sends a request and leaves its answer to be read; closing the connection is a client that leaves."""
        connection = http.client.HTTPConnection(self.beat.host, self.beat.port, timeout=60)
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"authorization": f"Bearer {token}"} | (headers or {}))
        return connection

    def chat(self, content: str, headers: dict[str, str] | None = None, **options: Any) -> Answer:
        return self.request("POST", "/v1/chat/completions", chat_body(content, **options), headers)

    def state(self) -> Heartbeat:
        return msgspec.json.decode(self.request("GET", "/state").body, type=Heartbeat)

    def wait_until(self, true: Callable[[Heartbeat], bool], timeout_s: float = 60.0) -> Heartbeat:
        """Polls GET /state."""
        deadline = time.monotonic() + timeout_s
        while not true(state := self.state()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout_s} s: {state}")
            time.sleep(0.02)
        return state

    def freed_after_s(self, connection: http.client.HTTPConnection) -> float:
        """Until nothing runs, from this client's leaving on."""
        left_s = time.monotonic()
        connection.close()
        self.wait_until(lambda state: state.running == 0)
        return time.monotonic() - left_s


def soonest_s(measure_s: Callable[[], float], *, enough_s: float, tries: int = 4) -> float:
    """The shortest of so many tries, until one is short enough: a busy machine holds some of them up."""
    soonest = measure_s()
    for _ in range(tries - 1):
        if soonest <= enough_s:
            break
        soonest = min(soonest, measure_s())
    return soonest


def chat_body(content: str, **options: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}]} | options


@contextmanager
def running_engine(
    args: EngineArgs, folder: Path, conductor: FakeConductor, *, wait: bool = True, drain_s: float = 20.0
) -> Iterator[RunningEngine]:
    """Starts `python -m cotenant_serving.engine`; with `wait`, until it is ready. Kills it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    token_file, args_file, log = folder / "token", folder / "args.json", folder / "engine.out"
    token_file.write_text(TOKEN + "\n")
    args = msgspec.structs.replace(args, conductor_url=conductor.url, pool_token_file=str(token_file))
    args_file.write_bytes(msgspec.json.encode(args))
    command = [sys.executable, "-m", "cotenant_serving.engine", "--args", str(args_file), "--drain-s", str(drain_s)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    engine = RunningEngine(process, conductor, args, log)
    try:
        if wait:
            _wait_ready(engine)
        yield engine
    finally:
        process.kill()
        process.wait()


def _wait_ready(engine: RunningEngine) -> None:
    try:
        beat = engine.conductor.wait_for(lambda beat: beat.state in ("ready", "failed"), timeout_s=120.0)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{engine.log.read_text()}") from error
    assert beat.state == "ready", f"{beat.reason}: {beat.message}\n{engine.log.read_text()}"
