"""What a run may do to whom: hosts that need to be named, and how much it is going to send at most."""

import ipaddress
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from urllib.parse import urlsplit

from cotenant_loadtests.http_urls import http_parts
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.spec import Limits, Scenario
from cotenant_loadtests.units import US_PER_S

OPTION = "--i-may-load-this"
HEAD_BYTES = 400
"""About what a request's head has."""
SAMPLE = 500
"""So many bodies are rendered to say how many bytes all have; fewer are all of them."""
Resolve = Callable[[str], Sequence[str]]


def addresses_of(host: str) -> Sequence[str]:
    """What the name resolves to, the preferred one first. Raises OSError, UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(one[4][0]) for one in found))


def check_hosts(scenario: Scenario, permitted: Sequence[str], resolve: Resolve = addresses_of) -> None:
    """Only loopback, or hosts that are permitted by name; what is permitted is asked. Raises RefusedError."""
    hosts, named = hosts_of(scenario), {plain_host(host): host for host in permitted}
    for plain, host in named.items():
        if plain not in hosts:
            target = next(iter(hosts))
            raise RefusedError(
                f"{OPTION} {host}: the target is {target}, not that; say {OPTION} {target}, or change the target"
            )
    for host, field in hosts.items():
        try:
            addresses = resolve(host)
        except (OSError, UnicodeError):
            raise RefusedError(
                f"{field}: the host {host} is unknown; check its name, or the machine's name service"
            ) from None
        if host not in named and not (addresses and all(map(_loopback, addresses))):
            raise RefusedError(f"{field}: {host} is not this machine; if you may put load on it, say {OPTION} {host}")


def hosts_of(scenario: Scenario) -> dict[str, str]:
    """The hosts that a run sends anything to, the target's first, and the field that names each."""
    hosts = {host_of(scenario.target.url): "target.url"}
    if scenario.observe.metrics_url is not None:
        hosts.setdefault(urlsplit(scenario.observe.metrics_url).hostname or "", "observe.metrics_url")
    return hosts


def plain_host(host: str) -> str:
    """As an address has it."""
    return host.strip("[]").lower()


def host_of(url: str) -> str:
    """Raises RefusedError for what is no address of a server."""
    parts = http_parts(url)
    if parts is None or parts.query or parts.fragment or parts.username is not None:
        shown = "with a user's name" if "@" in url else repr(url)  # it may hold a password
        raise RefusedError(f"target.url: {shown} is no address of a server; give one such as http://127.0.0.1:8080")
    return str(parts.hostname)


def _loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a plan is going to send."""

    requests: int
    peak_per_s: int
    """Most requests due within one second, later turns of conversations as if answers took no time."""
    duration_s: float
    """Of the schedule."""
    connections: int
    """Most at a time, if every answer took as long as its deadline allows."""
    bytes: int
    """Of all requests."""
    estimated: bool
    """Are the bytes those of a sample, scaled up?"""

    def sentence(self, target: str) -> str:
        """For a person, before anything is sent."""
        about = "about " if self.estimated else ""
        return (
            f"sending {self.requests:,} requests to {target} within {self.duration_s:g} s: at most "
            f"{self.peak_per_s:,} in a second, {self.connections:,} connections, {about}{_size(self.bytes)}"
        )


def extent_of(plan: Sequence[Planned], scenario: Scenario, size_of: Callable[[Planned], int]) -> Extent:
    """`size_of`: bytes of a request's body."""
    step = max(1, len(plan) // SAMPLE)
    sample = plan[::step]
    total = sum(HEAD_BYTES + size_of(request) for request in sample)
    return Extent(
        requests=len(plan),
        peak_per_s=_most_within(sorted(_due_us(plan, scenario.duration_s)), US_PER_S),
        duration_s=scenario.duration_s,
        connections=min(_most_open(plan, scenario), scenario.limits.connections),
        bytes=round(total * len(plan) / max(1, len(sample))),
        estimated=step > 1,
    )


def check_limits(extent: Extent, limits: Limits) -> None:
    """Raises RefusedError that names what is too much."""
    found = {
        "requests": extent.requests,
        "rate_per_s": extent.peak_per_s,
        "duration_s": extent.duration_s,
        "bytes": extent.bytes,
    }
    problems = [
        f"limits.{name}: the plan has {value:,.0f}, more than {getattr(limits, name):,.0f}; "
        "plan less, or raise the limit"
        for name, value in found.items()
        if value > getattr(limits, name)
    ]
    if problems:
        raise RefusedError("\n".join(problems))


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _due_us(plan: Sequence[Planned], duration_s: float) -> list[int]:
    """When each request is due at the earliest. Turns that would be due after the end are not sent."""
    due_us: dict[int, int] = {}
    for request in plan:
        if request.after is None:
            due_us[request.id] = round((request.at_s or 0) * US_PER_S)
        else:
            due_us[request.id] = due_us[request.after] + round(request.think_s * US_PER_S)
    end_us = duration_s * US_PER_S
    return [due_us[request.id] for request in plan if request.after is None or due_us[request.id] <= end_us]


def _most_within(times_us: Sequence[int], span_us: int) -> int:
    most, within = 0, deque[int]()
    for time_us in times_us:
        within.append(time_us)
        while within[0] <= time_us - span_us:
            within.popleft()
        most = max(most, len(within))
    return most


def _most_open(plan: Sequence[Planned], scenario: Scenario) -> int:
    """A conversation has one request at a time, and may go on to the end."""
    continued = {request.after for request in plan if request.after is not None}
    end_s = scenario.duration_s + scenario.drain_s
    starts = sorted((request.at_s, request.id, request) for request in plan if request.at_s is not None)
    most, open_until = 0, list[float]()
    for at_s, _, request in starts:
        while open_until and open_until[0] <= at_s:
            heappop(open_until)
        heappush(open_until, end_s if request.id in continued else min(end_s, at_s + request.deadline_s))
        most = max(most, len(open_until))
    return most
