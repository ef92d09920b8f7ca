"""One admitted request from the waiting line to the last byte: hold, send, judge the answer, relay or try again.

`Exchange.run` ends in exactly one of: a complete answer, a typed error before the first byte, an error event in a
stream without `[DONE]`, or a client that left. Whatever it was, the slot is given back, the engine is told to stop
if it may still be working, limits are settled and one usage record is made: before the client gets the last byte,
so that who has a whole answer has been charged for it, even if this process is killed now.

All of it is one task. Pieces of a stream go to the client in the callback that read them (`_forward`), and what ends
a request from outside (client gone, deadline, shutdown) comes as a call of `end_early`.
"""

import asyncio
import logging
import time
from collections import Counter
from dataclasses import replace

from cotenant_serving.contract import EngineRow, Usage
from cotenant_serving.gateway import answers, dispatch
from cotenant_serving.gateway.account import Call, Ending, describe, settle
from cotenant_serving.gateway.bodies import Reservation
from cotenant_serving.gateway.client import Client
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.relay import MAX_EVENT_BYTES, EventTooLongError, StreamFilter
from cotenant_serving.gateway.reply import Reply
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.timing import COMMENT, server_timing
from cotenant_serving.gateway.upstream import (
    Answer,
    EngineLostError,
    EngineUnreachableError,
    Meaning,
    Outgoing,
    meaning,
    refused_header,
)
from cotenant_serving.openai_api import RequestError
from cotenant_serving.tracing import NO_SPAN, Span

log = logging.getLogger("cotenant.gateway")

MAX_BROKEN = 3
"""Times that one engine may break off with one request and live on. An engine that died is another one after it."""


class Exchange:
    __slots__ = (
        "_answer", "_attempts", "_broken", "_call", "_client", "_ending", "_entry", "_failed_before", "_failure",
        "_filter", "_first_byte_s", "_gateway", "_held", "_kept", "_paused", "_problem", "_ran", "_reply", "_row",
        "_sent_as", "_settled", "_span", "_stopping", "_task", "_ticket", "_timing", "_tokens", "_usage", "_woken",
        "_working", "deadline",
    )  # fmt: skip

    def __init__(
        self, gateway: Gateway, call: Call, reply: Reply, client: Client, held: Reservation, span: Span = NO_SPAN
    ) -> None:
        """`held`: counts what the request holds in memory."""
        self._gateway = gateway
        self._call = call
        self._reply = reply
        self._client = client
        self._held = held
        self._span = span
        self._ticket = dispatch.Ticket(
            call.model,
            call.tenant,
            call.weight,
            entered=call.began,
            deadline=call.began + gateway.settings.hold_timeout_s,
        )
        self.deadline = call.began + gateway.settings.request_timeout_s
        """For `Gateway.end_overdue`."""
        self._entry = gateway.usage.journal.begin(
            call.request_id, call.tenant, call.model, prompt_tokens=call.prompt_tokens, now=time.time()
        )
        """What is left of this request if the process is killed."""
        self._row: EngineRow | None = None
        """The engine whose slot this request holds now."""
        self._sent_as = ""
        """The request's id at that engine while it may be working on it."""
        self._attempts = 0
        self._broken: Counter[str] | None = None
        """Engine instance → times that it broke off before answering."""
        self._failed_before = False
        """An engine answered 5xx: once more, not twice."""
        self._ran = False
        """An engine began to answer, so there is usage to account for."""
        self._failure = "rejected"
        """The outcome if an error ends the request now."""
        self._task: asyncio.Task[object] | None = None
        self._working = False
        self._stopping: asyncio.Task[None] | None = None
        """Ends the request early; from then on nothing of the engine's answer goes to the client."""
        self._ending = ""
        """The outcome of a request that is ended early."""
        self._problem: RequestError | None = None
        """What its client is told."""
        self._settled = False
        """Counted, limits and usage: nothing that happens later changes it."""
        self._tokens = 0
        """What it cost, once it is settled."""
        self._first_byte_s: float | None = None
        self._woken = not gateway.dispatcher.engines(call.model)
        """The model was cold when the request came."""
        self._usage: Usage | None = None
        self._timing = ""
        self._filter: StreamFilter | None = None
        self._kept = b""
        """An error of the engine that waits for its count, which comes after it."""
        self._answer: Answer | None = None
        """A stream that is being relayed."""
        self._paused = False
        """The client takes less than it is sent."""

    async def run(self) -> None:
        self._task = asyncio.current_task()
        self._working = True
        self._gateway.exchanges.add(self)
        self._client.watch(self._left, self._pause, self._resume)
        outcome = "internal_error"
        try:
            outcome = await self._until_end()
        finally:
            self._gateway.exchanges.discard(self)
            self._release()
            self._settle(outcome, self._reply.status)
            if self._attempts:
                self._gateway.dispatcher.settle(self._ticket, self._tokens)

    async def _until_end(self) -> str:
        try:
            outcome = await self._work()
            if self._stopping is None:
                return outcome
        except asyncio.CancelledError:
            if self._stopping is None or self._task is None:
                raise
            self._task.uncancel()
        self._working = False
        await self._stopping
        if self._problem is not None:
            self._settle(self._ending, self._reply.status or self._problem.status)
            self._reply.fail(self._problem)
        return self._ending

    def end_early(self, outcome: str, problem: RequestError | None = None) -> None:
        """Stops the engine first, while the connection still stands: only then can it tell what was used."""
        if self._stopping is None:
            self._ending, self._problem = outcome, problem
            self._stopping = asyncio.create_task(self._stop())

    async def _stop(self) -> None:
        if self._row is not None and self._sent_as and not self._settled:
            self._ran = True
            self._usage = await self._gateway.upstream.cancel(self._row, self._sent_as) or self._usage
        if self._working and self._task is not None:
            self._task.cancel()

    def _left(self) -> None:
        if not self._settled:
            self.end_early("client_closed")

    async def _work(self) -> str:
        """Returns the outcome; answers every error itself."""
        try:
            while True:
                with self._span.child("queue"):
                    self._row = self._gateway.dispatcher.at_once(self._ticket) or await self._hold()
                with self._span.child("engine", outgoing=True) as step:
                    outcome = await self._attempt(self._row, step)
                if outcome:
                    return outcome
                self._give_back()
        except RequestError as problem:
            if self._failure == "rejected":
                self._gateway.metrics.rejected(self._call.tenant, problem.code or "unknown")
            if self._stopping is None:
                self._settle(self._failure, self._reply.status or problem.status)
                self._reply.fail(problem)
            return self._failure
        except Exception:
            log.exception("request %s failed in the gateway", self._call.request_id)
            self._settle("internal_error", self._reply.status or 500)
            self._reply.fail(error("internal_error"))
            return "internal_error"

    async def _hold(self) -> EngineRow:
        """An engine, later. A held stream is kept alive with comments once its end is in sight."""
        dispatcher = self._gateway.dispatcher
        if not self._call.stream:
            return await dispatcher.acquire(self._ticket)
        waiting = asyncio.ensure_future(dispatcher.acquire(self._ticket))
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=self._gateway.settings.comment_after_s)
                if not waiting.done() and self._in_sight():
                    self._reply.start_stream()
                    self._reply.put(b": waiting\n\n")
            return waiting.result()
        except BaseException:
            if not waiting.cancel() and not waiting.cancelled() and waiting.exception() is None:
                dispatcher.release(waiting.result())  # nobody will use this slot
            raise

    def _in_sight(self) -> bool:
        eta_s = self._gateway.dispatcher.eta_s(self._call.model)
        return eta_s is not None and self._gateway.clock() + eta_s <= self._ticket.deadline

    async def _attempt(self, row: EngineRow, step: Span) -> str:
        """Sends the request to one engine. The outcome, or "" when it goes back to the line."""
        self._attempts += 1
        call = self._call
        # An engine may still know the id of an attempt whose connection broke, so each has its own.
        self._sent_as = call.request_id if self._attempts == 1 else f"{call.request_id}-{self._attempts}"
        self._entry.sent(True)
        sent = self._gateway.clock()
        try:
            answer = await self._gateway.upstream.send(row, _continuing(step, call.outgoing), self._sent_as)
        except EngineUnreachableError as problem:
            log.warning("engine %s of %s cannot be reached: %s", row.instance, row.model, problem)
            self._gateway.dispatcher.suspect(row)
            return self._again("unreachable")
        except EngineLostError as problem:
            log.warning("engine %s of %s broke off: %s", row.instance, row.model, problem)
            self._gateway.dispatcher.suspect(row)
            self._count_broken(row)
            return self._again("lost")
        self._gateway.dispatcher.answered(row)
        step.event("first byte")
        self._timing = server_timing(
            sent - call.began, row.load_s if self._woken else None, self._gateway.clock() - sent
        )
        if step is not NO_SPAN:
            step.note({"cotenant.instance": row.instance, "http.response.status_code": answer.status})
        try:
            return await self._judge(row, answer)
        finally:
            await answer.close()

    async def _judge(self, row: EngineRow, answer: Answer) -> str:
        verdict = meaning(answer.status, refused_header(answer))
        if verdict is Meaning.ANSWERED:
            self._ran, self._failure = True, "upstream_error"
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                return await self._stream(answer)
            return await self._whole(answer)
        if verdict is Meaning.REFUSED:
            return await self._pass_on(answer)
        if verdict is Meaning.FAILED:
            problem = answers.as_error(answer.status, await answers.body_of(answer))
            log.warning("engine %s of %s answered HTTP %d", row.instance, row.model, answer.status)
            if self._failed_before:
                raise self._given_up(problem)
            self._failed_before = True
            return self._again("failed")
        dispatcher = self._gateway.dispatcher
        if verdict is Meaning.BUSY:
            dispatcher.mark(row, dispatch.BUSY_S)
        elif verdict is Meaning.LOADING:
            dispatcher.mark(row, dispatch.LOADING_S)
        else:
            dispatcher.drop(row)
        return self._again(verdict.value)

    async def _stream(self, answer: Answer) -> str:
        self._filter = events = StreamFilter()
        if self._reply.status:
            self._reply.put(COMMENT + self._timing.encode() + b"\n\n")
        else:
            self._reply.start_stream(answers.stream_fields(answer, self._timing))
        self._answer = answer
        if self._paused:
            answer.pause()
        try:
            await answer.relay(self._forward)
        except (EngineLostError, EventTooLongError) as problem:
            log.warning("stream %s broke: %s", self._sent_as, problem)
        self._answer = None
        if self._kept and self._stopping is None:
            self._send(self._kept, ended=True)
        if not self._reply.finished:
            raise error("upstream_error", "The engine broke off in the middle of the answer.")
        self._sent_as = ""
        return "ok" if events.done else "upstream_error"

    def _forward(self, chunk: bytes) -> bool:
        """A piece of the engine's answer, in the callback that read it. Whether more is wanted."""
        events = self._filter
        assert events is not None
        ready = events.feed(chunk)
        if self._stopping is not None:
            return True  # what a stopped engine still says must not look like a complete answer
        if events.failed and events.usage is None and len(self._kept) <= MAX_EVENT_BYTES:
            self._kept += ready
            return True
        if self._kept:
            ready, self._kept = self._kept + ready, b""
        if ready:
            self._send(ready, ended=events.done or events.failed)
        return not self._reply.finished

    def _send(self, ready: bytes, *, ended: bool) -> None:
        if self._first_byte_s is None:
            self._note_first_byte()
        events = self._filter
        assert events is not None
        self._entry.forwarded(events.events)
        if not ended:
            self._reply.put(ready)
            return
        self._settle("ok" if events.done else "upstream_error", 200)
        self._reply.finish(ready)

    async def _whole(self, answer: Answer) -> str:
        self._usage = answers.usage_of(answer)
        try:
            self._held.take(answers.size_of(answer))
            body = await answer.read()
        except EngineLostError as problem:
            log.warning("answer %s broke: %s", self._sent_as, problem)
            raise error("upstream_error", "The engine broke off in the middle of the answer.") from None
        if self._stopping is not None:
            return self._failure
        self._sent_as = ""
        self._note_first_byte()
        if self._reply.status:  # waiting comments promised a stream
            raise error("upstream_error", "The engine did not answer with a stream.")
        self._settle("ok", 200)
        self._release()  # the client may be slow, and the engine is done
        self._reply.whole(200, body, answers.whole_fields(answer, self._timing))
        await self._client.drained()
        return "ok"

    async def _pass_on(self, answer: Answer) -> str:
        """The client's own mistake, in the engine's words."""
        body = await answers.body_of(answer)
        self._sent_as = ""
        if self._stopping is not None:
            return self._failure
        self._settle("refused", self._reply.status or answer.status)
        if self._reply.status or not body:
            self._reply.fail(answers.as_error(answer.status, body))
        else:
            self._reply.whole(answer.status, body, answers.whole_fields(answer, self._timing))
        return "refused"

    def _count_broken(self, row: EngineRow) -> None:
        """Raises RequestError when it must not go on. Engines that die are replaced: only the deadline ends that."""
        if self._broken is None:
            self._broken = Counter()
        self._broken[row.instance] += 1
        late = self._gateway.clock() >= self._ticket.deadline
        if late or self._broken[row.instance] >= MAX_BROKEN:
            raise self._given_up(error("upstream_error", "Engines broke off before answering this request."))

    def _given_up(self, problem: RequestError) -> RequestError:
        """`problem` as the end of the request: engines had their chances."""
        self._failure = "upstream_error"
        self._sent_as = ""
        return problem

    def _again(self, reason: str) -> str:
        self._gateway.metrics.retried(reason)
        self._ticket.returned = True
        self._sent_as = ""
        self._entry.sent(False)
        return ""

    def _give_back(self) -> None:
        self._release()
        if self._stopping is not None:
            raise error("shutting_down")

    def _release(self) -> None:
        row, self._row = self._row, None
        if row is not None:
            self._gateway.dispatcher.release(row)

    def _pause(self) -> None:
        self._paused = True
        if self._answer is not None:
            self._answer.pause()

    def _resume(self) -> None:
        self._paused = False
        if self._answer is not None:
            self._answer.resume()

    def _note_first_byte(self) -> None:
        if self._first_byte_s is None:
            self._first_byte_s = self._gateway.clock() - self._call.began
            self._entry.first_byte(self._first_byte_s)
            self._gateway.metrics.first_byte(self._call.model, self._first_byte_s)

    def _settle(self, outcome: str, status: int) -> None:
        """The only place where a request is counted; once, whoever comes first. `status`: what the client gets."""
        if self._settled:
            return
        self._settled = True
        events = self._filter
        ending = Ending(
            outcome=outcome,
            status=status,
            ran=self._ran,
            usage=self._usage or (events.usage if events else None),
            events=events.events if events else 0,
            first_byte_s=self._first_byte_s,
        )
        self._tokens = settle(self._gateway, self._call, self._entry, ending)
        describe(self._span, self._call, ending)


def _continuing(step: Span, outgoing: Outgoing) -> Outgoing:
    """The request as part of the trace, where there is one."""
    context = step.context()
    return replace(outgoing, headers={**outgoing.headers, **context}) if context else outgoing
