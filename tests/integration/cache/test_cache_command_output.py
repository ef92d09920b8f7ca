"""What `cotenant cache …` says to programs, and how it shows a check that takes its time."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.builders.cached_models import model_files, put_by_hub_client
from tests.builders.fake_hub import FakeHub
from tests.builders.terminal import Terminal
from tests.integration.cache.test_cache_command import Command

from cotenant_cache.cache import Cache
from cotenant_cache.contract import Progress
from cotenant_cache.source import HubAccess

pytestmark = pytest.mark.integration


@pytest.fixture
def command(hub: FakeHub, tmp_path: Path) -> Command:
    return Command(hub, tmp_path / "volume")


def documents(command: Command, *words: str, exit_code: int = 0) -> Any:
    ran = command(*words, "-o", "json")
    assert ran.returncode == exit_code, ran.stderr
    return json.loads(ran.stdout)


def test_ensure_tells_programs_what_came_and_what_did_not(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    files = model_files()
    commit = hub.put("org/a", files)
    said = documents(command, "ensure", "hf://org/a", "hf://org/missing", exit_code=1)
    assert said["models"] == [
        {
            "source": "hf://org/a",
            "commit": commit,
            "folder": str(tmp_path / "volume" / "models--org--a" / "snapshots" / commit),
            "size_bytes": sum(map(len, files.values())),
        }
    ]
    [problem] = said["problems"]
    assert (problem["source"], problem["reason"]) == ("hf://org/missing", "ModelNotFound")
    assert "no model org/missing" in problem["message"]


def test_pins_and_checks_are_told_to_programs(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    files = model_files()
    commit = hub.put("org/a", files)
    command("ensure", "hf://org/a")
    assert documents(command, "pin", "hf://org/a") == [{"source": "hf://org/a", "commit": commit, "pinned": True}]
    assert documents(command, "unpin", "hf://org/a")[0]["pinned"] is False
    total = sum(map(len, files.values()))
    assert documents(command, "verify") == {"blobs": 3, "bytes": total, "bad": [], "adopted": []}

    blob = next(path for path in (tmp_path / "volume/models--org--a/blobs").iterdir() if path.stat().st_size > 9999)
    blob.chmod(0o644)
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    [bad] = documents(command, "verify", exit_code=1)["bad"]
    assert bad == {"repo": "org/a", "digest": blob.name, "commits": [commit], "leased": False, "quarantined": True}


def test_without_a_format_there_is_nothing_on_stdout_but_folders(hub: FakeHub, command: Command) -> None:
    hub.put("org/a", model_files())
    assert len(command("ensure", "hf://org/a").stdout.splitlines()) == 1
    assert [command(*words).stdout for words in (("verify",), ("pin", "hf://org/a"), ("unpin", "hf://org/a"))] == [
        ""
    ] * 3


def test_a_check_says_how_far_it_is_of_all_and_of_each_file(hub: FakeHub, tmp_path: Path) -> None:
    files = model_files(shards=2)
    hub.put("org/a", files)
    put_by_hub_client(hub.url, "org/a", tmp_path)
    total = sum(map(len, files.values()))
    adopting: list[Progress] = []
    verifying: list[Progress] = []
    with Cache(tmp_path, access=HubAccess(endpoint=hub.url)) as cache:
        cache.adopt(adopting.append)
        cache.verify(progress=verifying.append)
    assert (adopting[-1].source, verifying[-1].source) == ("1 models of other tools", "5 files")
    for said in (adopting, verifying):
        assert (said[-1].done_bytes, said[-1].total_bytes) == (total, total)
        whole = {file.name for one in said for file in one.files if file.done_bytes == file.total_bytes}
        assert whole == {f"org/a: {name}" for name in files}


def test_a_person_sees_a_check_go_on_with_rate_and_time_left(hub: FakeHub, command: Command, tmp_path: Path) -> None:
    hub.put("org/a", model_files(12 * 2**20))
    command("ensure", "hf://org/a")
    code = "import sys; from cotenant_operator.cli import main; sys.exit(main())"
    words = ["cache", "verify", "--rate", "6Mi", "--root", str(tmp_path / "volume")]
    terminal = Terminal(
        [sys.executable, "-c", code, *words], tmp_path / "shown", PYTHONPATH=os.environ.get("PYTHONPATH", "")
    )
    assert terminal.wait() == 0
    shown = terminal.shown()
    assert "3 files verifying" in shown
    assert "org/a: model.safetensors" in shown
    assert "/12.0 MiB" in shown
    assert "MiB/s" in shown or "MB/s" in shown
