"""A load that is stopped: with patience every answer that was on its way is whole, without it is cut off."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders.load import Load, echo_chats
from tests.builders.up import until

from cotenant_loadtests.running import run_plan
from cotenant_loadtests.spec import Scenario

pytestmark = pytest.mark.integration

ITL_MS = 30.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a server whose streams take a second or more."""
    behaviour = json.dumps({"itl_ms": ITL_MS})
    command = [sys.executable, "-m", "tests.builders.reference_server", "--port", "0", "--behaviour", behaviour]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline().split()[-1])}"
        server.stdin.close()


def test_a_load_ends_with_its_block_and_every_answer_is_whole(url: str, tmp_path: Path) -> None:
    with Load(echo_chats(url, "search", ["left", "right"], rate_per_s=40, seed=1), {}, tmp_path) as load:
        until(lambda: load.succeeded > 20, "some have ended")
        ended = load.succeeded
    assert load.wrong("ok") == []
    assert ended < len(load.records) < len(load.planned), "some were on their way, and some never sent"
    assert {load.planned[one.id].model for one in load.records} == {"left", "right"}


def test_a_stop_without_patience_cuts_off_what_is_on_its_way(url: str, tmp_path: Path) -> None:
    scenario: Scenario = echo_chats(url, "search", ["left"], rate_per_s=40, seed=1)
    load, stop = Load(scenario, {}, tmp_path), threading.Event()

    output = run_plan(scenario, load.planned, {}, folder=tmp_path, stop=stop, on_progress=lambda _: stop.set())

    assert {one.outcome for one in output.records} == {"ok", "interrupted"}
