"""Where models come from: the hub, or whatever is put before it (peers of other nodes). Nothing is written here."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from cotenant_cache.backoff import LeftS, no_end
from cotenant_cache.contract import ModelFile
from cotenant_cache.errors import HubUnreachableError
from cotenant_cache.rests import Rests
from cotenant_cache.source import HubSource

if TYPE_CHECKING:
    from cotenant_cache.disk import Partial
    from cotenant_cache.fetch import FetchLimits
    from cotenant_cache.pace import Pace


@dataclass(frozen=True, slots=True)
class Listed:
    """A revision resolved: its commit, and the files of it that an engine may read, small ones first."""

    commit: str
    files: tuple[ModelFile, ...]
    found: bool = False
    """No hub says so, but another node, which may have it from a tool that left files out."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How a fetch is watched by the one that asked for it."""

    report: Callable[[int], None]
    """Takes the bytes of the file that are on disk by now; fewer than before when it began anew."""
    room: Callable[[int], None]
    """Asked before so many bytes are written. Raises CacheFullError, DiskFullError."""
    stop: Callable[[], bool]
    """Whether to give up."""
    left_s: LeftS = no_end


class Supply(Protocol):
    def listed(self, source: HubSource, left_s: LeftS = no_end) -> Listed:
        """What the hub says. Raises CacheError; HubUnreachableError when it does not answer, or not in that time."""

    def listed_elsewhere(self, source: HubSource, left_s: LeftS = no_end) -> Listed | None:
        """What others say it is while no hub answers; None: nobody who was asked knows it."""

    def fetch(self, source: HubSource, file: ModelFile, partial: "Partial", watch: Watch) -> None:
        """`source` names the commit. Returns when the partial is the whole file and has its digest.

        Raises CacheError.
        """


class HubSupply:
    """Straight from the hub. `pace` is shared with whatever else has the same limit.

    A hub that asked to be left alone is not asked before that time is over; HubUnreachableError says how long it is.
    """

    def __init__(self, limits: "FetchLimits | None" = None, pace: "Pace | None" = None) -> None:
        self._limits, self._pace, self._rests = limits, pace, Rests()

    def listed(self, source: HubSource, left_s: LeftS = no_end) -> Listed:
        hub = _needs_hub_client("hub", source)
        listing = hub.resolve(source, left_s, self._rests)
        return Listed(listing.commit, hub.wanted(source, listing, left_s, self._rests))

    def listed_elsewhere(self, source: HubSource, left_s: LeftS = no_end) -> Listed | None:
        del source, left_s
        return None

    def fetch(self, source: HubSource, file: ModelFile, partial: "Partial", watch: Watch) -> None:
        fetch = _needs_hub_client("fetch", source)
        fetch.fetch_file(
            source,
            file,
            partial,
            limits=self._limits or fetch.LIMITS,
            report=watch.report,
            room=watch.room,
            stop=watch.stop,
            left_s=watch.left_s,
            pace=self._pace,
            rests=self._rests,
        )


def _needs_hub_client(name: str, source: HubSource) -> ModuleType:
    """Modules that import huggingface_hub, which the base install lacks. Raises HubUnreachableError."""
    try:
        return importlib.import_module(f"cotenant_cache.{name}")
    except ImportError as error:
        raise HubUnreachableError(
            f"hf://{source.repo}: {error.name} is not installed. Run: pip install 'cotenant[cache]'"
        ) from error
