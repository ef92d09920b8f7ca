"""A tenant's limits: requests and tokens per minute as token buckets, and requests at the same time.

Arithmetic only: the levels are kept by an `Account` of the board, which the workers of a gateway share, and the time
is an argument (`now`, seconds of a monotonic clock that all of them have in common).
Tokens are charged by estimate on entry and settled with the real usage on exit, so a bucket may go below zero.
"""

from cotenant_serving.contract import Limits
from cotenant_serving.gateway.board import NO_LEVELS, Account
from cotenant_serving.gateway.errors import error, retry_after
from cotenant_serving.openai_api import RequestError

DEFAULT_MAX_TOKENS = 256
"""Completion tokens assumed for a request that does not say; the real number is settled on exit."""
MINUTE_S = 60.0
State = tuple[float, float, float]
"""A bucket's capacity, level, and the time of that level."""
_UNLIMITED = Limits()


def estimated_tokens(body_bytes: int, max_tokens: int | None) -> int:
    """Cost of a request on entry: about four bytes of body per prompt token, plus what it may generate."""
    return body_bytes // 4 + (DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens)


class Bucket:
    """Token bucket: holds one minute's worth, starts full, refills evenly."""

    __slots__ = ("_at", "_level", "capacity")

    def __init__(self, per_minute: int, now: float) -> None:
        self.capacity = float(per_minute)
        self._level = float(per_minute)
        self._at = now

    def state(self) -> State:
        return self.capacity, self._level, self._at

    def restore(self, state: State) -> None:
        self.capacity, self._level, self._at = state

    def level(self, now: float) -> float:
        elapsed_s = max(0.0, now - self._at)
        self._level = min(self.capacity, self._level + elapsed_s * self.capacity / MINUTE_S)
        self._at = max(self._at, now)
        return self._level

    def take(self, amount: float, now: float) -> None:
        """Negative amounts give back. Does not ask whether there is enough."""
        self._level = min(self.capacity, self.level(now) - amount)

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` is there; 0 when it is; infinite when the bucket never holds so much."""
        missing = amount - self.level(now)
        if missing <= 0:
            return 0.0
        if amount > self.capacity:
            return float("inf")
        return missing * MINUTE_S / self.capacity

    def resize(self, per_minute: int, now: float) -> None:
        """Keeps the fill: a changed limit neither refills the bucket nor empties it."""
        level = self.level(now)
        self.capacity = float(per_minute)
        self._level = min(self.capacity, level)


class TenantLimits:
    """One tenant's buckets and its count of running requests, as this worker works on them."""

    def __init__(self, tenant: str, limits: Limits, account: Account, now: float) -> None:
        self.tenant = tenant
        self._account = account
        self._limits = limits
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self._levels = NO_LEVELS
        self.change(limits, now)

    @property
    def running(self) -> int:
        return self._account.running.total()

    def change(self, limits: Limits, now: float) -> None:
        self._limits = limits
        with self._account:
            self._load(now)
            self._store()

    def admit(self, tokens: int, now: float) -> None:
        """Takes one request, `tokens` and one place among the running, or raises RequestError and takes nothing."""
        most = self._limits.tokens_per_minute
        if most is not None and tokens > most:
            raise error(
                "request_exceeds_limit",
                f"The request may cost {tokens} tokens (estimated) and the limit is {most} tokens per minute.",
            )
        if self._limits == _UNLIMITED:
            self._account.running.add(1)
            return
        with self._account:
            self._load(now)
            refused = self._refusal(tokens, now)
            if refused is None:
                self._take(1, tokens, now)
                self._account.running.add(1)
        if refused is not None:
            raise self._too_many(*refused, now)

    def settle(self, estimated: int, actual: int, now: float) -> None:
        """Ends a request that `admit` let in."""
        self._account.running.add(-1)
        if self._limits.tokens_per_minute is not None:
            with self._account:
                self._load(now)
                self._take(0, actual - estimated, now)

    def _load(self, now: float) -> None:
        """Takes over what the workers have left, at the limits that this one knows."""
        self._levels = levels = self._account.load()
        self._requests = _bucket(self._requests, self._limits.requests_per_minute, levels[:3], now)
        self._tokens = _bucket(self._tokens, self._limits.tokens_per_minute, levels[3:], now)

    def _take(self, requests: int, tokens: int, now: float) -> None:
        if self._requests is not None and requests:
            self._requests.take(requests, now)
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        self._store()

    def _store(self) -> None:
        """What has no limit now stays as it was."""
        requests = self._levels[:3] if self._requests is None else self._requests.state()
        tokens = self._levels[3:] if self._tokens is None else self._tokens.state()
        self._account.store((*requests, *tokens))

    def headers(self, now: float) -> dict[str, str]:
        """x-ratelimit-{limit,remaining,reset}-{requests,tokens}, as of the last call that took or gave back.

        Nothing for what is unlimited.
        """
        found = {}
        for kind, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                level = bucket.level(now)
                found[f"x-ratelimit-limit-{kind}"] = str(int(bucket.capacity))
                found[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(level)))
                found[f"x-ratelimit-reset-{kind}"] = duration(bucket.wait_s(bucket.capacity, now))
        return found

    def _refusal(self, tokens: int, now: float) -> tuple[str, float] | None:
        most = self._limits.concurrent_requests
        if most is not None and self._account.running.total() >= most:
            return f"{most} concurrent requests", 1.0
        if self._requests is not None and (wait_s := self._requests.wait_s(1, now)) > 0:
            return f"{int(self._requests.capacity)} requests per minute", wait_s
        # Tensors cost no tokens: a bucket below zero does not keep them out.
        if tokens and self._tokens is not None and (wait_s := self._tokens.wait_s(tokens, now)) > 0:
            return f"{int(self._tokens.capacity)} tokens per minute", wait_s
        return None

    def _too_many(self, limit: str, wait_s: float, now: float) -> RequestError:
        return error(
            "rate_limit_exceeded",
            f"Tenant '{self.tenant}' reached its limit of {limit}; there is room in {retry_after(wait_s)} s.",
            retry_after_s=wait_s,
            headers=self.headers(now),
        )


def duration(seconds: float) -> str:
    """As Go prints it, like OpenAI's x-ratelimit-reset: `0s`, `12ms`, `1.5s`, `2m3s`."""
    ms = round(seconds * 1000)
    if ms <= 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    tail = f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{tail}" if minutes else tail


def _bucket(bucket: Bucket | None, per_minute: int | None, state: State, now: float) -> Bucket | None:
    """`state` as a bucket of `per_minute`; a full one where nobody has used it yet. Reuses `bucket`."""
    if per_minute is None:
        return None
    if state[0] == 0:
        return Bucket(per_minute, now)
    bucket = bucket or Bucket(per_minute, now)
    bucket.restore(state)
    if state[0] != per_minute:
        bucket.resize(per_minute, now)
    return bucket
