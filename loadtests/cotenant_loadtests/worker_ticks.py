"""What a worker tells of itself: a `Tick` each second, and how it ended."""

from __future__ import annotations

import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress

import psutil

from cotenant_loadtests.exchange import Exchange
from cotenant_loadtests.orders import Done, Ending, TenantTick, Tick
from cotenant_loadtests.record import NEVER
from cotenant_loadtests.sending import Sender
from cotenant_loadtests.units import NS_PER_S

MOST_SHOWN = 1000
"""Requests a second whose lateness and first token are told: enough for the live view, and to keep and look at 10,000
would hold up the others for 15 ms. Results are made of the records, which have all of them."""
_NS_PER_US = 1000


class Ticker:
    """Looks at a sender. Made when it starts: processor time counts from then on."""

    def __init__(self, sender: Sender, start_ns: int) -> None:
        self._sender, self._start_ns = sender, start_ns
        self._cpu_s = time.process_time()
        self._process = psutil.Process()
        self._max_rss_bytes = 0
        self._unsent: list[Exchange] = []
        self._silent: list[Exchange] = []

    def tick(self, now_ns: int) -> Tick:
        new = self._sender.new
        self._unsent += new
        self._silent += new
        self._sender.show_every = len(new) * self._sender.show_every // MOST_SHOWN + 1
        new.clear()
        lateness_us = self._take_lateness()
        ttft_us = self._take_ttft()
        tokens = _tokens_under_way(self._sender.under_way)
        traffic = self._sender.pool.traffic
        return Tick(
            at_s=(now_ns - self._start_ns) / NS_PER_S,
            tenants={
                name: TenantTick(
                    sent=count.sent,
                    succeeded=count.succeeded,
                    failed=count.failed,
                    in_flight=count.sent - count.ended,
                    tokens=count.tokens + tokens[name],
                    ttft_us=tuple(ttft_us[name]),
                )
                for name, count in self._sender.tenants.items()
            },
            errors=dict(self._sender.errors),
            waiting=self._sender.pool.waiting,
            lateness_us=lateness_us,
            cpu_s=time.process_time() - self._cpu_s,
            rss_bytes=self._rss_bytes(),
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
        )

    def done(self, ending: Ending, records: int, now_ns: int) -> Done:
        traffic = self._sender.pool.traffic
        return Done(
            ended=ending,
            at_s=(now_ns - self._start_ns) / NS_PER_S,
            records=records,
            cpu_s=time.process_time() - self._cpu_s,
            max_rss_bytes=max(self._max_rss_bytes, _highest_rss_bytes()),
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
        )

    def _rss_bytes(self) -> int:
        rss_bytes: int = self._process.memory_info().rss
        self._max_rss_bytes = max(self._max_rss_bytes, rss_bytes)
        return rss_bytes

    def _take_lateness(self) -> tuple[int, ...]:
        sent = [exchange.lateness_ns // _NS_PER_US for exchange in self._unsent if exchange.sent_ns != NEVER]
        self._unsent = [each for each in self._unsent if each.sent_ns == NEVER and each.finding is None]
        return tuple(sent)

    def _take_ttft(self) -> dict[str, array[int]]:
        """Of those whose first token came since the last tick, by tenant."""
        found: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))
        for exchange in self._silent:
            if (first_ns := exchange.first_token_ns) != NEVER:
                found[exchange.planned.tenant].append((first_ns - exchange.scheduled_ns) // _NS_PER_US)
        self._silent = [each for each in self._silent if each.first_token_ns == NEVER and each.finding is None]
        return found


def _tokens_under_way(exchanges: Iterable[Exchange]) -> Counter[str]:
    tokens: Counter[str] = Counter()
    for exchange in exchanges:
        tokens[exchange.planned.tenant] += exchange.tokens
    return tokens


def _highest_rss_bytes() -> int:
    """By the kernel; 0 where it does not tell. `getrusage` would: but with what its parent had when it began."""
    with suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
