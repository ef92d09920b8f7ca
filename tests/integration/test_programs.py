"""The programs of one `up`, with scripts in their places."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cotenant_operator import programs, ray_head
from cotenant_operator.programs import RAY_WAS_SLOW, Programs
from cotenant_operator.state_dir import StateDir

pytestmark = pytest.mark.integration
RUNS = [sys.executable, "-c", "import time; time.sleep(600)"]


def ends(said: str) -> list[str]:
    return [sys.executable, "-c", f"raise SystemExit({said!r})"]


async def started(state: StateDir, commands: Iterator[list[str]], monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Ray runs the next of `commands` at each start. Waits until the first one has ended."""
    monkeypatch.setattr(ray_head, "command", lambda *_, **__: next(commands))
    monkeypatch.setattr(programs, "_module", lambda *_: RUNS)
    desk: Any = SimpleNamespace(devices={}, cuda_devices=0, conductor_port=1)
    made = Programs(state, desk, host="127.0.0.1", port=1, gateway_workers=1, say=lambda _: None)
    await made.start()
    async with asyncio.timeout(60):
        while [child.name for child in made.ended()] != ["ray"]:
            await asyncio.sleep(0.02)
    return made


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    made = StateDir(tmp_path / "state")
    made.acquire()
    yield made
    made.remove_ray_temp()


async def test_a_ray_that_a_busy_machine_was_too_slow_for_is_started_once_more(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = ends(f"Exception: {RAY_WAS_SLOW}. This could happen because")
    made = await started(state, iter([late, RUNS]), monkeypatch)
    try:
        assert await made.start_slow_ray_again()
        assert made.ended() == []
        assert not await made.start_slow_ray_again()
    finally:
        await made.end()


async def test_a_ray_that_is_too_slow_twice_is_left(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    late = ends(f"Exception: {RAY_WAS_SLOW}. This could happen because")
    made = await started(state, iter([late, late]), monkeypatch)
    try:
        assert await made.start_slow_ray_again()
        async with asyncio.timeout(60):
            while not made.ended():
                await asyncio.sleep(0.02)
        assert not await made.start_slow_ray_again()
    finally:
        await made.end()


async def test_a_ray_that_cannot_start_is_not_tried_again(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await started(state, iter([ends("ValueError: no such option")]), monkeypatch)
    try:
        assert not await made.start_slow_ray_again()
    finally:
        await made.end()
