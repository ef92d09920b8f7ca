"""Metrics as text, for whoever asks: rendering costs too much to be done on the event loop, or for every caller."""

import asyncio
from collections.abc import Callable

FRESH_S = 1.0
"""A rendering answers everybody for so long. Shorter than any scraper's period: no counter goes back between two."""

Render = Callable[[], bytes]


class Scrape:
    """One rendering at a time, in a thread, whoever waits for it."""

    def __init__(self, prepare: Callable[[], Render]) -> None:
        """`prepare` is called on the event loop, what it returns in the thread."""
        self._prepare = prepare
        self._rendering: asyncio.Task[bytes] | None = None
        self._began = 0.0

    async def text(self, now: float) -> bytes:
        """`now`: seconds of a monotonic clock. Raises what rendering raises."""
        current = self._rendering
        if current is None or (current.done() and now - self._began >= FRESH_S):
            self._began = now
            current = self._rendering = asyncio.create_task(asyncio.to_thread(self._prepare()))
        return await asyncio.shield(current)  # whoever leaves does not end it for the others
