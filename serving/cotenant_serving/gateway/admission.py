"""A tenant's limits: requests and tokens per minute as token buckets, and requests at the same time.

Arithmetic only: the levels are kept by an `Account` of the board, which the workers of a gateway share, and the time
is an argument (`now`, seconds of a monotonic clock that all of them have in common).
Tokens are charged by estimate on entry and settled with the real usage on exit, so a bucket may go below zero.

A bucket holds one minute's worth, starts full and refills evenly. So all there is to know is when it will be full:
what is taken puts that off, and the bucket is empty when that is a minute away (the generic cell rate algorithm).
"""

import math

from cotenant_serving.contract import Limits
from cotenant_serving.gateway.board import Account, Levels
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
    """A limit as times. `full`, when the bucket is full, is kept elsewhere. Without a limit nothing costs any."""

    __slots__ = ("capacity", "latest_s", "unit_s")

    def __init__(self, per_minute: int | None) -> None:
        self.capacity = float(per_minute or 0)
        """0: no limit."""
        self.unit_s = MINUTE_S / per_minute if per_minute else 0.0
        """Until one unit has come back."""
        self.latest_s = MINUTE_S + min(TOLERANCE_S, self.unit_s / 2) if per_minute else math.inf
        """How long after now it may be full when somebody has taken something."""

    def after(self, full: float, amount: float, now: float) -> float:
        """When it is full if `amount` is taken. Negative amounts give back."""
        return (full if full > now else now) + amount * self.unit_s

    def resized(self, capacity: float, full: float, now: float) -> float:
        """When a bucket of this capacity is full with what one of another `capacity` holds.

        A changed limit neither refills nor empties. `capacity` 0: nobody has used it yet.
        """
        level = capacity - max(0.0, full - now) * capacity / MINUTE_S
        return now + max(0.0, self.capacity - level) * self.unit_s if capacity else now

    def shown(self, full: float, now: float) -> tuple[int, bytes]:
        """Units that remain, and the time until all are back."""
        away_s = full - now
        if away_s <= 0:
            return int(self.capacity), b"0s"
        level = self.capacity - away_s / self.unit_s + 1e-3
        return int(level) if level > 0 else 0, duration(away_s)


class TenantLimits:
    """One tenant's limits and its count of running requests, as this worker sees them."""

    def __init__(self, tenant: str, limits: Limits, account: Account, now: float) -> None:
        self.tenant = tenant
        self._account, self._running = account, account.running
        self.change(limits, now)

    @property
    def running(self) -> int:
        return self._running.total()

    def change(self, limits: Limits, now: float) -> None:
        self._unlimited = limits == Limits()
        self._requests, self._tokens = Bucket(limits.requests_per_minute), Bucket(limits.tokens_per_minute)
        self._most_running = limits.concurrent_requests or math.inf
        limited = ((b"requests", self._requests), (b"tokens", self._tokens))
        self._fields = b"".join(_FIELDS % (kind, one.capacity, kind, kind) for kind, one in limited if one.capacity)
        with self._account:
            self._requests_full, self._tokens_full = self._load(now)

    def admit(self, tokens: int, now: float) -> None:
        """Takes one request, `tokens` and one place among the running, or raises RequestError and takes nothing."""
        if self._unlimited:
            self._running.add(1)
            return
        most = self._tokens.capacity
        if most and tokens > most:
            raise error(
                "request_exceeds_limit",
                f"The request may cost {tokens} tokens (estimated) and the limit is {most:.0f} tokens per minute.",
            )
        with self._account:
            refused = self._take(tokens, now)
        if refused is not None:
            raise self._too_many(*refused, now)

    def settle(self, estimated: int, actual: int, now: float) -> None:
        """Ends a request that `admit` let in."""
        self._running.add(-1)
        if self._tokens.capacity and actual != estimated:
            with self._account:
                requests_full, tokens_full = self._load(now)
                tokens_full = self._tokens.after(tokens_full, actual - estimated, now)
                self._account.fill(requests_full, tokens_full)
            self._requests_full, self._tokens_full = requests_full, tokens_full

    def fields(self, now: float) -> bytes:
        """Header lines x-ratelimit-{limit,remaining,reset}-{requests,tokens}, as of the last call that took or gave
        back. Nothing for what is unlimited.
        """
        shown: tuple[int | bytes, ...] = ()
        if self._requests.capacity:
            shown = self._requests.shown(self._requests_full, now)
        if self._tokens.capacity:
            shown += self._tokens.shown(self._tokens_full, now)
        return self._fields % shown if shown else b""

    def headers(self, now: float) -> dict[str, str]:
        """`fields` by their names."""
        lines = (line.partition(": ") for line in self.fields(now).decode().splitlines())
        return {name: value for name, _, value in lines}

    def _take(self, tokens: int, now: float) -> tuple[str, float] | None:
        """The limit that is reached and the seconds until there is room, if one is."""
        requests_full, tokens_full = self._requests_full, self._tokens_full = self._load(now)
        if self._running.total() >= self._most_running:
            return f"{self._most_running} concurrent requests", 1.0
        requests_full = self._requests.after(requests_full, 1, now)
        if requests_full - now > self._requests.latest_s:
            return f"{self._requests.capacity:.0f} requests per minute", requests_full - now - MINUTE_S
        tokens_full = self._tokens.after(tokens_full, tokens, now)
        # Tensors cost no tokens: a bucket below zero does not keep them out.
        if tokens and tokens_full - now > self._tokens.latest_s:
            return f"{self._tokens.capacity:.0f} tokens per minute", tokens_full - now - MINUTE_S
        self._account.fill(requests_full, tokens_full)
        self._running.add(1)
        self._requests_full, self._tokens_full = requests_full, tokens_full
        return None

    def _load(self, now: float) -> tuple[float, float]:
        """When the buckets are full, as the workers have left them, at the limits that this one knows."""
        levels = requests, requests_full, tokens, tokens_full = self._account.load()
        if requests == self._requests.capacity and tokens == self._tokens.capacity:
            return requests_full, tokens_full
        return self._resized(levels, now)

    def _resized(self, levels: Levels, now: float) -> tuple[float, float]:
        """What has no limit now stays as it was."""
        requests, requests_full, tokens, tokens_full = levels
        if self._requests.capacity not in (0, requests):
            requests, requests_full = self._requests.capacity, self._requests.resized(requests, requests_full, now)
        if self._tokens.capacity not in (0, tokens):
            tokens, tokens_full = self._tokens.capacity, self._tokens.resized(tokens, tokens_full, now)
        changed = (requests, requests_full, tokens, tokens_full)
        if changed != levels:
            self._account.store(changed)
        return requests_full, tokens_full

    def _too_many(self, limit: str, wait_s: float, now: float) -> RequestError:
        wait_s = round(wait_s, 3)
        return error(
            "rate_limit_exceeded",
            f"Tenant '{self.tenant}' reached its limit of {limit}; there is room in {retry_after(wait_s)} s.",
            retry_after_s=wait_s,
            headers=self.headers(now),
        )


def duration(seconds: float) -> bytes:
    """As Go prints it, like OpenAI's x-ratelimit-reset: `0s`, `12ms`, `1.5s`, `2m3s`."""
    ms = int(seconds * 1000 + 0.5)
    if ms < 1000:
        return b"%dms" % ms if ms > 0 else b"0s"
    if ms < 60_000 and ms % 10:
        return b"%d.%03ds" % (ms // 1000, ms % 1000)
    minutes, ms = divmod(ms, 60_000)
    tail = b"%d" % (ms // 1000) if ms % 1000 == 0 else (b"%d.%03d" % divmod(ms, 1000)).rstrip(b"0")
    return b"%dm%bs" % (minutes, tail) if minutes else tail + b"s"
