"""Other nodes before the hub: a blob that one of them has comes from there, checked against its digest all the same.

What files a model has is the hub's word wherever the hub answers. Only when it does not, and nothing whole is here,
is a peer's listing taken, which is as good as the pool's token.
"""

import logging
import math
import random as randomness
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import msgspec

from cotenant_cache.backoff import LeftS, Patience, TryAgainError, no_end
from cotenant_cache.contract import ModelFile, NodeReport
from cotenant_cache.digests import is_digest
from cotenant_cache.errors import CacheError, CorruptWeightsError, FileMissingError, HubUnreachableError
from cotenant_cache.kinds import PLAIN_NAME, refusal
from cotenant_cache.listings import excess
from cotenant_cache.source import HubSource
from cotenant_cache.supply import Listed, Supply, Watch

if TYPE_CHECKING:
    from cotenant_cache.disk import Partial
    from cotenant_cache.pace import Pace

log = logging.getLogger("cotenant.cache")
T = TypeVar("T")

SLOW_BYTES_PER_S, SLOW_S = 2**20, 10
"""A peer that is slower than this is left for the hub."""
LEFT_S, LIED_S = 60.0, 3600.0
"""How long a peer is not asked after it failed or was slow, and after it sent what it did not have."""
ASKED_AT_MOST = 8
"""Peers for one blob, and for one listing."""
RESOLVE_S, CALL_S, WHOLE_CALL_S, LISTING_S = 10.0, 3.0, 10.0, 30.0
"""LISTING_S: after it no further peer is asked for a listing."""
MOST_BYTES = 16 * 2**20


class Addresses:
    """`host:port` of the other nodes: the lines of a file, or all addresses of a headless Service's name."""

    def __init__(self, file: Path | None, dns: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._dns, self._clock = file, dns, clock
        self._known: tuple[str, ...] = ()
        self._until = -math.inf
        self._turn = threading.Lock()

    def __call__(self) -> tuple[str, ...]:
        with self._turn:
            if self._clock() >= self._until:
                try:
                    self._known = tuple(sorted({*self._of_file(), *self._of_name()}))
                except OSError as error:
                    log.warning("peers cannot be looked up, the ones before stay: %s", error)
                self._until = self._clock() + RESOLVE_S
            return self._known

    def _of_file(self) -> Iterable[str]:
        if self._file is None or not self._file.exists():
            return ()
        return (line for line in map(str.strip, self._file.read_text().splitlines()) if line)

    def _of_name(self) -> Iterable[str]:
        if not self._dns:
            return ()
        host, _, port = self._dns.rpartition(":")
        own = _own_addresses()
        try:
            found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except socket.gaierror:  # nobody is there yet
            return ()
        hosts = {str(address[0]) for *_, address in found} - own
        return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts)


class PeerSupply:
    """Files: peers, then `then`. Which files: `then`; peers where that does not answer. Several threads use it."""

    def __init__(
        self,
        addresses: Callable[[], Iterable[str]],
        token: Callable[[], str],
        then: Supply,
        *,
        pace: "Pace | None" = None,
        clock: Callable[[], float] = time.monotonic,
        random: randomness.Random | None = None,
    ) -> None:
        """`token` is what peers are shown, now."""
        self._addresses, self._token, self._then, self._pace = addresses, token, then, pace
        self._clock, self._random = clock, random or randomness.Random()  # noqa: S311 - spreads load
        self._left: dict[str, float] = {}
        self._counting = threading.Lock()
        self.fetched_bytes = {"peer": 0, "hub": 0}
        """Whole files, by where they came from."""

    def listed(self, source: HubSource, left_s: LeftS = no_end) -> Listed:
        return self._then.listed(source, left_s)

    def listed_elsewhere(self, source: HubSource, left_s: LeftS = no_end) -> Listed | None:
        """The first answer of some peers, one after the other."""
        until = self._clock() + LISTING_S
        for peer in self._peers()[:ASKED_AT_MOST]:
            if left_s() <= 0 or self._clock() >= until:
                return None
            if (found := self._quietly(peer, source, left_s)) is not None:
                log.info("hf://%s: the hub does not answer; %s says what it is", source.repo, peer)
                return found
        return None

    def fetch(self, source: HubSource, file: ModelFile, partial: "Partial", watch: Watch) -> None:
        for peer in self._peers()[:ASKED_AT_MOST]:
            if self._from_peer(peer, source, file, partial, watch):
                self._count("peer", file)
                return
        self._then.fetch(source, file, partial, watch)
        self._count("hub", file)

    def _count(self, origin: str, file: ModelFile) -> None:
        with self._counting:
            self.fetched_bytes[origin] += file.size_bytes

    def _from_peer(self, peer: str, source: HubSource, file: ModelFile, partial: "Partial", watch: Watch) -> bool:
        """What a peer has against it is its own matter; what the disk or the caller has is raised."""
        from cotenant_cache.fetch import Fetch, FetchLimits
        from cotenant_cache.origins import Origin

        def refuse(status: int, headers: Any) -> Any:
            raise FileMissingError(f"{peer} answered {status}")

        url = f"http://{peer}/v1/blob?{urlencode({'repo': source.repo, 'digest': file.digest})}"
        secret = {"authorization": f"Bearer {self._token()}"}
        limits = FetchLimits(
            Patience(attempts=2, longest_asked_s=SLOW_S),
            stall_s=SLOW_S,
            connect_s=CALL_S,
            slow_bytes_per_s=SLOW_BYTES_PER_S,
            slow_s=SLOW_S,
            fair_bytes=2**62,  # who breaks off or crawls is left at once, for the hub
        )
        shown = f"{source.at(source.revision)}: {file.name}"
        origin = Origin(url, peer, {}, secret, direct=True, refuse=refuse)
        fetch = Fetch(
            origin,
            file,
            partial,
            shown,
            limits,
            watch.report,
            watch.room,
            watch.stop,
            pace=self._pace,
            left_s=watch.left_s,
        )
        try:
            fetch.run()
        except FileMissingError:
            return False
        except (CorruptWeightsError, HubUnreachableError) as error:
            self._leave(peer, LIED_S if isinstance(error, CorruptWeightsError) else LEFT_S, error)
            return False
        return True

    def _of_peer(self, peer: str, source: HubSource, left_s: LeftS) -> Listed | None:
        commit = source.revision if source.pinned else self._recorded(peer, source, left_s)
        if not commit:
            return None
        query = urlencode({"repo": source.repo, "commit": commit})
        files = self._asked(peer, f"/v1/listing?{query}", tuple[ModelFile, ...], left_s)
        if not files:
            return None
        unsafe = next((file.name for file in files if not _is_safe(file)), None)
        if unsafe is not None:
            raise ValueError(f"it lists {unsafe[:200]!r}, which is no file of a model")
        if too_much := excess(files):
            raise ValueError(f"it lists {too_much}")
        return Listed(commit, files, found=True)

    def _recorded(self, peer: str, source: HubSource, left_s: LeftS) -> str:
        """The commit that this peer last knew the branch as."""
        report = self._asked(peer, "/v1/models", NodeReport, left_s)
        for model in report.models if report else ():
            if model.repo == source.repo and model.whole and source.revision in model.revisions:
                return model.commit if replace(source, revision=model.commit).pinned else ""
        return ""

    def _asked(self, peer: str, path: str, kind: type[T], left_s: LeftS) -> T | None:
        """None: it does not have that. Raises TryAgainError, ValueError, CacheError."""
        from cotenant_cache.connections import Waits, get

        until = self._clock() + WHOLE_CALL_S
        waits = Waits(CALL_S, CALL_S, CALL_S, lambda: left_s() <= 0 or self._clock() >= until, self._clock, left_s)
        headers = {"authorization": f"Bearer {self._token()}"}
        with get(f"http://{peer}{path}", headers, inner_allowed=True, waits=waits, direct=True) as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                return None
            body = answer.whole(MOST_BYTES) if answer.status == HTTPStatus.OK else None
            if body is None:
                raise ValueError(f"it answered {answer.status}, or more than {MOST_BYTES} bytes")
            return msgspec.json.decode(body, type=kind)

    def _quietly(self, peer: str, source: HubSource, left_s: LeftS) -> Listed | None:
        try:
            return self._of_peer(peer, source, left_s)
        except (TryAgainError, ValueError, RecursionError, CacheError) as error:
            if left_s() > 0:  # else it is no fault of the peer's
                self._leave(peer, LEFT_S, error)
            return None

    def _peers(self) -> list[str]:
        now = self._clock()
        found = [peer for peer in self._addresses() if self._left.get(peer, now) <= now]
        self._random.shuffle(found)
        return found

    def _leave(self, peer: str, seconds: float, error: Exception) -> None:
        log.warning("peer %s is left alone for %.0f s: %s", peer, seconds, error)
        self._left[peer] = self._clock() + seconds


def _is_safe(file: ModelFile) -> bool:
    """A name becomes a path, and a digest another one."""
    plain = PLAIN_NAME.fullmatch(file.name) is not None
    return plain and is_digest(file.digest) and file.size_bytes >= 0 and not refusal(file.name)


def _own_addresses() -> set[str]:
    """Of this machine or pod, as its own name says."""
    try:
        return {str(address[0]) for *_, address in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return set()
