"""Samples a server's own metrics during a run. The only module that reads them; its failures never disturb the run.

A thread of its own asks `observe.metrics_url` every `observe.interval_s`, with a new connection each time: what is
measured goes over other connections, in other processes. Nothing is sent but `GET`, and no key.
"""

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable
from urllib.parse import SplitResult

from cotenant_loadtests import observed
from cotenant_loadtests.http_urls import http_parts, port_of
from cotenant_loadtests.prometheus_text import Page, PrometheusTextError, parse
from cotenant_loadtests.results import Sample, ServerSide
from cotenant_loadtests.spec import Observe, Scenario, Target
from cotenant_loadtests.tls import tls_context

MOST_BYTES = 8_000_000
"""Of one page."""
MOST_SECONDS = 5.0
"""For one page, from connecting to its last byte."""
MOST_PROBLEMS = 20
"""Different ones; equal ones are counted."""


class PageError(Exception):
    """A page could not be had; the message says why, and holds nothing of the page."""


def metrics_url(observe: Observe, target: Target) -> str | None:
    """Where to ask; None when nothing is observed. Without a URL it is cotenant's: `/metrics` of the target."""
    if observe.metrics_url is not None:
        return observe.metrics_url
    return f"{target.url.rstrip('/')}/metrics" if observe.metrics or observe.table else None


class Observer:
    """`start` when the run's clock starts, `stop` when it is over. Without anything to observe both do nothing."""

    def __init__(
        self, scenario: Scenario, now_s: Callable[[], float], *, most_values: int = observed.MOST_VALUES
    ) -> None:
        """`now_s`: seconds from the start of the run."""
        self._observe, self._target, self._now_s = scenario.observe, scenario.target, now_s
        self._url = metrics_url(scenario.observe, scenario.target)
        self._beginnings = scenario.observe.metrics or observed.KNOWN
        self._interval_s, self._most_values = scenario.observe.interval_s, most_values
        self._metrics: list[Sample] = []
        self._table: list[Sample] = []
        self._counters: set[str] = set()
        self._problems: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="observer", daemon=True)

    def start(self) -> None:
        if self._url is not None:
            self._thread.start()

    def stop(self) -> ServerSide:
        """What was seen until now. Does not wait for a page that is on its way."""
        self._stop.set()
        with self._lock:
            problems = tuple(
                text + (f" ({count} times)" if count > 1 else "") for text, count in self._problems.items()
            )
            metrics = observed.with_rates(self._metrics, self._counters)
            return ServerSide(metrics=metrics, table=tuple(self._table), problems=problems)

    def _sample(self) -> None:
        assert self._url is not None
        due_s = max(0.0, self._now_s())  # a run's clock may start a little below 0
        self._stop.wait(due_s - self._now_s())
        while not self._stop.is_set():
            self._sample_once(self._url)
            # The next beat that is still to come: a page that took long is followed by no burst.
            due_s += self._interval_s * max(1, 1 + int((self._now_s() - due_s) / self._interval_s))
            self._stop.wait(max(0.0, due_s - self._now_s()))

    def _sample_once(self, url: str) -> None:
        asked_s = self._now_s()
        try:
            page = parse(fetch(url, self._target), self._is_wanted)
        except (PageError, PrometheusTextError) as problem:
            self._problem(f"{_shown(url)}: {problem}")
        else:
            at_s = (asked_s + self._now_s()) / 2
            with self._lock:
                if not self._stop.is_set():
                    self._keep(round(at_s, 3), page)

    def _is_wanted(self, name: str) -> bool:
        return name == observed.ENGINES or observed.is_wanted(name, self._beginnings)

    def _keep(self, at_s: float, page: Page) -> None:
        values = observed.values_of(page, self._beginnings)
        if len(values) > observed.MOST_SERIES:
            self._note(
                f"{len(values)} series, the first {observed.MOST_SERIES} are kept; name fewer in observe.metrics"
            )
            values = dict(list(values.items())[: observed.MOST_SERIES])
        if not values:
            self._note("no metric has a name that was asked for; see observe.metrics")
        self._metrics.append(Sample(at_s=at_s, values=values))
        self._counters |= {sample.series for sample in page.samples if page.counts(sample.name)}
        if self._observe.table:
            engines = observed.engines_of(page)
            if engines is None:
                self._note(f"no table: the page has no {observed.ENGINES}, it is not that of a cotenant gateway")
            else:
                self._table.append(Sample(at_s=at_s, values=engines))
        if sum(len(sample.values) for sample in self._metrics) > self._most_values:
            self._metrics, self._table = observed.every_second(self._metrics), observed.every_second(self._table)
            self._interval_s *= 2

    def _problem(self, text: str) -> None:
        with self._lock:
            self._note(text)

    def _note(self, text: str) -> None:
        if text in self._problems or len(self._problems) < MOST_PROBLEMS:
            self._problems[text] = self._problems.get(text, 0) + 1


def fetch(url: str, target: Target, *, most_s: float = MOST_SECONDS) -> str:
    """The page, bounded in bytes and seconds; redirects are not followed. Raises PageError."""
    parts, late = checked(url), threading.Event()
    try:
        text, failed = _fetch(parts, target, most_s, late), ""
    except PageError as problem:
        text, failed = "", str(problem)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        text, failed = "", _words(problem)
    if late.is_set():  # then the connection was broken off by us, at any byte
        failed = f"no whole page within {most_s:g} s"
    if failed:
        raise PageError(failed)
    return text


def _fetch(parts: SplitResult, target: Target, most_s: float, late: threading.Event) -> str:
    with socket.create_connection(_address(parts), most_s) as raw, raw.dup() as guard:
        timer = threading.Timer(most_s, _break_off, (guard, late))
        timer.daemon = True
        timer.start()
        try:
            return _read(raw if parts.scheme == "http" else _with_tls(raw, parts, target), parts)
        finally:
            timer.cancel()


def checked(url: str) -> SplitResult:
    """Raises PageError for anything but http and https with a host, and for a URL with a password in it."""
    parts = http_parts(url)
    if parts is not None and "@" not in parts.netloc:
        return parts
    raise PageError("not an http or https URL with a host and without a password")


def _read(connected: socket.socket, parts: SplitResult) -> str:
    host, port = _address(parts)
    connection = http.client.HTTPConnection(host, port)
    connection.sock = connected
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"accept": "text/plain;version=0.0.4", "connection": "close"})
        with connection.getresponse() as response:
            if response.status != 200:
                raise PageError(f"HTTP {response.status}")
            body = response.read(MOST_BYTES + 1)
            if len(body) > MOST_BYTES:
                raise PageError(f"a page of more than {MOST_BYTES} bytes")
            if response.length:
                raise PageError("the page was cut short")
    return body.decode()


def _address(parts: SplitResult) -> tuple[str, int]:
    return parts.hostname or "", port_of(parts)


def _with_tls(raw: socket.socket, parts: SplitResult, target: Target) -> socket.socket:
    """As for the target, whose `ca_file` and `verify_tls` hold for its metrics too."""
    context = tls_context(target.ca_file, verify=target.verify_tls)
    return context.wrap_socket(raw, server_hostname=parts.hostname)


def _break_off(guard: socket.socket, late: threading.Event) -> None:
    """Ends every read of the connection, in whichever thread; `guard` is its duplicate."""
    late.set()
    with contextlib.suppress(OSError):
        guard.shutdown(socket.SHUT_RDWR)


def _words(problem: Exception) -> str:
    """What went wrong, without anything that the server sent."""
    if isinstance(problem, UnicodeDecodeError):
        return "the page is not UTF-8"
    if isinstance(problem, TimeoutError):
        return "no connection in time"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return type(problem).__name__


def _shown(url: str) -> str:
    """Without a query, which may hold a secret, and without a password."""
    return url.partition("?")[0].rpartition("@")[2]
