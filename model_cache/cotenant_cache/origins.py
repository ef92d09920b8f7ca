"""Whoever is asked for a file, and where that leads: redirects, refusals, and whose secret goes where."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from cotenant_cache.backoff import TryAgainError
from cotenant_cache.connections import Answer, Waits, get
from cotenant_cache.http_answers import REDIRECTS, is_transient, next_url, origin_of, retry_after_s
from cotenant_cache.rests import Rests

_MOST_REDIRECTS = 10


@dataclass(frozen=True, slots=True)
class Origin:
    """Who is asked first. `secret` are headers for this scheme, host and port and nobody else."""

    url: str
    name: str
    """As it stands in messages."""
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)
    direct: bool = False
    """Asked by no proxy: it is on the inside."""
    refuse: Callable[[int, Mapping[str, str]], None] | None = None
    """Raises the CacheError for a status of the origin itself that no second attempt changes; leaves the others."""
    rests: Rests | None = None
    """What it asks for by Retry-After is noted there, and kept: until then it is not asked."""

    def rest_s(self) -> float:
        return self.rests.left_s(self.name, self.secret) if self.rests is not None else 0.0

    def note_rest(self, seconds: float | None) -> None:
        if self.rests is not None:
            self.rests.note(self.name, self.secret, seconds)

    def without_secrets(self, text: str) -> str:
        """What others said, for messages: they may repeat what they were sent."""
        for secret in self.secret.values():
            for part in (secret, secret.rpartition(" ")[2]):
                text = text.replace(part, "…") if part else text
        return text


def ask(origin: Origin, offset: int, waits: Waits, *, end: int | None = None) -> Answer:
    """The answer (200 or 206) that has the bytes from `offset` (to without `end`), at the end of all redirects.

    A public origin may not lead to this machine or a private network; one that is there itself may.
    Raises TryAgainError, FetchStoppedError, HubUnreachableError, and what `origin.refuse` raises.
    """
    if rest_s := origin.rest_s():
        raise TryAgainError("it was not asked, as it said", rest_s)
    url, inner_allowed = origin.url, True
    last = "" if end is None else end - 1
    span = {"range": f"bytes={offset}-{last}"} if offset or end is not None else {}
    for _ in range(_MOST_REDIRECTS):
        own = origin_of(url) == origin_of(origin.url)
        headers = {**origin.headers, **(origin.secret if own else {}), **span, "accept-encoding": "identity"}
        answer = get(url, headers, inner_allowed=inner_allowed or own, waits=waits, direct=origin.direct and own)
        if answer.status in (200, 206):
            return answer
        with answer:
            if answer.status not in REDIRECTS or "location" not in answer.headers:
                _refuse(origin, answer, own)
            url = next_url(url, answer.headers["location"])
            inner_allowed = inner_allowed and answer.inner
    raise TryAgainError(f"it redirects in a circle, {_MOST_REDIRECTS} times")


def _refuse(origin: Origin, answer: Answer, own: bool) -> NoReturn:
    if is_transient(answer.status):
        after_s = retry_after_s(answer.headers, time.time())
        if own:  # what another host asks for, to which it redirects, is about this file
            origin.note_rest(after_s)
        raise TryAgainError(f"HTTP {answer.status}", after_s)
    # Who signs addresses lets them expire, and the next attempt gets a new one: only the origin's own word is final.
    if own and 400 <= answer.status < 500 and answer.status != 416 and origin.refuse:
        origin.refuse(answer.status, answer.headers)
    raise TryAgainError(f"HTTP {answer.status}{'' if own else ' of the host that it redirects to'}")
