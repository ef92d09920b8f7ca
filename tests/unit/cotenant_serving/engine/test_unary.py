"""The engine's HTTP over a unary engine: what is refused, how errors look, what a cancelled request has cost."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.builders.engine import echo_args
from tests.builders.engine_app import Exchange, send_to

from cotenant_serving.contract import Usage
from cotenant_serving.engine.base import GenerationError, Progress, UnaryAnswer, UnaryRequest
from cotenant_serving.engine.server import EngineServer
from cotenant_serving.engine.status import EngineStatus
from cotenant_serving.request_fields import RequestError

EMBEDDINGS = "/v1/embeddings"
INFER = "/v2/models/team/m/infer"


@dataclass
class FakeUnary:
    """Serves two routes; the test settles the answers."""

    answers: dict[str, asyncio.Future[UnaryAnswer]] = field(default_factory=dict)
    requests: dict[str, UnaryRequest] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    def fetch(self, progress: Progress) -> None: ...

    def load(self, progress: Progress) -> None: ...

    def serves(self, method: str, path: str) -> bool:
        return (method, path) in (("POST", EMBEDDINGS), ("POST", INFER))

    async def answer(self, request: UnaryRequest) -> UnaryAnswer:
        self.requests[request.request_id] = request
        self.answers[request.request_id] = asyncio.get_running_loop().create_future()
        request.used(Usage(prompt_tokens=7, completion_tokens=0))
        return await self.answers[request.request_id]

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)

    def healthy(self) -> bool:
        return True

    def close(self) -> None: ...


@dataclass
class World:
    engine: FakeUnary
    status: EngineStatus
    app: EngineServer

    def send(self, method: str = "POST", path: str = EMBEDDINGS, body: Any = b"in", **headers: str) -> Exchange:
        return send_to(self.app, method, path, body, **headers)

    async def answering(self, request_id: str) -> asyncio.Future[UnaryAnswer]:
        async with asyncio.timeout(5):
            while request_id not in self.engine.answers:
                await asyncio.sleep(0)
        return self.engine.answers[request_id]


def world(*, ready: bool = True, slots: int = 2) -> World:
    engine = FakeUnary()
    status = EngineStatus(echo_args(slots=slots), instance="me", host="127.0.0.1", port=8800)
    if ready:
        status.ready()
    return World(engine, status, EngineServer(engine, status, lambda: "t"))


async def test_an_answer_goes_out_with_its_type_its_headers_and_its_usage() -> None:
    here = world()
    exchange = here.send(path=INFER, x_request_id="a", content_type="a/b", inference_header_content_length="2", x="y")
    answer = UnaryAnswer(b"out", Usage(prompt_tokens=9, completion_tokens=0), "c/d", {"inference-header": "1"})
    (await here.answering("a")).set_result(answer)
    await exchange.done()
    assert (exchange.status, exchange.body) == (200, b"out")
    assert exchange.headers["content-type"] == "c/d"
    assert exchange.headers["inference-header"] == "1"
    assert exchange.headers["x-cotenant-usage"] == '{"prompt_tokens":9,"completion_tokens":0}'
    asked = here.engine.requests["a"]
    assert (asked.method, asked.path, asked.body) == ("POST", INFER, b"in")
    assert asked.headers == {"content-type": "a/b", "inference-header-content-length": "2"}


async def test_a_route_of_another_task_is_not_found_in_the_shape_of_its_api() -> None:
    openai = await world().send(path="/v1/chat/completions").done()
    oip = await world().send("GET", "/v2/models/team/m").done()
    assert (openai.status, openai.error["code"]) == (404, "not_found")
    assert (oip.status, oip.json) == (
        404,
        {"error": "GET /v2/models/team/m is not a route of an engine of task echo."},
    )


async def test_slots_and_readiness_are_those_of_every_engine() -> None:
    here = world(slots=1)
    first = here.send(x_request_id="a")
    await here.answering("a")
    busy = await here.send(path=INFER).done()
    assert (busy.status, busy.headers["x-cotenant-refused"]) == (503, "busy")
    assert busy.json == {"error": "All 1 slots of this engine are taken."}
    assert (await here.send(x_request_id="a").done()).status == 409
    here.engine.answers["a"].set_result(UnaryAnswer(b"", Usage(prompt_tokens=0, completion_tokens=0)))
    assert (await first.done()).status == 200
    assert here.app.running == 0
    here.status.draining()
    assert (await here.send().done()).headers["x-cotenant-refused"] == "draining"
    assert (await here.send(x_cotenant_model="team/other").done()).status == 421


@pytest.mark.parametrize(("path", "oip"), [(EMBEDDINGS, False), (INFER, True)])
async def test_what_the_client_can_mend_is_answered_in_the_shape_of_its_api(path: str, oip: bool) -> None:
    here = world()
    exchange = here.send(path=path, x_request_id="a")
    (await here.answering("a")).set_exception(RequestError(400, "'input' is wrong.", param="input", code="c"))
    await exchange.done()
    assert exchange.status == 400
    expected = {"message": "'input' is wrong.", "type": "invalid_request_error", "param": "input", "code": "c"}
    assert exchange.error == ("'input' is wrong." if oip else expected)
    assert here.app.running == 0


@pytest.mark.parametrize(("path", "oip"), [(EMBEDDINGS, False), (INFER, True)])
async def test_a_failure_says_what_the_request_has_cost(path: str, oip: bool) -> None:
    here = world()
    exchange = here.send(path=path, x_request_id="a")
    (await here.answering("a")).set_exception(GenerationError("broke", code="computation_failed"))
    await exchange.done()
    assert exchange.status == 500
    assert (exchange.error if oip else exchange.error["message"]) == "broke"
    assert exchange.headers["x-cotenant-usage"] == '{"prompt_tokens":7,"completion_tokens":0}'


async def test_a_client_that_leaves_stops_its_request_and_frees_the_slot() -> None:
    here = world()
    exchange = here.send(x_request_id="a")
    answer = await here.answering("a")
    exchange.gone.set()
    await exchange.done()
    assert answer.cancelled()
    assert "a" in here.engine.cancelled
    assert here.app.running == 0


async def test_a_cancel_answers_with_the_usage_and_the_request_with_an_error() -> None:
    here = world()
    exchange = here.send(x_request_id="a")
    await here.answering("a")
    cancel = await here.send("DELETE", "/v1/requests/a").done()
    assert (cancel.status, cancel.json) == (200, {"prompt_tokens": 7, "completion_tokens": 0})
    await exchange.done()
    assert (exchange.status, exchange.error["code"]) == (499, "cancelled")


async def test_draining_to_an_end_cancels_what_still_runs() -> None:
    here = world()
    exchange = here.send(x_request_id="a")
    await here.answering("a")
    here.app.cancel_all()
    assert (await exchange.done()).status == 499
