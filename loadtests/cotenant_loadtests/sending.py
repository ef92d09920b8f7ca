"""Sends a share of the plan on time, and writes a record of each request's end."""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic_ns

from cotenant_loadtests.alarm import make_alarm
from cotenant_loadtests.checks import Finding, echo_answer
from cotenant_loadtests.deadlines import SLOT_NS, Deadlines
from cotenant_loadtests.exchange import Exchange, TenantCount, make_record
from cotenant_loadtests.key_mask import KeyMask
from cotenant_loadtests.orders import Ending, Orders
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.pool import Endpoint, Pool
from cotenant_loadtests.record import NEVER, SUCCESSES, Outcome
from cotenant_loadtests.records_file import RecordsWriter
from cotenant_loadtests.request_bytes import RequestWriter
from cotenant_loadtests.share_file import Share
from cotenant_loadtests.unfinished import Unfinished
from cotenant_loadtests.units import NS_PER_S
from cotenant_loadtests.upcoming import NEVER_NS, Upcoming

BURST = 16
"""Requests sent before the loop looks at answers again: at most a millisecond."""
FILLING_NS = 100_000
"""Likewise for making requests ahead; one long prompt may take longer."""
GRAIN_NS = 100_000
"""Woken no more often than that: it costs more than to send, so what is due closer together goes together."""


class Sender:
    """`start` it once; `ended` becomes true when all has been sent and has ended, or `stop` was called."""

    def __init__(
        self, orders: Orders, share: Share, *, endpoint: Endpoint, writer: RequestWriter, records: RecordsWriter
    ) -> None:
        self._orders, self._share, self._writer, self._records = orders, share, writer, records
        self._loop = asyncio.get_running_loop()
        self._alarm = make_alarm(self._loop, self._ring)
        self._filling = False
        self._start_ns = self._last_ns = self._rung_ns = 0
        self._drain_ns = round(orders.drain_s * NS_PER_S)
        self._last: tuple[Outcome, Ending] = ("unfinished", "finished")
        """What becomes of those that are under way when the time is over, and how that is called."""
        self._upcoming: Upcoming
        self.pool = Pool(endpoint, orders.connections, self._ended)
        self.under_way = Deadlines()
        self._unfinished = Unfinished()
        self.tenants: dict[str, TenantCount] = {}
        self.errors: Counter[str] = Counter()
        self.new: list[Exchange] = []
        """Due since the last time somebody emptied it; of many, one of `show_every`."""
        self.show_every = 1
        self._due = 0
        self.end: asyncio.Future[Ending] = self._loop.create_future()

    def start(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._last_ns = start_ns + round(self._orders.duration_s * NS_PER_S)
        self._upcoming = Upcoming(self._share, self._make, start_ns)
        self._loop.call_later(SLOT_NS / NS_PER_S, self._look_round)
        self._fill()
        self._arm()
        self._end_if_done()

    def drain(self, outcome: Outcome, patience_s: float) -> None:
        """Send nothing more. What is under way may end for so long, and has this outcome then."""
        self._upcoming.forget()
        self._last_ns, self._drain_ns = monotonic_ns(), round(patience_s * NS_PER_S)
        self._last = (outcome, "stopped")
        self._end_if_done()

    def stop(self, outcome: Outcome, ending: Ending, detail: str = "") -> None:
        """What is under way ends with this outcome, what was not due yet leaves no record."""
        if self.end.done():
            return
        self.end.set_result(ending)
        self._upcoming.forget()
        self._alarm.close()
        now_ns = monotonic_ns()
        for exchange in self.under_way:
            self._give_up(exchange, Finding(outcome, detail), now_ns)
        self.pool.close()

    def _make(self, planned: Planned, due_ns: int) -> Exchange:
        return Exchange(
            planned,
            self._writer.write(planned),
            scheduled_ns=due_ns,
            tenant=self._tenant(planned.tenant),
            expected=echo_answer(planned) if planned.check == "echo" else None,
        )

    def _tenant(self, name: str) -> TenantCount:
        if name not in self.tenants:
            self.tenants[name] = TenantCount(KeyMask(self._orders.keys.get(name, "")))
        return self.tenants[name]

    # On time

    def _ring(self) -> None:
        self._rung_ns = now_ns = monotonic_ns()
        for _ in range(BURST):
            exchange = self._upcoming.take(now_ns)
            if exchange is None:
                break
            self.under_way.add(exchange)
            self._due += 1
            if self._due % self.show_every == 0:
                self.new.append(exchange)
            self.pool.submit(exchange)
            now_ns = monotonic_ns()
        self._arm()
        self._fill_soon()

    def _arm(self) -> None:
        if not self.end.done() and (next_ns := self._upcoming.next_ns) != NEVER_NS:
            self._alarm.set(max(next_ns, self._rung_ns + GRAIN_NS))

    def _fill_soon(self) -> None:
        if not self._filling and self._upcoming.runs_low(monotonic_ns()):
            self._filling = True
            self._loop.call_soon(self._fill)

    def _fill(self) -> None:
        """A few requests at a time, so that answers are read in between."""
        began_ns = now_ns = monotonic_ns()
        while now_ns - began_ns < FILLING_NS and self._upcoming.wants_preparing(now_ns):
            self._upcoming.prepare()
            now_ns = monotonic_ns()
        self._filling = self._upcoming.wants_preparing(now_ns)
        if self._filling:
            self._loop.call_soon(self._fill)

    def _look_round(self) -> None:
        """Deadlines, memory, the bounds of the run, idle connections."""
        if self.end.done():
            return
        now_ns = monotonic_ns()
        for exchange in self.under_way.passed(now_ns):
            dialling = exchange.sent_ns == NEVER and exchange.dialled_ns != NEVER
            self._give_up(exchange, Finding("connect", "no_answer") if dialling else _timeout(exchange), now_ns)
        traffic = self.pool.traffic
        for exchange in self._unfinished.too_much(traffic.bytes_in, self.under_way):
            self._give_up(exchange, Finding("too_large", "memory"), now_ns)
        if traffic.bytes_in + traffic.bytes_out > self._orders.bytes:
            self.stop("unfinished", "bytes", "bytes")
        elif now_ns > self._last_ns + self._drain_ns:
            self.stop(*self._last)
        else:
            self.pool.close_idle(now_ns)
            self._fill_soon()
            self._loop.call_later(SLOT_NS / NS_PER_S, self._look_round)

    # Ends

    def _give_up(self, exchange: Exchange, finding: Finding, now_ns: int) -> None:
        if exchange.finding is None:
            self._ended(exchange, finding, now_ns)
            self.pool.give_up(exchange)

    def _ended(self, exchange: Exchange, finding: Finding, now_ns: int) -> None:
        if now_ns > exchange.deadline_ns and finding.outcome in SUCCESSES:
            finding = Finding("timeout", "late")
        exchange.finding = finding
        self.under_way.remove(exchange)
        self._count(exchange)
        self._records.write(
            make_record(exchange, process=self._orders.process, start_ns=self._start_ns, end_ns=now_ns)
        )
        exchange.payload = b""
        if not self.end.done():
            self._add_turns(exchange, now_ns)
            self._end_if_done()

    def _add_turns(self, exchange: Exchange, now_ns: int) -> None:
        """A conversation goes on whatever became of the turn before: the same plan sends the same requests."""
        turns = [(now_ns + think_ns, place) for think_ns, place in self._share.followers(exchange.planned.id)]
        for due_ns, place in turns:
            if due_ns <= self._last_ns:
                self._upcoming.add_turn(due_ns, place)
        if turns:
            self._arm()
            self._fill_soon()

    def _end_if_done(self) -> None:
        if not self.under_way and self._upcoming.next_ns == NEVER_NS:
            self.stop(*self._last)

    def _count(self, exchange: Exchange) -> None:
        tenant = exchange.tenant
        if exchange.sent_ns != NEVER:
            tenant.ended += 1
        tenant.tokens += exchange.tokens
        assert exchange.finding is not None
        if exchange.finding.outcome in SUCCESSES:
            tenant.succeeded += 1
        elif exchange.finding.outcome != "interrupted":
            tenant.failed += 1
            self.errors[exchange.finding.outcome] += 1


def _timeout(exchange: Exchange) -> Finding:
    if exchange.sent_ns == NEVER:
        return Finding("timeout", "not_sent")
    return Finding("timeout", "no_answer" if exchange.first_byte_ns == NEVER else "")
