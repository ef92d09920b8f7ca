"""How often hubs are asked what models are, and what stands meanwhile."""

import asyncio
from collections.abc import Callable

from cotenant_cache.errors import CacheError, HubUnreachableError
from cotenant_cache.source import HubAccess
from cotenant_operator.facts_book import AGAIN_S, Facts, FactsBook, Question
from cotenant_operator.pool_hubs import Hub

HUB = Hub("https://hub.example", "hub/token")
SOUGHT = ("hf://org/small", HUB)


class BusyHub:
    """Asks to be left alone for so many seconds, which it counts down by one with each question."""

    def __init__(self, retry_after_s: float | None) -> None:
        self.retry_after_s, self.asked = retry_after_s, 0

    def __call__(self, question: Question) -> Facts:
        self.asked += 1
        left_s = self.retry_after_s and self.retry_after_s - self.asked
        return HubUnreachableError(f"HTTP 429, again in {left_s} s", transient=True, retry_after_s=self.retry_after_s)


class Looked:
    """A book with a clock that a test sets, and what it says of one model to a pool with some token."""

    def __init__(self, read: Callable[[Question], Facts]) -> None:
        self.now_s, self.news = 0.0, 0
        self._book = FactsBook(read, self._came, clock=lambda: self.now_s)

    async def __call__(self, token: str = "") -> str:
        """The message that stands when all that was asked for is answered."""
        asked = {SOUGHT: Question(SOUGHT[0], HubAccess(HUB.endpoint, token))}
        self._book.of(asked)
        async with asyncio.timeout(30):
            await self._book.answered(30)
        said = self._book.of(asked)[SOUGHT]
        assert isinstance(said, CacheError)
        return said.message

    def _came(self) -> None:
        self.news += 1


async def test_a_hub_that_asks_to_be_left_alone_is_and_its_message_stands_that_long() -> None:
    hub = BusyHub(retry_after_s=600.0)
    look = Looked(hub)
    first = await look()
    while look.now_s < 600.0 - AGAIN_S:
        look.now_s += AGAIN_S
        assert (await look(), look.news, hub.asked) == (first, 1, 1), f"after {look.now_s} s"
    look.now_s = 600.0
    await look()
    assert (look.news, hub.asked) == (2, 2)


async def test_a_hub_that_asks_for_days_or_for_no_time_is_asked_again_all_the_same() -> None:
    for retry_after_s, again_s in ((86_400.0, 3600.0), (1.0, AGAIN_S), (None, AGAIN_S)):
        hub = BusyHub(retry_after_s)
        look = Looked(hub)
        await look()
        look.now_s = again_s - 1
        await look()
        assert hub.asked == 1, f"{retry_after_s}, after {look.now_s} s"
        look.now_s = again_s
        await look()
        assert hub.asked == 2, f"{retry_after_s}, after {look.now_s} s"


async def test_what_a_hub_asks_of_one_token_holds_back_no_other() -> None:
    hub = BusyHub(retry_after_s=600.0)
    look = Looked(hub)
    await look()
    look.now_s = AGAIN_S
    await look(token="hf_of_the_secret_that_came")
    assert hub.asked == 2
