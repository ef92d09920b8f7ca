"""A tenant's limits: requests and tokens per minute as token buckets, and requests at the same time.

Arithmetic only: the levels are kept by an `Account` of the board, which the workers of a gateway share, and the time
is an argument (`now`, seconds of a monotonic clock that all of them have in common).
Tokens are charged by estimate on entry and settled with the real usage on exit, so a bucket may go below zero.

A bucket holds one minute's worth, starts full and refills evenly. So all there is to know is when it will be full:
what is taken puts that off, and the bucket is empty when that is a minute away (the generic cell rate algorithm).
"""

import math
from functools import lru_cache

from cotenant_serving.contract_gateway import Limits
from cotenant_serving.gateway.board import LEVELS, Account
from cotenant_serving.gateway.errors import error, retry_after
from cotenant_serving.openai_api import RequestError

DEFAULT_MAX_TOKENS = 256
"""Completion tokens assumed for a request that does not say; the real number is settled on exit."""
MINUTE_S = 60.0
TOLERANCE_S = 0.001
"""Who would wait less long, or for half a unit only, does not: neither rounding nor a clock that was read before the
lock was there refuses anybody, and no burst gets one request more than its limit."""
_FIELDS = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%b\r\n"


def estimated_tokens(body_bytes: int, max_tokens: int | None) -> int:
    """Cost of a request on entry: about four bytes of body per prompt token, plus what it may generate."""
    return body_bytes // 4 + (DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens)


class Bucket:
    """A limit as times. `full`, when the bucket is full, is kept elsewhere. Without a limit nothing costs any.

    Where several gateways share a limit, each bucket refills at its part of it, whatever the fraction, and holds a
    part of a minute's worth, but no less than one. `full` says how much is missing as a part of the whole: when the
    number of gateways changes, it is the same part.
    """

    __slots__ = ("capacity", "latest_s", "part", "unit_s")

    def __init__(self, per_minute: int | None, gateways: int = 1) -> None:
        self.capacity = float(per_minute or 0)
        """Of all gateways together; 0: no limit."""
        self.part = self.capacity / gateways
        """Of this one."""
        self.unit_s = MINUTE_S / self.part if per_minute else 0.0
        """Until one unit has come back."""
        most_s = max(MINUTE_S, self.unit_s)
        self.latest_s = most_s + min(TOLERANCE_S, self.unit_s / 2) if per_minute else math.inf
        """How long after now it may be full when somebody has taken something."""

    def resized(self, capacity: float, full: float, now: float) -> float:
        """When a bucket of this capacity is full with what one of another `capacity` holds.

        A changed limit neither refills nor empties. `capacity` 0: nobody has used it yet.
        """
        level = capacity - max(0.0, full - now) * capacity / MINUTE_S
        return now + max(0.0, self.capacity - level) * MINUTE_S / self.capacity if capacity else now


class TenantLimits:
    """One tenant's limits and its count of running requests, as this worker sees them.

    `admit` and `settle` run for every request, and there a call costs more than what it does: so each does by itself
    what `Account` has functions for.
    """

    __slots__ = (
        "_account", "_copies", "_fields", "_gateways", "_lock", "_most_running", "_requests", "_requests_full",
        "_running", "_tokens", "_tokens_full", "_unlimited", "_valid", "tenant",
    )  # fmt: skip

    def __init__(self, tenant: str, limits: Limits, account: Account, now: float, gateways: int = 1) -> None:
        """`gateways`: so many share the limits."""
        self.tenant = tenant
        self._account, self._running, self._lock = account, account.running, account.lock
        self._copies, self._valid = account.copies, account.valid
        self.change(limits, now, gateways)

    @property
    def running(self) -> int:
        return self._running.total()

    def change(self, limits: Limits, now: float, gateways: int = 1) -> None:
        self._unlimited, self._gateways = limits == Limits(), gateways
        self._requests = Bucket(limits.requests_per_minute, gateways)
        self._tokens = Bucket(limits.tokens_per_minute, gateways)
        self._most_running = part_of(limits.concurrent_requests, gateways)
        limited = ((b"requests", self._requests), (b"tokens", self._tokens))
        self._fields = b"".join(
            _FIELDS % (kind, max(1, int(one.part)), kind, kind) for kind, one in limited if one.capacity
        )
        with self._lock:
            self._requests_full, self._tokens_full = self._load(now)

    def admit(self, tokens: int, now: float) -> None:
        """Takes one request, `tokens` and one place among the running, or raises RequestError and takes nothing."""
        running = self._running
        if self._unlimited:
            running.values[running.column] += 1
            return
        requests, of_tokens, levels = self._requests, self._tokens, self._copies
        if tokens > of_tokens.capacity > 0:
            raise self._too_large(tokens)
        if busy := self._lock.try_lock():
            self._lock.wait(busy)
        try:
            at = LEVELS * self._valid[0]
            requests_full, tokens_full = levels[at + 1], levels[at + 3]
            if levels[at] != requests.capacity or levels[at + 2] != of_tokens.capacity:
                requests_full, tokens_full = self._load(now)
                at = LEVELS * self._valid[0]
            self._requests_full, self._tokens_full = requests_full, tokens_full
            requests_full = (requests_full if requests_full > now else now) + requests.unit_s
            tokens_full = (tokens_full if tokens_full > now else now) + tokens * of_tokens.unit_s
            if (
                requests_full - now <= requests.latest_s
                # Tensors cost no tokens: a bucket below zero does not keep them out.
                # What no bucket of one gateway holds, but the whole limit does, needs a full one.
                and (tokens_full - now <= of_tokens.latest_s or not tokens or levels[at + 3] <= now)
                and sum(running.values) < self._most_running
            ):
                self._requests_full = levels[at + 1] = requests_full
                self._tokens_full = levels[at + 3] = tokens_full
                running.values[running.column] += 1
                return
            over_s = max(0.0, tokens - of_tokens.part) * of_tokens.unit_s
            limit, wait_s = self._reached(requests_full - now, tokens_full - now - over_s)
        finally:
            self._lock.unlock()
        raise self._too_many(limit, wait_s, now)

    def settle(self, estimated: int, actual: int, now: float) -> None:
        """Ends a request that `admit` let in."""
        running = self._running
        running.values[running.column] -= 1
        of_tokens, levels = self._tokens, self._copies
        if not of_tokens.capacity or actual == estimated:
            return
        if busy := self._lock.try_lock():
            self._lock.wait(busy)
        try:
            at = LEVELS * self._valid[0]
            requests_full, tokens_full = levels[at + 1], levels[at + 3]
            if levels[at] != self._requests.capacity or levels[at + 2] != of_tokens.capacity:
                requests_full, tokens_full = self._load(now)
                at = LEVELS * self._valid[0]
            self._requests_full = requests_full
            tokens_full = (tokens_full if tokens_full > now else now) + (actual - estimated) * of_tokens.unit_s
            self._tokens_full = levels[at + 3] = tokens_full
        finally:
            self._lock.unlock()

    def fields(self, now: float) -> bytes:
        """Header lines x-ratelimit-{limit,remaining,reset}-{requests,tokens}, as of the last call that took or gave
        back. Nothing for what is unlimited.
        """
        shown: list[int | bytes] = []
        for bucket, full in ((self._requests, self._requests_full), (self._tokens, self._tokens_full)):
            if bucket.capacity:
                away_s = full - now
                if away_s > 0:
                    level = int(bucket.part - away_s / bucket.unit_s + 1e-3)
                    shown += (level if level > 0 else 0, duration(int(away_s * 1000 + 0.5)))
                else:
                    shown += (int(bucket.part) or 1, b"0s")
        return self._fields % tuple(shown) if shown else b""

    def headers(self, now: float) -> dict[str, str]:
        """`fields` by their names."""
        lines = (line.partition(": ") for line in self.fields(now).decode().splitlines())
        return {name: value for name, _, value in lines}

    def _reached(self, requests_away_s: float, tokens_away_s: float) -> tuple[str, float]:
        """The limit that keeps a request out, and the seconds until there is room. The times: with this request."""
        several = self._gateways > 1
        if self._running.total() >= self._most_running:
            each = f" at each of {self._gateways} gateways" if several else ""
            return f"{self._most_running} concurrent requests{each}", 1.0
        kind, bucket, away_s = "tokens", self._tokens, tokens_away_s
        if requests_away_s > self._requests.latest_s:
            kind, bucket, away_s = "requests", self._requests, requests_away_s
        shared = f", which {self._gateways} gateways share" if several else ""
        return f"{bucket.capacity:.0f} {kind} per minute{shared}", away_s - max(MINUTE_S, bucket.unit_s)

    def _load(self, now: float) -> tuple[float, float]:
        """When the buckets are full, as the workers have left them, at the limits that this one knows."""
        levels = requests, requests_full, tokens, tokens_full = self._account.load()
        # What has no limit now stays as it was.
        if self._requests.capacity not in (0, requests):
            requests, requests_full = self._requests.capacity, self._requests.resized(requests, requests_full, now)
        if self._tokens.capacity not in (0, tokens):
            tokens, tokens_full = self._tokens.capacity, self._tokens.resized(tokens, tokens_full, now)
        changed = (requests, requests_full, tokens, tokens_full)
        if changed != levels:
            self._account.store(changed)
        return requests_full, tokens_full

    def _too_large(self, tokens: int) -> RequestError:
        return error(
            "request_exceeds_limit",
            f"The request may cost {tokens} tokens (estimated) and the limit is {self._tokens.capacity:.0f} tokens"
            " per minute.",
        )

    def _too_many(self, limit: str, wait_s: float, now: float) -> RequestError:
        wait_s = round(wait_s, 3)
        return error(
            "rate_limit_exceeded",
            f"Tenant '{self.tenant}' reached its limit of {limit}; there is room in {retry_after(wait_s)} s.",
            retry_after_s=wait_s,
            headers=self.headers(now),
        )


def part_of(limit: int | None, gateways: int) -> float:
    """Of requests at a time, which have no fractions: never more than the limit in all, as long as that has one for
    each gateway. Pure.
    """
    return math.inf if limit is None else max(1, limit // gateways)


@lru_cache(maxsize=4096)
def duration(ms: int) -> bytes:
    """As Go prints it, like OpenAI's x-ratelimit-reset: `0s`, `12ms`, `1.5s`, `2m3s`."""
    if ms < 1000:
        return b"%dms" % ms if ms > 0 else b"0s"
    minutes, ms = divmod(ms, 60_000)
    tail = b"%d" % (ms // 1000) if ms % 1000 == 0 else (b"%d.%03d" % divmod(ms, 1000)).rstrip(b"0")
    return b"%dm%bs" % (minutes, tail) if minutes else tail + b"s"
