"""How a unary engine answers a request that holds a slot: one body in, one body out."""

import asyncio
import logging

from cotenant_serving.contract import HEADER_JSON_LENGTH, HEADER_USAGE, Usage
from cotenant_serving.engine.answers import usage_json
from cotenant_serving.engine.asgi import Incoming, respond
from cotenant_serving.engine.base import GenerationError, UnaryAnswer, UnaryEngine, UnaryRequest
from cotenant_serving.request_fields import RequestError

HEADERS = ("content-type", HEADER_JSON_LENGTH)
"""Those that say how to read a body, both ways."""

log = logging.getLogger("cotenant.engine")


class Answering:
    """One request that is being answered."""

    def __init__(self, engine: UnaryEngine, request_id: str) -> None:
        self._engine = engine
        self._answer: asyncio.Task[UnaryAnswer] | None = None
        self._usage = Usage(prompt_tokens=0, completion_tokens=0)
        self.request_id = request_id
        self.cancelled = False

    def usage(self) -> Usage:
        return self._usage

    def used(self, usage: Usage) -> None:
        self._usage = usage

    def cancel(self) -> None:
        self.cancelled = True
        self._engine.cancel(self.request_id)
        if self._answer is not None:
            self._answer.cancel()

    async def answer(self, request: UnaryRequest) -> UnaryAnswer:
        """Raises GenerationError when it was cancelled, and whatever the engine raises."""
        if not self.cancelled:
            self._answer = asyncio.create_task(self._engine.answer(request))
            try:
                await asyncio.wait({self._answer})
            finally:
                self._answer.cancel()
            if not self._answer.cancelled():
                return _result(self._answer)
        raise GenerationError("The request was cancelled.", code="cancelled")


def _result(answer: asyncio.Task[UnaryAnswer]) -> UnaryAnswer:
    """Raises RequestError, GenerationError: what else an engine raises is its own mistake."""
    error = answer.exception()
    if error is None or isinstance(error, RequestError | GenerationError):
        return answer.result()
    log.error("a request failed", exc_info=error)
    raise GenerationError(
        f"The engine made a mistake with this request: {type(error).__name__}. Its log has the traceback.",
        code="computation_failed",
    )


class UnaryWork:
    def __init__(self, engine: UnaryEngine) -> None:
        self._engine = engine

    def serves(self, method: str, path: str) -> bool:
        return self._engine.serves(method, path)

    def begin(self, request_id: str) -> Answering:
        return Answering(self._engine, request_id)

    async def run(self, running: Answering, incoming: Incoming) -> None:
        body = await incoming.read_body()
        headers = {name: incoming.headers[name].decode("latin-1") for name in HEADERS if name in incoming.headers}
        request = UnaryRequest(running.request_id, incoming.method, incoming.path, body, headers, running.used)
        watch = asyncio.create_task(_cancel_when_gone(running, incoming))
        try:
            answer = await running.answer(request)
        except GenerationError as error:
            await incoming.fail(error, {HEADER_USAGE: usage_json(running.usage()).decode()})
            return
        finally:
            watch.cancel()
            self._engine.cancel(running.request_id)
        usage = {HEADER_USAGE: usage_json(answer.usage).decode()}
        named = {"content-type": answer.content_type, **answer.headers, **usage}
        await respond(incoming.send, 200, answer.body, named)


async def _cancel_when_gone(running: Answering, incoming: Incoming) -> None:
    await incoming.gone()
    running.cancel()
