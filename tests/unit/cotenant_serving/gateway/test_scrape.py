"""Scrapes of metrics: what they cost does not grow with who asks, and never stops requests."""

import asyncio
import threading

import pytest

from cotenant_serving.gateway.scrape import FRESH_S, Scrape


class Rendered:
    """Renders only while `may_go` is set; `threads` has where each rendering ran."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.threads: list[threading.Thread] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.fails = False
        self.scrape = Scrape(lambda: self._render)

    async def text(self) -> bytes:
        return await self.scrape.text(self.now_s)

    def _render(self) -> bytes:
        self.threads.append(threading.current_thread())
        assert self.may_go.wait(30)
        if self.fails:
            raise OSError("disk")
        return b"rendering %d" % len(self.threads)


async def test_the_event_loop_goes_on_while_one_rendering_answers_all_who_wait() -> None:
    rendered = Rendered()
    rendered.may_go.clear()
    waiting = [asyncio.create_task(rendered.text()) for _ in range(20)]
    while not rendered.threads:
        await asyncio.sleep(0.001)
    waiting.pop().cancel()
    rendered.may_go.set()

    assert set(await asyncio.gather(*waiting)) == {b"rendering 1"}
    assert rendered.threads != [threading.current_thread()]


async def test_a_rendering_is_used_again_for_a_second() -> None:
    rendered = Rendered()
    said = []
    for passed_s in (0.0, FRESH_S / 2, FRESH_S, FRESH_S / 2):
        rendered.now_s += passed_s
        said.append(await rendered.text())

    assert said == [b"rendering 1", b"rendering 1", b"rendering 2", b"rendering 2"]


async def test_a_rendering_that_fails_is_tried_again() -> None:
    rendered = Rendered()
    rendered.fails = True
    with pytest.raises(OSError, match="disk"):
        await rendered.text()
    rendered.fails = False
    rendered.now_s += FRESH_S

    assert await rendered.text() == b"rendering 2"
