"""The engine's HTTP over a programmable engine: who is refused and how, what goes out in which write."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.builders.engine import chat_body, echo_args
from tests.builders.engine_app import Exchange, send_to

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import Delta, DeltaStream, GenerationError, Job, Progress, Prompt
from cotenant_serving.engine.server import EngineServer
from cotenant_serving.engine.status import EngineStatus
from cotenant_serving.openai_api import GenerateRequest


@dataclass
class FakeEngine:
    """Every prompt has 10 tokens; the test writes into `streams`."""

    context_tokens: int = 100
    prompt_tokens: int = 10
    jobs: dict[str, Job] = field(default_factory=dict)
    streams: dict[str, DeltaStream] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    def fetch(self, progress: Progress) -> None: ...

    def load(self, progress: Progress) -> None: ...

    async def encode(self, request: GenerateRequest) -> Prompt:
        return Prompt(tokens=self.prompt_tokens)

    def start(self, job: Job, stream: DeltaStream) -> None:
        self.jobs[job.request_id] = job
        self.streams[job.request_id] = stream

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)

    def healthy(self) -> bool:
        return True

    def close(self) -> None: ...


@dataclass
class World:
    engine: FakeEngine
    status: EngineStatus
    app: EngineServer

    def send(
        self, method: str = "POST", path: str = "/v1/chat/completions", body: Any = None, **headers: str
    ) -> Exchange:
        return send_to(self.app, method, path, body, **headers)

    async def started(self, request_id: str) -> DeltaStream:
        async with asyncio.timeout(5):
            while request_id not in self.engine.streams:
                await asyncio.sleep(0)
        return self.engine.streams[request_id]


def world(*, ready: bool = True, slots: int = 2) -> World:
    engine = FakeEngine()
    status = EngineStatus(echo_args(slots=slots), instance="me", host="127.0.0.1", port=8800)
    if ready:
        status.ready()
    return World(engine, status, EngineServer(engine, status, lambda: "t", clock=lambda: 1700000000.5))


def stream_body(**options: Any) -> dict[str, Any]:
    return chat_body("hi", stream=True, **options)


@pytest.mark.parametrize("path", ["/state", "/v1/requests/x", "/nowhere", "/v1/chat/completions"])
async def test_without_the_pools_token_nothing_is_told(path: str) -> None:
    exchange = await world().send("GET", path, authorization="Bearer wrong").done()
    assert exchange.status == 401


async def test_health_needs_no_token() -> None:
    assert (await world().send("GET", "/healthz", authorization="").done()).status == 200


@pytest.mark.parametrize("headers", [{"x_cotenant_instance": "other"}, {"x_cotenant_model": "team/other"}])
async def test_a_request_meant_for_another_is_refused_before_any_work(headers: dict[str, str]) -> None:
    exchange = await world(ready=False).send(body=chat_body("hi"), **headers).done()
    assert exchange.status == 421
    assert exchange.headers["x-cotenant-refused"] == "misdirected"


async def test_the_addressed_engine_answers() -> None:
    here = world()
    exchange = here.send(
        body=chat_body("hi"), x_request_id="r", x_cotenant_instance="me", x_cotenant_model="team/echo"
    )
    (await here.started("r")).put(Delta("yes", 1, "stop"))
    assert (await exchange.done()).status == 200


async def test_an_engine_that_is_not_ready_says_so_before_it_parses() -> None:
    here = world(ready=False)
    exchange = await here.send(body="not a request").done()
    assert (exchange.status, exchange.headers["x-cotenant-refused"]) == (503, "loading")
    here.status.draining()
    exchange = await here.send(body="not a request").done()
    assert (exchange.status, exchange.headers["x-cotenant-refused"]) == (503, "draining")


async def test_a_full_engine_is_busy_and_a_freed_slot_is_used() -> None:
    here = world(slots=1)
    first = here.send(body=chat_body("hi"), x_request_id="a")
    stream = await here.started("a")
    refused = await here.send(body=chat_body("hi")).done()
    assert (refused.status, refused.headers["x-cotenant-refused"], refused.headers["retry-after"]) == (
        503,
        "busy",
        "1",
    )
    stream.put(Delta("x", 1, "stop"))
    await first.done()
    second = here.send(body=chat_body("hi"), x_request_id="b")
    (await here.started("b")).put(Delta("x", 1, "stop"))
    assert (await second.done()).status == 200
    assert (here.status.snapshot().running, here.status.snapshot().requests_total) == (0, 2)


async def test_an_id_in_flight_is_not_taken_twice() -> None:
    here = world()
    here.send(body=chat_body("hi"), x_request_id="a")
    await here.started("a")
    assert (await here.send(body=chat_body("hi"), x_request_id="a").done()).status == 409


async def test_a_bad_request_is_answered_and_frees_its_slot() -> None:
    here = world()
    exchange = await here.send(body={"model": "m", "messages": [], "stream": True}).done()
    assert (exchange.status, exchange.error["param"]) == (400, "messages")
    assert here.app.running == 0


async def test_a_prompt_longer_than_the_context_names_both_numbers() -> None:
    here = world()
    here.engine.prompt_tokens = 120
    exchange = await here.send(body=chat_body("hi")).done()
    assert (exchange.status, exchange.error["code"], exchange.error["param"]) == (
        400,
        "context_length_exceeded",
        "messages",
    )
    assert "100 tokens" in exchange.error["message"]
    assert "120 tokens" in exchange.error["message"]


async def test_prompt_and_max_tokens_must_fit_together() -> None:
    here = world()
    exchange = await here.send(path="/v1/completions", body={"model": "m", "prompt": "x", "max_tokens": 91}).done()
    assert (exchange.status, exchange.error["param"]) == (400, "prompt")
    assert "101 tokens (10 in the prompt, 91 in the completion)" in exchange.error["message"]


async def test_without_max_tokens_an_answer_may_fill_the_context() -> None:
    here = world()
    here.send(body=chat_body("hi"), x_request_id="a")
    await here.started("a")
    assert here.engine.jobs["a"].max_tokens == 90


async def test_deltas_that_are_there_already_go_out_in_one_write() -> None:
    here = world()
    exchange = here.send(body=stream_body(), x_request_id="a")
    stream = await here.started("a")
    for count in (1, 2, 3):
        stream.put(Delta(f"w{count}", count))
    stream.put(Delta("end", 4, "length"))
    await exchange.done()
    assert len(exchange.writes) == 2
    assert exchange.writes[0].count(b"data: ") == 4
    assert exchange.writes[0].count(b'"role":"assistant"') == 1


async def test_the_end_of_a_stream_is_one_write_of_usage_comment_and_done() -> None:
    here = world()
    exchange = here.send(body=stream_body(stream_options={"include_usage": True}), x_request_id="a")
    (await here.started("a")).put(Delta("hi", 1, "stop"))
    await exchange.done()
    event, comment, done, rest = exchange.writes[-1].split(b"\n\n")
    usage = json.loads(event.removeprefix(b"data: "))
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    assert comment == b': cotenant-usage {"prompt_tokens":10,"completion_tokens":1}'
    assert (done, rest) == (b"data: [DONE]", b"")
    assert b'"usage":null' in exchange.writes[0]


async def test_without_include_usage_a_client_sees_no_usage() -> None:
    here = world()
    exchange = here.send(body=stream_body(), x_request_id="a")
    (await here.started("a")).put(Delta("hi", 1, "stop"))
    await exchange.done()
    assert b'"usage"' not in exchange.body
    assert exchange.writes[-1].startswith(b": cotenant-usage ")


async def test_a_failure_before_the_first_byte_has_a_status() -> None:
    here = world()
    exchange = here.send(body=stream_body(), x_request_id="a")
    (await here.started("a")).fail(GenerationError("broke"))
    await exchange.done()
    assert (exchange.status, exchange.error["type"], exchange.error["message"]) == (500, "server_error", "broke")


async def test_a_failure_in_a_stream_is_an_event_with_usage_and_no_done() -> None:
    here = world()
    exchange = here.send(body=stream_body(), x_request_id="a")
    stream = await here.started("a")
    stream.put(Delta("hi", 3))
    stream.fail(GenerationError("broke"))
    await exchange.done()
    assert exchange.status == 200
    assert b'"hi"' in exchange.writes[0]
    assert exchange.writes[-1].startswith(b'data: {"error":{"message":"broke"')
    assert exchange.writes[-1].endswith(b': cotenant-usage {"prompt_tokens":10,"completion_tokens":3}\n\n')
    assert b"[DONE]" not in exchange.body


async def test_a_whole_answer_carries_its_usage_in_body_and_header() -> None:
    here = world()
    exchange = here.send(body=chat_body("hi"), x_request_id="a")
    stream = await here.started("a")
    stream.put(Delta("one ", 1))
    stream.put(Delta("two", 2, "stop"))
    await exchange.done()
    answer = json.loads(exchange.body)
    assert answer["choices"][0]["message"]["content"] == "one two"
    assert (answer["id"], answer["object"], answer["created"]) == ("chatcmpl-a", "chat.completion", 1700000000)
    assert exchange.headers["x-cotenant-usage"] == '{"prompt_tokens":10,"completion_tokens":2}'


async def test_a_client_that_leaves_stops_its_generation_and_frees_the_slot() -> None:
    here = world()
    exchange = here.send(body=stream_body(), x_request_id="a")
    (await here.started("a")).put(Delta("hi", 1))
    exchange.gone.set()
    await exchange.done()
    assert "a" in here.engine.cancelled
    assert here.app.running == 0


async def test_a_cancel_answers_with_the_usage_so_far() -> None:
    here = world()
    exchange = here.send(body=stream_body(), x_request_id="a")
    (await here.started("a")).put(Delta("hi", 7))
    cancel = await here.send("DELETE", "/v1/requests/a").done()
    assert (cancel.status, json.loads(cancel.body)) == (200, {"prompt_tokens": 10, "completion_tokens": 7})
    await exchange.done()
    assert "a" in here.engine.cancelled
    assert b"[DONE]" not in exchange.body
    assert (await here.send("DELETE", "/v1/requests/a").done()).status == 404


async def test_the_state_is_the_heartbeat() -> None:
    here = world()
    here.status.failed(Reason.LOAD_FAILED, "why")
    exchange = await here.send("GET", "/state").done()
    state = json.loads(exchange.body)
    assert (state["state"], state["reason"], state["message"]) == ("failed", "LoadFailed", "why")
