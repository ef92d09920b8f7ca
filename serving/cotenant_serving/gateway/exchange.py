"""One admitted request from the waiting line to the last byte: hold, send, judge the answer, relay or try again.

`Exchange.run` ends in exactly one of: a complete answer, a typed error before the first byte, an error event in a
stream without `[DONE]`, or a client that left. Whatever it was, the slot is given back, the engine is told to stop
if it may still be working, limits are settled and one usage record is made: before the client gets the last byte,
so that who has a whole answer has been charged for it, even if this process is killed now.

All of it is one coroutine (`eager`); what the client gets goes through its `Delivery`. What ends a request from
outside (client gone, deadline, shutdown) comes as a call of `end_early`; that its engine hangs, as one of `leave`.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Collection
from typing import Any

import msgspec

from cotenant_serving.contract_gateway import EngineRow
from cotenant_serving.gateway import answers, dispatch
from cotenant_serving.gateway.account import Call
from cotenant_serving.gateway.client import Client
from cotenant_serving.gateway.delivery import Delivery
from cotenant_serving.gateway.eager import Work, as_task, current
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.journal import Entry
from cotenant_serving.gateway.lane import Ticket
from cotenant_serving.gateway.reply import Reply
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.timing import server_timing
from cotenant_serving.gateway.upstream import (
    ANSWERED,
    Answer,
    EngineLostError,
    EngineUnreachableError,
    Meaning,
    Outgoing,
    meaning,
    refused_header,
)
from cotenant_serving.gateway.upstream_answer import LeanAnswer
from cotenant_serving.openai_api import RequestError
from cotenant_serving.tracing import NO_SPAN, Span

log = logging.getLogger("cotenant.gateway")

MAX_BROKEN = 3
"""Times that one engine may break off with one request and live on. An engine that died is another one after it."""
MAX_FOREIGN = 10
"""Times that another pool's engine may answer at the address of one that is gone, a second apart."""
HANGS = "The engine gives no sign of life any more, in the middle of the answer."


class Sent(msgspec.Struct, frozen=True):
    """That a request is at an engine already: its slot is taken, and `entry` stands in the journal."""

    row: EngineRow
    answer: LeanAnswer
    entry: Entry


class Exchange:
    __slots__ = (
        "_attempts", "_begun", "_broken", "_call", "_delivery", "_ending", "_failed_before", "_failure", "_gateway",
        "_heard", "_hold_until", "_leaving", "_problem", "_reply", "_row", "_sending", "_sent_as", "_span",
        "_stopping", "_task", "_ticket", "_woken", "_working", "deadline",
    )  # fmt: skip

    def __init__(
        self,
        gateway: Gateway,
        call: Call,
        reply: Reply,
        client: Client,
        span: Span = NO_SPAN,
        *,
        sent: Sent | None = None,
    ) -> None:
        self._gateway = gateway
        self._call = call
        self._reply = reply
        self._span = span
        self._delivery = Delivery(gateway, call, reply, client, span, sent.entry if sent is not None else None)
        self._begun = sent
        """Its first attempt was made by somebody else."""
        self._hold_until = call.began + gateway.settings.hold_timeout_s
        self._ticket: Ticket | None = None
        """Once it had to wait."""
        self.deadline = call.began + gateway.settings.request_timeout_s
        """For `Gateway.end_overdue`."""
        self._row: EngineRow | None = sent.row if sent is not None else None
        """The engine whose slot this request holds now."""
        self._sent_as = ""
        """The request's id at that engine while it may be working on it."""
        self._sending = False
        """No byte of an answer came yet to what was sent."""
        self._leaving = False
        """The engine hangs, and the wait for that byte is over."""
        self._heard: tuple[int, float] | None = None
        """What had come of an answer that has begun when its engine was first seen hanging so, and when that was."""
        self._attempts = 0
        self._broken: Counter[str] | None = None
        """Engine instance → times that it broke off before answering."""
        self._failed_before = False
        """An engine answered 5xx: once more, not twice."""
        self._failure = "rejected"
        """The outcome if an error ends the request now."""
        self._woken = not gateway.dispatcher.engines(call.model)
        """The model was cold when the request came."""
        self._task: Work | asyncio.Task[Any] | None = None
        self._working = False
        self._stopping: asyncio.Task[None] | None = None
        """Ends the request early."""
        self._ending = ""
        """The outcome then."""
        self._problem: RequestError | None = None
        """What the client is told then."""

    async def run(self) -> None:
        self._task = current()
        self._working = True
        self._gateway.exchanges.add(self)
        self._delivery.watch(self._left)
        outcome = "internal_error"
        try:
            outcome = await self._work()
            if self._stopping is not None:
                outcome = await self._end(self._stopping)
        except asyncio.CancelledError:
            if self._stopping is None or self._task is None:
                raise
            self._task.uncancel()
            outcome = await self._end(self._stopping)
        finally:
            self._gateway.exchanges.discard(self)
            self._task = None  # which holds this one
            if self._row is not None:
                self._release()
            if not self._delivery.settled:
                self._delivery.settle(outcome, self._reply.status)
            if self._ticket is not None and self._attempts:
                self._gateway.dispatcher.settle(self._ticket, self._delivery.tokens)

    async def _end(self, stopping: "asyncio.Task[None]") -> str:
        self._working = False
        await stopping
        if self._problem is not None:
            self._delivery.settle(self._ending, self._reply.status or self._problem.status)
            self._reply.fail(self._problem)
        return self._ending

    def end_early(self, outcome: str, problem: RequestError | None = None) -> None:
        """Stops the engine first, while the connection still stands: only then can it tell what was used."""
        if self._stopping is None:
            self._ending, self._problem = outcome, problem
            self._delivery.muted = True
            self._stopping = asyncio.create_task(self._stop())

    def leave(self, silent: Collection[str]) -> None:
        """If its engine is one of these: goes back to the line if nothing came yet, ends if nothing more comes."""
        if self._row is None or self._row.instance not in silent:
            return
        if self._sending and not self._leaving:
            assert self._task is not None
            self._leaving = True
            self._task.cancel()
        elif self._delivery.ran and self._stopping is None:
            self._end_unless_more_came(self._row)

    def _end_unless_more_came(self, row: EngineRow) -> None:
        """A node that is lost breaks no connection: its streams would last until the request's deadline."""
        now, came = self._gateway.clock(), self._delivery.came
        if self._heard is None or self._heard[0] != came or self._delivery.paused:
            self._heard = (came, now)
        elif now - self._heard[1] >= self._gateway.settings.hang_timeout_s:
            log.warning("engine %s of %s hangs in the middle of an answer", row.instance, row.model)
            self._sent_as = ""  # it would not answer a cancel either
            self.end_early("upstream_error", error("upstream_error", HANGS))

    async def _stop(self) -> None:
        if self._row is not None and self._sent_as and not self._delivery.settled:
            self._delivery.count(None)
            self._delivery.count(await self._gateway.upstream.cancel(self._row, self._sent_as))
        if self._working and self._task is not None:
            self._task.cancel()

    def _left(self) -> None:
        if not self._delivery.settled:
            self.end_early("client_closed")

    async def _work(self) -> str:
        """Returns the outcome; answers every error itself."""
        try:
            while True:
                if self._begun is not None:
                    outcome = await self._attempt(self._begun.row, NO_SPAN)
                elif self._span is NO_SPAN:
                    row = self._gateway.dispatcher.at_once(self._call.model)
                    self._row = row = row or await self._hold()
                    outcome = await self._attempt(row, NO_SPAN)
                else:
                    outcome = await self._traced_attempt()
                if outcome:
                    return outcome
                self._give_back()
        except RequestError as problem:
            if self._failure == "rejected":
                self._gateway.metrics.rejected(self._call.tenant, problem.code or "unknown")
            if self._stopping is None:
                self._delivery.settle(self._failure, self._reply.status or problem.status)
                self._reply.fail(problem)
            return self._failure
        except Exception:
            log.exception("request %s failed in the gateway", self._call.request_id)
            self._delivery.settle("internal_error", self._reply.status or 500)
            self._reply.fail(error("internal_error"))
            return "internal_error"

    async def _traced_attempt(self) -> str:
        with self._span.child("queue"):
            self._row = self._gateway.dispatcher.at_once(self._call.model) or await self._hold()
        with self._span.child("engine", outgoing=True) as step:
            return await self._attempt(self._row, step)

    async def _hold(self) -> EngineRow:
        """An engine, later. A held stream is kept alive with comments once its end is in sight."""
        await as_task()
        dispatcher = self._gateway.dispatcher
        call = self._call
        ticket = self._ticket = self._ticket or Ticket(
            call.model, call.tenant, call.weight, entered=call.began, deadline=self._hold_until
        )
        ticket.returned = self._attempts > 0
        if not call.stream:
            return await dispatcher.acquire(ticket)
        waiting = asyncio.ensure_future(dispatcher.acquire(ticket))
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
        return eta_s is not None and self._gateway.clock() + eta_s <= self._hold_until

    async def _attempt(self, row: EngineRow, step: Span) -> str:
        """Sends the request to one engine. The outcome, or "" when it goes back to the line."""
        self._attempts += 1
        call, delivery = self._call, self._delivery
        # An engine may still know the id of an attempt whose connection broke, so each has its own.
        self._sent_as = call.request_id if self._attempts == 1 else f"{call.request_id}-{self._attempts}"
        delivery.entry.sent(True)
        sent = self._gateway.clock()
        self._sending = True
        try:
            answer: Answer
            begun, self._begun = self._begun, None
            if begun is not None:
                answer, sent = begun.answer, call.began
                await begun.answer.head()
            else:
                outgoing = call.outgoing if step is NO_SPAN else _continuing(step, call.outgoing)
                answer = await self._gateway.upstream.send(row, outgoing, self._sent_as)
        except asyncio.CancelledError:
            if not self._left_it():
                raise
            log.warning("engine %s of %s hangs: it got a request and gives no sign of life", row.instance, row.model)
            return self._again("silent")
        except EngineUnreachableError as problem:
            log.warning("engine %s of %s cannot be reached: %s", row.instance, row.model, problem)
            self._gateway.dispatcher.suspect(row)
            return self._again("unreachable")
        except EngineLostError as problem:
            log.warning("engine %s of %s broke off: %s", row.instance, row.model, problem)
            self._gateway.dispatcher.suspect(row)
            self._count_broken(row)
            return self._again("lost")
        finally:
            self._sending = False
        self._gateway.dispatcher.answered(row)
        timing = server_timing(sent - call.began, row.load_s if self._woken else None, self._gateway.clock() - sent)
        if step is not NO_SPAN:
            step.event("first byte")
            step.note({"cotenant.instance": row.instance, "http.response.status_code": answer.status})
        try:
            if answer.status != ANSWERED:
                return await self._judge(row, answer, timing)
            delivery.ran, self._failure = True, "upstream_error"
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                return await delivery.stream(answer, timing)
            return await delivery.whole(answer, timing, self._release)
        finally:
            if not answer.complete:
                await answer.close()

    async def _judge(self, row: EngineRow, answer: Answer, timing: bytes) -> str:
        verdict = meaning(answer.status, refused_header(answer))
        if verdict is Meaning.REFUSED:
            return await self._delivery.pass_on(answer, timing)
        if verdict is Meaning.FOREIGN:
            log.warning("engine %s of %s refuses the pool's token: HTTP %d", row.instance, row.model, answer.status)
            self._gateway.dispatcher.suspect(row)
            self._count_broken(row, MAX_FOREIGN)
            return self._again(verdict.value)
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

    def _left_it(self) -> bool:
        """Whether it is `leave` that has cancelled the task."""
        leaving, self._leaving = self._leaving, False
        if leaving and self._task is not None:
            self._task.uncancel()
        return leaving and self._stopping is None

    def _count_broken(self, row: EngineRow, most: int = MAX_BROKEN) -> None:
        """Raises RequestError when it must not go on. Engines that die are replaced: only the deadline ends that."""
        if self._broken is None:
            self._broken = Counter()
        self._broken[row.instance] += 1
        late = self._gateway.clock() >= self._hold_until
        if late or self._broken[row.instance] >= most:
            raise self._given_up(error("upstream_error", "Engines broke off before answering this request."))

    def _given_up(self, problem: RequestError) -> RequestError:
        """`problem` as the end of the request: engines had their chances."""
        self._failure = "upstream_error"
        self._sent_as = ""
        return problem

    def _again(self, reason: str) -> str:
        self._gateway.metrics.retried(reason)
        self._sent_as = ""
        self._delivery.entry.sent(False)
        return ""

    def _give_back(self) -> None:
        self._release()
        if self._stopping is not None:
            raise error("shutting_down")

    def _release(self) -> None:
        row, self._row = self._row, None
        if row is not None:
            self._gateway.dispatcher.release(row)


def _continuing(step: Span, outgoing: Outgoing) -> Outgoing:
    """The request as part of the trace, where there is one."""
    context = step.context()
    return msgspec.structs.replace(outgoing, headers={**outgoing.headers, **context}) if context else outgoing
