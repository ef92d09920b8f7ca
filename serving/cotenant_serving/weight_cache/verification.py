"""Reads everything again, slowly: a bit that flipped on the disk is found before an engine reads it."""

import asyncio
import logging
import threading
import time

from cotenant_cache.cache import Cache
from cotenant_cache.errors import CacheError
from cotenant_cache.verifying import BadBlob, Verified

EVERY_S = 3600.0
"""Between the end of one round and the next."""

log = logging.getLogger("cotenant.cache")


class Verification:
    """Rounds in a thread. Of several instances on a volume one at a time reads, what is unverified the longest first,
    and nothing that any of them has read within `every_s`: the disk has the rate of one, however many there are."""

    def __init__(self, cache: Cache, rate_bytes_per_s: int, every_s: float = EVERY_S) -> None:
        """A rate of 0: only what other tools put there is checked, once, so that it is served."""
        self._cache, self._rate, self._every_s = cache, rate_bytes_per_s, every_s
        self._stop = threading.Event()
        self.read_bytes = self.bad = 0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await asyncio.to_thread(self.round)
                await asyncio.sleep(self._every_s)
        finally:
            self._stop.set()

    def round(self) -> None:
        began = time.monotonic()
        try:
            if not self._adopt() or not self._rate or self._stop.is_set():
                return
            found = self._verify()
        except CacheError as error:
            log.warning("verification is tried again later: %s", error)
            return
        except Exception:  # whatever it is: models are served on
            log.exception("verification is tried again later")
            return
        if found is None:
            return
        self.read_bytes += found.bytes
        took_s = time.monotonic() - began
        log.info("verified %d blobs, %d bytes, in %.0f s: %d bad", found.blobs, found.bytes, took_s, len(found.bad))

    def _adopt(self) -> bool:
        """False: another instance is at it, which reads what this one would read next."""
        with self._cache.turn("adoption") as ours:
            adopted = self._cache.adopt() if ours else ()
        if served := sum(not one.refusal for one in adopted):
            log.info("%d models of other tools were checked and are served", served)
        return ours

    def _verify(self) -> Verified | None:
        """None: another instance is at it."""
        with self._cache.turn("verification") as ours:
            if not ours:
                return None
            return self._cache.verify(
                rate_bytes_per_s=self._rate, stop=self._stop.is_set, told=self._told, every_s=self._every_s
            )

    def _told(self, bad: BadBlob) -> None:
        self.bad += 1
        used = "; AN ENGINE USES IT: restart that engine" if bad.leased else ""
        done = "is quarantined" if bad.quarantined else "stays, as another user put it there, and is not served"
        log.error("%s: blob %s does not match its digest, it %s%s", bad.repo, bad.digest[:12], done, used)
