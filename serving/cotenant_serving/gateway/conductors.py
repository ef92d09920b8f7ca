"""The only I/O with conductors: the long poll for the routing table, and reports of demand.

STATE/table.json   the last table of each conductor, {url: Known}; read at start, so that a gateway that restarts
                   while the conductor is away keeps serving warm models
"""

import asyncio
import logging
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cotenant_serving.contract import REQUEST_TIMEOUT_S
from cotenant_serving.contract_gateway import Demand, Table
from cotenant_serving.gateway import table
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.private_file import replace_private

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger("cotenant.gateway")

WAIT_S = 25.0
REPORT_S = 1.0
"""Period of demand reports while anything runs or waits."""
BURST_S = 0.05
"""Requests that arrive within it share one report."""
BACK_OFF_S = (0.2, 2.0)
PATIENCE_S = 5.0
"""A gateway that knows no table waits so long for one before it wants traffic."""
LEFT_S = REQUEST_TIMEOUT_S
"""The rows of a conductor that is followed no more stay so long, unless their engines end sooner."""
REPORT_TIMEOUT_S = 2.0


class ConductorError(Exception):
    """A conductor answered something else than a table."""


class Conductors:
    """Keeps the dispatcher's view of the pool current, and the conductors' view of the demand."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        token: Callable[[], str],
        name: str,
        table_file: Path,
        rng: random.Random,
        news: asyncio.Event,
        save: "Callable[[Path, Mapping[str, table.Known]], None] | None" = None,
        left_s: float = LEFT_S,
    ) -> None:
        """`news` is set by whoever wants demand to be reported now. `save` writes the table file; it may block."""
        self._dispatcher = dispatcher
        self._token = token
        self._name = name
        self._file = table_file
        self._rng = rng
        self._save = save or save_tables
        self._left_s = left_s
        # One thread: tables are written one after the other, the newest last.
        self._saver = ThreadPoolExecutor(max_workers=1, thread_name_prefix="table")
        self._known = _load(table_file)
        self._reachable: dict[str, bool] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._news = news
        self._reported = True
        """The last report named some demand, perhaps one of a dead worker of this name: one without must follow."""
        self._answered = bool(self._known)
        """A conductor answered since the start, or a table was found on disk."""
        self._patient_until = math.inf
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        """Conductors that are followed no more; their rows go then."""

    def follow(self, urls: Sequence[str]) -> None:
        """Follows exactly these conductors from now on.

        The engines of a removed one are asked as before, until they say that they drain, or do not answer, or
        `left_s` has passed: that somebody takes a conductor out of a list ends no request.
        """
        wanted = dict.fromkeys(url.rstrip("/") for url in urls)
        if wanted and self._patient_until == math.inf:
            self._patient_until = time.monotonic() + PATIENCE_S
        for url in self._followers.keys() - wanted.keys():
            self._followers.pop(url).cancel()
            self._reachable.pop(url, None)
        for url in self._known.keys() - wanted.keys() - self._leaving.keys():
            self._known[url] = table.left(self._known[url])
            self._leaving[url] = asyncio.get_running_loop().call_later(self._left_s, self._forget, url)
        for url in wanted.keys() - self._followers.keys():
            if (timer := self._leaving.pop(url, None)) is not None:
                timer.cancel()
            self._followers[url] = asyncio.create_task(self._follow(url), name=f"table of {url}")
        self._publish()

    def informed(self) -> bool:
        """Whether there is a table, or nobody to wait for: no conductor, or none that answered soon."""
        return self._answered or not self._followers or time.monotonic() >= self._patient_until

    async def report_forever(self) -> None:
        """At once on news, every REPORT_S while there is demand, and once more when there is none."""
        while True:
            try:
                await asyncio.wait_for(self._news.wait(), REPORT_S)
            except TimeoutError:
                pass
            self._news.clear()
            await self._report_all(Demand(gateway=self._name, models=self._dispatcher.demand()))
            await asyncio.sleep(BURST_S)

    async def close(self) -> None:
        """Takes this gateway's demand back and stops."""
        await self._report_all(Demand(gateway=self._name))
        tasks = list(self._followers.values())
        for task in tasks:
            task.cancel()
        for timer in self._leaving.values():
            timer.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._saver.shutdown)
        if self._session is not None:
            await self._session.close()

    async def _report_all(self, demand: Demand) -> None:
        if demand.models or self._reported:
            heard = await asyncio.gather(*(self._report(url, demand) for url in list(self._followers)))
            if not any(heard):
                self._dispatcher.unheard(demand.models)
        self._reported = bool(demand.models)

    async def _follow(self, url: str) -> None:
        delay_s, longest_s = BACK_OFF_S
        while True:
            began = time.monotonic()
            try:
                news = await self._poll(url)
            except Exception as problem:  # whatever it is, a gateway goes on with the table that it has
                self._note(url, problem)
                await asyncio.sleep(delay_s * self._rng.uniform(0.75, 1.25))
                delay_s = min(longest_s, delay_s * 2)
                continue
            self._note(url, None)
            delay_s = BACK_OFF_S[0]
            if news is not None:
                self._known[url] = table.merge(self._known.get(url), news)
                self._publish()
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._saver, self._save, self._file, dict(self._known))
            elif time.monotonic() - began < BURST_S:
                await asyncio.sleep(delay_s)  # a conductor that does not wait must not make us spin

    async def _poll(self, url: str) -> Table | None:
        known = self._known.get(url)
        latest = known.latest if known else Table(epoch="", sequence=0)
        query: dict[str, str | int] = {"epoch": latest.epoch, "sequence": latest.sequence, "wait_s": int(WAIT_S)}
        async with self._http().get(
            f"{url}/v1/table",
            params=query,
            headers=self._headers(),
            timeout=_total(WAIT_S + 5),
        ) as response:
            if response.status == 204:
                return None
            if response.status != 200:
                raise ConductorError(f"GET /v1/table: HTTP {response.status}")
            return msgspec.json.decode(await response.read(), type=Table)

    async def _report(self, url: str, demand: Demand) -> bool:
        """Did it arrive?"""
        try:
            async with self._http().post(
                f"{url}/v1/demand",
                data=msgspec.json.encode(demand),
                headers={**self._headers(), "content-type": "application/json"},
                timeout=_total(REPORT_TIMEOUT_S),
            ) as response:
                await response.read()
                problem = (
                    None if response.status < 300 else ConductorError(f"POST /v1/demand: HTTP {response.status}")
                )
        except Exception as lost:  # as in _follow
            problem = lost if isinstance(lost, ConductorError) else ConductorError(type(lost).__name__)
        self._note(url, problem)
        return problem is None

    def _note(self, url: str, problem: Exception | None) -> None:
        before = self._reachable.get(url)
        self._reachable[url] = problem is None
        if problem is None and before is not True:
            self._answered = True
            log.info("conductor %s answers", url)
        elif problem is not None and before is not False:
            log.warning("conductor %s does not answer: %s: %s", url, type(problem).__name__, problem)
        self._dispatcher.set_reachable(any(self._reachable.values()))

    def _forget(self, url: str) -> None:
        del self._leaving[url], self._known[url]
        self._publish()

    def _publish(self) -> None:
        self._dispatcher.set_view(table.combine(self._known.values()))

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token()}"}

    def _http(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


def _total(seconds: float) -> "aiohttp.ClientTimeout":
    import aiohttp

    return aiohttp.ClientTimeout(total=seconds, sock_connect=REPORT_TIMEOUT_S)


def _load(file: Path) -> dict[str, table.Known]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, table.Known])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as problem:
        log.warning("table file %s is not used, waiting for a conductor: %s", file, problem)
        return {}


def save_tables(file: Path, known: Mapping[str, table.Known]) -> None:
    """Replaced by rename, 0600. One call at a time: they share a temporary name. A full disk is only logged."""
    try:
        replace_private(file, msgspec.json.encode(known), temporary=f".{os.getpid()}.tmp")
    except OSError as problem:
        log.warning("table file %s cannot be written: %s", file, problem)
