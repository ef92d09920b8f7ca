"""One admitted request from the waiting line to the last byte: hold, send, judge the answer, relay or try again.

`Exchange.run` ends in exactly one of: a complete answer, a typed error before the first byte, an error event in a
stream without `[DONE]`, or a client that left. Whatever it was, the slot is given back, the engine is told to stop
if it may still be working, limits are settled and one usage record is written: before the client gets the last byte,
so that who has a whole answer has been charged for it, even if this process is killed now.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from dataclasses import replace
from typing import Any

from cotenant_serving.contract import EngineRow, Usage
from cotenant_serving.gateway import answers, dispatch
from cotenant_serving.gateway.account import Call, Ending, describe, settle
from cotenant_serving.gateway.bodies import Reserve
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.relay import EventTooLongError, StreamFilter
from cotenant_serving.gateway.reply import Receive, Reply
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
LAST_WORDS_S = 1.0
"""How long a client that does not read may delay the end of its request."""


class Exchange:
    def __init__(
        self,
        gateway: Gateway,
        call: Call,
        reply: Reply,
        receive: Receive,
        reserve: Reserve,
        span: Span = NO_SPAN,
    ) -> None:
        """`reserve`: counts what the request holds in memory."""
        self._gateway = gateway
        self._call = call
        self._reply = reply
        self._receive = receive
        self._reserve = reserve
        self._span = span
        self._ticket = dispatch.Ticket(
            call.model,
            call.tenant,
            call.weight,
            entered=call.began,
            deadline=call.began + gateway.settings.hold_timeout_s,
        )
        self._entry = gateway.usage.journal.begin(
            call.request_id, call.tenant, call.model, prompt_tokens=call.prompt_tokens, now=time.time()
        )
        """What is left of this request if the process is killed."""
        self._row: EngineRow | None = None
        """The engine whose slot this request holds now."""
        self._sent_as = ""
        """The request's id at that engine while it may be working on it."""
        self._attempts = 0
        self._broken: Counter[str] = Counter()
        """Engine instance → times that it broke off before answering."""
        self._failed_before = False
        """An engine answered 5xx: once more, not twice."""
        self._ran = False
        """An engine began to answer, so there is usage to account for."""
        self._failure = "rejected"
        """The outcome if an error ends the request now."""
        self._ending = False
        self._settled = False
        """Counted, limits and usage: nothing that happens later changes it."""
        self._tokens = 0
        """What it cost, once it is settled."""
        self._first_byte_s: float | None = None
        self._woken = not gateway.dispatcher.engines(call.model)
        """The model was cold when the request came."""
        self._usage: Usage | None = None
        self._filter: StreamFilter | None = None

    async def run(self) -> None:
        work = asyncio.create_task(self._work())
        gone = asyncio.create_task(_disconnected(self._receive))
        outcome = "internal_error"
        endings: set[asyncio.Future[Any]] = {work, gone, self._gateway.cut}
        try:
            await asyncio.wait(
                endings,
                timeout=self._gateway.settings.request_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done() or (gone.done() and (self._reply.finished or self._settled)):
                outcome = await work
            elif gone.done():
                outcome = await self._end_early(work, "client_closed", None)
            elif self._gateway.cut.done():
                outcome = await self._end_early(work, "shutdown", error("shutting_down", retry_after_s=1))
            else:
                outcome = await self._end_early(work, "timeout", error("timeout"))
        finally:
            gone.cancel()
            work.cancel()
            self._release()
            self._settle(outcome, self._reply.status)
            if self._attempts:
                self._gateway.dispatcher.settle(self._ticket, self._tokens)

    async def _work(self) -> str:
        """Returns the outcome; answers every error itself."""
        try:
            while True:
                with self._span.child("queue"):
                    self._row = await self._hold()
                with self._span.child("engine", outgoing=True) as step:
                    outcome = await self._attempt(self._row, step)
                if outcome:
                    return outcome
                self._give_back()
        except RequestError as problem:
            if self._failure == "rejected":
                self._gateway.metrics.rejected(self._call.tenant, problem.code or "unknown")
            if not self._ending:
                self._settle(self._failure, self._reply.status or problem.status)
                await self._reply.fail(problem)
            return self._failure
        except Exception:
            log.exception("request %s failed in the gateway", self._call.request_id)
            self._settle("internal_error", self._reply.status or 500)
            await self._reply.fail(error("internal_error"))
            return "internal_error"

    async def _hold(self) -> EngineRow:
        """An engine, now or later. A held stream is kept alive with comments once its end is in sight."""
        dispatcher = self._gateway.dispatcher
        if not self._call.stream:
            return await dispatcher.acquire(self._ticket)
        waiting = asyncio.ensure_future(dispatcher.acquire(self._ticket))
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=self._gateway.settings.comment_after_s)
                if not waiting.done() and self._in_sight():
                    await self._reply.start_stream()
                    await self._reply.write(b": waiting\n\n")
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
        timing = server_timing(sent - call.began, row.load_s if self._woken else None, self._gateway.clock() - sent)
        step.note({"cotenant.instance": row.instance, "http.response.status_code": answer.status})
        try:
            return await self._judge(row, answer, timing)
        finally:
            await answer.close()

    async def _judge(self, row: EngineRow, answer: Answer, timing: str) -> str:
        dispatcher = self._gateway.dispatcher
        verdict = meaning(answer.status, refused_header(answer))
        if verdict in (Meaning.ANSWERED, Meaning.REFUSED):
            self._reply.headers["server-timing"] = timing  # what the client gets is this engine's
        if verdict is Meaning.ANSWERED:
            self._ran, self._failure = True, "upstream_error"
            streaming = answer.headers.get("content-type", "").startswith("text/event-stream")
            return await (self._stream(answer) if streaming else self._whole(answer))
        if verdict is Meaning.REFUSED:
            return await self._pass_on(answer)
        if verdict is Meaning.FAILED:
            problem = answers.as_error(answer.status, await answers.body_of(answer))
            log.warning("engine %s of %s answered HTTP %d", row.instance, row.model, answer.status)
            if self._failed_before:
                raise self._given_up(problem)
            self._failed_before = True
            return self._again("failed")
        if verdict is Meaning.BUSY:
            dispatcher.mark(row, dispatch.BUSY_S)
        elif verdict is Meaning.LOADING:
            dispatcher.mark(row, dispatch.LOADING_S)
        else:
            dispatcher.drop(row)
        return self._again(verdict.value)

    async def _stream(self, answer: Answer) -> str:
        self._filter = events = StreamFilter()
        if self._reply.started:
            await self._reply.write(COMMENT + self._reply.headers["server-timing"].encode() + b"\n\n")
        await self._reply.start_stream(answer.headers["content-type"])
        try:
            async for ready in answers.ready_parts(answer, events):
                if self._ending:
                    break  # what a stopped engine still says must not look like a complete answer
                self._note_first_byte()
                self._entry.forwarded(events.events)
                if events.ended:
                    self._settle("ok" if events.done else "upstream_error", self._reply.status)
                await self._reply.write(ready)
                if events.ended:
                    break
        except (EngineLostError, EventTooLongError) as problem:
            log.warning("stream %s broke: %s", self._sent_as, problem)
        if not events.done and (self._ending or not events.failed):
            # While it is being ended, the engine's own error event was dropped: ours is still to come.
            raise error("upstream_error", "The engine broke off in the middle of the answer.")
        self._sent_as = ""
        await self._reply.finish()
        return "ok" if events.done else "upstream_error"

    async def _whole(self, answer: Answer) -> str:
        self._usage = answers.usage_of(answer)
        try:
            self._reserve(answers.size_of(answer))
            body = await answer.read()
        except EngineLostError as problem:
            log.warning("answer %s broke: %s", self._sent_as, problem)
            raise error("upstream_error", "The engine broke off in the middle of the answer.") from None
        self._sent_as = ""
        self._note_first_byte()
        if self._reply.started:  # waiting comments promised a stream
            raise error("upstream_error", "The engine did not answer with a stream.")
        self._settle("ok", 200)
        self._release()  # the client may be slow, and the engine is done
        await self._reply.whole(200, body, answers.how_to_read(answer))
        return "ok"

    async def _pass_on(self, answer: Answer) -> str:
        """The client's own mistake, in the engine's words."""
        body = await answers.body_of(answer)
        self._sent_as = ""
        self._settle("refused", self._reply.status or answer.status)
        if self._reply.started or not body:
            await self._reply.fail(answers.as_error(answer.status, body))
        else:
            await self._reply.whole(answer.status, body, answers.how_to_read(answer))
        return "refused"

    def _count_broken(self, row: EngineRow) -> None:
        """Raises RequestError when it must not go on. Engines that die are replaced: only the deadline ends that."""
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
        if self._ending:
            raise error("shutting_down")

    def _release(self) -> None:
        row, self._row = self._row, None
        if row is not None:
            self._gateway.dispatcher.release(row)

    async def _end_early(self, work: "asyncio.Task[str]", outcome: str, problem: RequestError | None) -> str:
        """Stops the engine first, while the connection still stands: only then can it tell what was used."""
        self._ending = True
        if self._settled:  # its last bytes were on their way
            work.cancel()
            return outcome
        if self._row is not None and self._sent_as:
            self._ran = True
            usage = await self._gateway.upstream.cancel(self._row, self._sent_as)
            self._usage = usage or self._usage
        work.cancel()
        await asyncio.wait({work}, timeout=LAST_WORDS_S)
        if problem is not None:
            self._settle(outcome, self._reply.status or problem.status)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reply.fail(problem), LAST_WORDS_S)
        return outcome

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


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
