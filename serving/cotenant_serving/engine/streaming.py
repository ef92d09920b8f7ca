"""How a streaming engine answers a request that holds a slot: events as they come, or all text at the end."""

import asyncio
from collections.abc import Callable, Mapping

from cotenant_serving.contract import HEADER_USAGE, Usage
from cotenant_serving.engine.answers import AnswerForm, answer_form, usage_comment, usage_json
from cotenant_serving.engine.asgi import Incoming, Send, respond, write
from cotenant_serving.engine.base import Delta, DeltaStream, GenerationError, Job, StreamingEngine, resolve_max_tokens
from cotenant_serving.openai_api import GenerateRequest, Kind, error_event, parse_chat, parse_completion
from cotenant_serving.tracing import NO_SPAN

CREATES: Mapping[str, Kind] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}


class Streaming:
    """One request that is being answered."""

    def __init__(self, engine: StreamingEngine, request_id: str) -> None:
        self._engine = engine
        self.request_id = request_id
        self.stream = DeltaStream()
        self.prompt_tokens = 0
        self.waiting = NO_SPAN
        """Until the first token."""

    def usage(self) -> Usage:
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.stream.tokens)

    async def take(self) -> list[Delta]:
        """As `DeltaStream.take`."""
        try:
            return await self.stream.take()
        finally:
            self.waiting.end()
            self.waiting = NO_SPAN

    def cancel(self) -> None:
        self.stream.fail(GenerationError("The request was cancelled.", code="cancelled"))
        self._engine.cancel(self.request_id)


class StreamingWork:
    """`clock` gives unix seconds."""

    def __init__(self, engine: StreamingEngine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock

    def serves(self, method: str, path: str) -> bool:
        return method == "POST" and path in CREATES

    def begin(self, request_id: str) -> Streaming:
        return Streaming(self._engine, request_id)

    async def run(self, running: Streaming, incoming: Incoming) -> None:
        kind = CREATES[incoming.path]
        body = await incoming.read_body()
        request = parse_chat(body) if kind == "chat" else parse_completion(body)
        prompt = await self._engine.encode(request)
        running.prompt_tokens = prompt.tokens
        param = "messages" if kind == "chat" else "prompt"
        limit = resolve_max_tokens(prompt, request.sampling.max_tokens, self._engine.context_tokens, param)
        await self._answer(Job(running.request_id, prompt, limit, request.sampling), request, running, incoming)

    async def _answer(self, job: Job, request: GenerateRequest, running: Streaming, incoming: Incoming) -> None:
        form = answer_form(request, job.request_id, int(self._clock()))
        watch = asyncio.create_task(_cancel_when_gone(running, incoming))
        try:
            running.waiting = incoming.span.child("first token")
            if not running.stream.closed:
                self._engine.start(job, running.stream)
            await (_send_stream if request.stream else _send_whole)(form, running, incoming)
        finally:
            watch.cancel()
            self._engine.cancel(job.request_id)


async def _cancel_when_gone(running: Streaming, incoming: Incoming) -> None:
    await incoming.gone()
    running.cancel()


async def _send_stream(form: AnswerForm, running: Streaming, incoming: Incoming) -> None:
    """Events in as few writes as they come; status 200 only with the first of them."""
    send = incoming.send
    first = True
    try:
        finished = False
        while not finished:
            deltas = await running.take()
            finished = deltas[-1].finish_reason is not None
            events: list[bytes] = []
            for delta in deltas:
                if delta.text or delta.finish_reason:
                    events.append(form.chunk(delta, first=first and not events))
            if events:
                if first:
                    await _start_stream(send)
                first = False
                await write(send, b"".join(events))
        await write(send, form.end(running.usage()), more=False)
    except GenerationError as error:
        if first:
            await incoming.fail(error, _usage_header(running))
        else:
            incoming.span.failed(error.code)
            event = error_event(error.message, code=error.code)
            await write(send, event + usage_comment(running.usage()), more=False)


async def _send_whole(form: AnswerForm, running: Streaming, incoming: Incoming) -> None:
    texts: list[str] = []
    reason = None
    try:
        while reason is None:
            for delta in await running.take():
                texts.append(delta.text)
                reason = delta.finish_reason
    except GenerationError as error:
        await incoming.fail(error, _usage_header(running))
        return
    body = form.whole("".join(texts), reason, running.usage())
    await respond(incoming.send, 200, body, _usage_header(running))


def _usage_header(running: Streaming) -> dict[str, str]:
    return {HEADER_USAGE: usage_json(running.usage()).decode()}


async def _start_stream(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
