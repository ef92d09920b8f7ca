"""What the client of one request gets of an engine's answer, and how it is counted: once, before the last byte.

Pieces of a stream go to the client in the callback that read them (`_forward`): no task wakes for them.
"""

import logging
import time

from cotenant_serving.contract import Usage
from cotenant_serving.gateway import answers
from cotenant_serving.gateway.account import Call, Ending, describe, settle
from cotenant_serving.gateway.bodies import SMALL_BYTES, Reservation
from cotenant_serving.gateway.client import Callback, Client
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.journal import Entry
from cotenant_serving.gateway.relay import MAX_EVENT_BYTES, EventTooLongError, StreamFilter
from cotenant_serving.gateway.reply import Reply
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.timing import COMMENT
from cotenant_serving.gateway.upstream import Answer, EngineLostError
from cotenant_serving.tracing import NO_SPAN, Span

log = logging.getLogger("cotenant.gateway")

BROKE_OFF = "The engine broke off in the middle of the answer."


class Delivery:
    """`muted`: the request is being ended, and nothing of the engine's goes to the client any more."""

    __slots__ = (
        "_answer", "_call", "_client", "_events", "_first_byte_s", "_gateway", "_kept", "_span", "_usage",
        "entry", "muted", "paused", "ran", "reply", "settled", "tokens",
    )  # fmt: skip

    def __init__(
        self, gateway: Gateway, call: Call, reply: Reply, client: Client, span: Span, entry: Entry | None = None
    ) -> None:
        self._gateway = gateway
        self._call = call
        self.reply = reply
        self._client = client
        self._span = span
        self.entry = entry or gateway.usage.journal.begin(
            call.request_id, call.tenant, call.model, prompt_tokens=call.prompt_tokens, now=time.time()
        )
        """What is left of this request if the process is killed."""
        self.ran = False
        """An engine began to answer, so there is usage to account for."""
        self.muted = False
        self.settled = False
        """Counted, limits and usage: nothing that happens later changes it."""
        self.tokens = 0
        """What it cost, once it is settled."""
        self._usage: Usage | None = None
        self._first_byte_s: float | None = None
        self._events: StreamFilter | None = None
        self._kept = b""
        """An error of the engine that waits for its count, which comes after it."""
        self._answer: Answer | None = None
        """A stream that is being relayed."""
        self.paused = False
        """The client takes less than it is sent."""

    @property
    def came(self) -> int:
        """Events of the engine's stream so far."""
        return self._events.events if self._events is not None else 0

    def watch(self, gone: Callback) -> None:
        """Slows the engine while the client is slow. `gone`: as `Client.watch`."""
        self._client.watch(gone, self._pause, self._resume)

    async def stream(self, answer: Answer, timing: bytes) -> str:
        """The outcome. Raises RequestError when the engine broke off."""
        self._events = events = StreamFilter()
        if self.reply.status:
            self.reply.put(COMMENT % timing)
        else:
            self.reply.start_stream(answers.stream_fields(answer, timing))
        self._answer = answer
        if self.paused:
            answer.pause()
        try:
            await answer.relay(self._forward)
        except (EngineLostError, EventTooLongError) as problem:
            log.warning("stream %s broke: %s", self._call.request_id, problem)
        finally:
            self._answer = None
        if self._kept and not self.muted:
            self._send(events, self._kept)
        if not self.reply.finished:
            raise error("upstream_error", BROKE_OFF)
        return "ok" if events.done else "upstream_error"

    async def whole(self, answer: Answer, timing: bytes, done: Callback) -> str:
        """As `stream`. `done`: the engine has said all."""
        self._usage = answers.usage_of(answer)
        if answer.complete:
            body = answer.body()
            if len(body) <= SMALL_BYTES:
                return self._pass(answer, body, timing, done)
        held = Reservation(self._gateway.bodies, self._call.tenant)
        try:
            held.take(answers.size_of(answer))
            outcome = self._pass(answer, await answer.read(), timing, done)
            await self._client.drained()
        except EngineLostError as problem:
            log.warning("answer %s broke: %s", self._call.request_id, problem)
            raise error("upstream_error", BROKE_OFF) from None
        finally:
            held.release()
        return outcome

    def _pass(self, answer: Answer, body: bytes, timing: bytes, done: Callback) -> str:
        self._first_byte_s = self._gateway.clock() - self._call.began
        if self.muted or self.reply.status:  # waiting comments promised a stream
            raise error("upstream_error", "The engine did not answer with a stream.")
        self.settle("ok", 200)
        done()  # the client may be slow
        self.reply.whole(200, body, answers.whole_fields(answer, timing))
        return "ok"

    async def pass_on(self, answer: Answer, timing: bytes) -> str:
        """The client's own mistake, in the engine's words."""
        body = await answers.body_of(answer)
        if self.muted:
            return "refused"
        self.settle("refused", self.reply.status or answer.status)
        if self.reply.status or not body:
            self.reply.fail(answers.as_error(answer.status, body))
        else:
            self.reply.whole(answer.status, body, answers.whole_fields(answer, timing))
        return "refused"

    def count(self, usage: Usage | None) -> None:
        """What an engine told of a request that was stopped."""
        self.ran = True
        self._usage = usage or self._usage

    def settle(self, outcome: str, status: int) -> None:
        """The only place where a request is counted; once, whoever comes first. `status`: what the client gets."""
        if self.settled:
            return
        self.settled = True
        events = self._events
        ending = Ending(
            outcome=outcome,
            status=status,
            ran=self.ran,
            usage=self._usage or (events.usage if events else None),
            events=events.events if events else 0,
            first_byte_s=self._first_byte_s,
            streamed=events is not None,
        )
        self.tokens = settle(self._gateway, self._call, self.entry, ending)
        if self._span is not NO_SPAN:
            describe(self._span, self._call, ending)

    def _forward(self, chunk: bytes) -> bool:
        """A piece of the engine's stream, in the callback that read it. Whether more is wanted."""
        events = self._events
        assert events is not None
        ready = events.feed(chunk)
        if self.muted:
            return True  # what a stopped engine still says must not look like a complete answer
        if events.failed and events.usage is None and len(self._kept) <= MAX_EVENT_BYTES:
            self._kept += ready
            return True
        if self._kept:
            ready, self._kept = self._kept + ready, b""
        if ready:
            self._send(events, ready)
        return not self.reply.finished

    def _send(self, events: StreamFilter, ready: bytes) -> None:
        if self._first_byte_s is None:
            self._note_first_byte()
        self.entry.forwarded(events.events)
        if events.ended:
            self.settle("ok" if events.done else "upstream_error", 200)
            self.reply.finish(ready)
        else:
            self.reply.put(ready)

    def _note_first_byte(self) -> None:
        self._first_byte_s = self._gateway.clock() - self._call.began
        self.entry.first_byte(self._first_byte_s)
        self._gateway.metrics.first_byte(self._call.model, self._first_byte_s)

    def _pause(self) -> None:
        self.paused = True
        if self._answer is not None:
            self._answer.pause()

    def _resume(self) -> None:
        self.paused = False
        if self._answer is not None:
            self._answer.resume()
