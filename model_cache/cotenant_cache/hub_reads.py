"""What is asked of a hub before any weights: a listing, small files, parts of files. Read whole, and by a deadline.

Every single wait of `connections` has an end, but a hub that sends a byte now and then makes no wait long. So what
is read by one HubReads has to be there in LISTING_S together, and PART_S more for each large file; and before whoever
asked has no time left.
"""

import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from huggingface_hub.constants import is_offline_mode

from cotenant_cache.backoff import LeftS, TryAgainError, no_end
from cotenant_cache.connections import Answer, Waits
from cotenant_cache.errors import CacheError, CorruptWeightsError, FetchStoppedError, HubUnreachableError
from cotenant_cache.http_answers import part_span
from cotenant_cache.hub_access import (
    endpoint,
    file_url,
    listing_url,
    offline,
    refuse_listing,
    refuse_status,
    request_headers,
)
from cotenant_cache.origins import Origin, ask
from cotenant_cache.rests import Rests
from cotenant_cache.source import HubSource

LISTING_S, PART_S = 120.0, 10.0
MOST_LISTING_BYTES = 64 * 2**20
"""Models of thousands of shards have listings of one; more is no listing."""


class HubReads:
    """Of one repository at one revision, for LISTING_S from now. Several threads use it."""

    def __init__(
        self,
        source: HubSource,
        *,
        whole_s: float = LISTING_S,
        left_s: LeftS = no_end,
        clock: Callable[[], float] = time.monotonic,
        rests: Rests | None = None,
    ) -> None:
        self._source, self._whole_s, self._left_s, self._clock = source, whole_s, left_s, clock
        self._rests = rests
        self._until = clock() + whole_s
        self._waits = Waits(answer_s=30.0, stall_s=10.0, stop=self._over, left_s=left_s, clock=clock)

    def allow(self, files: int) -> None:
        """Parts of so many files are read, too: what takes its time by their number is not late."""
        self._whole_s += files * PART_S
        self._until += files * PART_S

    def listing(self) -> bytes:
        """JSON: commit and files of the revision. Raises ModelNotFoundError, HubUnreachableError."""
        source = self._source

        def refuse(status: int, headers: Mapping[str, str]) -> None:
            refuse_listing(source, status, headers)

        return self._read("its list of files", listing_url(source), refuse, MOST_LISTING_BYTES, None)

    def file(self, name: str, most_bytes: int) -> bytes:
        """A small file. Raises CacheError."""
        return self._of_file(name, most_bytes, None)

    def part(self, name: str, begin: int, end: int) -> bytes:
        """Bytes from `begin` up to and without `end`, all of them. Raises CacheError."""
        content = self._of_file(name, end - begin, (begin, end))
        if len(content) != end - begin:
            raise self._no_part(name)
        return content

    def _of_file(self, name: str, most_bytes: int, span: tuple[int, int] | None) -> bytes:
        source = self._source

        def refuse(status: int, headers: Mapping[str, str]) -> NoReturn:
            refuse_status(source, name, status, headers)

        return self._read(name, file_url(source, name), refuse, most_bytes, span)

    def _read(
        self,
        name: str,
        url: str,
        refuse: Callable[[int, Mapping[str, str]], None],
        most_bytes: int,
        span: tuple[int, int] | None,
    ) -> bytes:
        source = self._source
        if is_offline_mode():
            raise offline(source)
        headers, secret = request_headers(source)
        origin = Origin(url, endpoint(source), headers, secret, refuse=refuse, rests=self._rests)
        begin, end = span or (0, None)
        try:
            with ask(origin, begin, self._waits, end=end) as answer:
                if encoding := answer.headers.get("content-encoding", "").replace("identity", ""):
                    raise TryAgainError(f"it came compressed ({encoding[:20]!r}) although that was not asked for")
                if span and not _is_part(answer, *span):
                    raise self._no_part(name)
                content = answer.whole(most_bytes)
                if content is None:
                    raise self._too_long(name, most_bytes, span)
                return content
        except TryAgainError as error:
            said = origin.without_secrets(error.reason)
            later = f"; it asks to be left alone for {error.after_s:.0f} s" if error.after_s else ""
            raise HubUnreachableError(
                f"{source.repo}: {endpoint(source)} did not give {name} ({said}){later}; check the network and "
                "HF_ENDPOINT",
                transient=True,
                retry_after_s=error.after_s,
            ) from None
        except FetchStoppedError:
            raise HubUnreachableError(
                f"{source.repo}: {endpoint(source)} did not give {name} in time: all that is read before the "
                f"weights had {self._whole_s:g} s; check the network and HF_ENDPOINT",
                transient=True,
            ) from None
        except HubUnreachableError as error:  # of a connection, which knows no models
            known = error.message.startswith(source.repo)
            raise error if known else HubUnreachableError(f"{source.repo}: {error.message}") from None

    def _over(self) -> bool:
        return self._left_s() <= 0 or self._clock() >= self._until

    def _too_long(self, name: str, most_bytes: int, span: tuple[int, int] | None) -> CacheError:
        if span:
            return self._no_part(name)
        return CorruptWeightsError(
            f"{self._source.at(self._source.revision)}: {name} is longer than {endpoint(self._source)} lists it, at "
            f"most {most_bytes} bytes are read; ask the owner of the model"
        )

    def _no_part(self, name: str) -> CacheError:
        return HubUnreachableError(
            f"{self._source.repo}: {endpoint(self._source)} answers no part of {name} when asked; "
            "check that HF_ENDPOINT is a hub that takes Range"
        )


def _is_part(answer: Answer, begin: int, end: int) -> bool:
    """A whole file, which its length tells apart from this part, only if that begins where the file does."""
    if answer.status != 206:
        return begin == 0
    found = part_span(answer.headers.get("content-range", ""))
    return found is not None and found == (begin, end - 1)
