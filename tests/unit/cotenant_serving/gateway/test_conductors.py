"""Following several conductors at once: what they say is saved whole, one table file after the other."""

import asyncio
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.builders.gateway import POOL_TOKEN, FakeConductor, eventually, model_row, row

from cotenant_serving.gateway.conductors import Conductors
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.table import Known


class SlowDisk:
    """Saves that take until `released`; remembers what was saved, and how many ran at a time."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.saved: list[set[str]] = []
        self.most_at_once = 0
        self._lock = threading.Lock()
        self._running = 0

    def save(self, file: Path, known: Mapping[str, Known]) -> None:
        with self._lock:
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        self.released.wait(60)
        with self._lock:
            self.saved.append(set(known))
            self._running -= 1


class Watched(Dispatcher):
    """Counts the views that it was given."""

    views = 0

    def set_view(self, view) -> None:
        self.views += 1
        super().set_view(view)


def watched() -> Watched:
    return Watched(clock=time.monotonic, rng=random.Random(1), on_demand=lambda: None)


def conductors_of(dispatcher: Dispatcher, table_file: Path, **more: Any) -> Conductors:
    return Conductors(
        dispatcher,
        token=lambda: POOL_TOKEN,
        name="gateway-1",
        table_file=table_file,
        rng=random.Random(1),
        news=asyncio.Event(),
        **more,
    )


async def test_tables_of_two_conductors_are_saved_one_after_the_other(tmp_path: Path) -> None:
    disk, dispatcher = SlowDisk(), watched()
    async with FakeConductor() as first, FakeConductor() as second:
        first.publish(row("i1"), models=(model_row(),))
        second.publish(row("i2"), models=(model_row(),))
        conductors = conductors_of(dispatcher, tmp_path / "table.json", save=disk.save)
        try:
            conductors.follow([first.url, second.url])
            await eventually(lambda: dispatcher.views == 3)  # none, the first one's, both
            await asyncio.sleep(0.1)  # room for a second save to begin, if it could
            disk.released.set()
            await eventually(lambda: len(disk.saved) == 2)
        finally:
            disk.released.set()
            await conductors.close()

    assert disk.most_at_once == 1
    assert disk.saved[-1] == {first.url, second.url}


async def test_what_was_saved_is_read_at_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    async with FakeConductor() as fake:
        fake.publish(row("i1"), models=(model_row(),))
        for expected in (False, True):
            conductors = conductors_of(watched(), file)
            conductors.follow([fake.url])
            assert conductors.informed() is expected
            await eventually(file.exists)
            await conductors.close()

    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


async def test_rows_of_a_conductor_that_comes_back_are_named_again_and_no_timer_takes_them_away(
    tmp_path: Path,
) -> None:
    dispatcher = watched()
    async with FakeConductor() as first, FakeConductor() as second:
        first.publish(row("i1"), models=(model_row(),))
        second.publish(row("i2"), models=(model_row(),))
        conductors = conductors_of(dispatcher, tmp_path / "table.json", left_s=0.3)

        def engines() -> set[str]:
            return {one.instance for one in dispatcher.engines("search/echo")}

        try:
            conductors.follow([first.url, second.url])
            await eventually(lambda: engines() == {"i1", "i2"})
            conductors.follow([second.url])
            assert engines() == {"i1", "i2"}
            conductors.follow([first.url, second.url])
            await eventually(lambda: dispatcher.model_row("search/echo") is not None)
            await asyncio.sleep(0.6)
            assert engines() == {"i1", "i2"}

            conductors.follow([second.url])
            await eventually(lambda: engines() == {"i2"})
        finally:
            await conductors.close()
