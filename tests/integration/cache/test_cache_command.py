"""`cotenant cache …` as people run it: a command for its time, on a volume that others may use meanwhile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub, Fault

pytestmark = pytest.mark.integration


class Command:
    def __init__(self, hub: FakeHub, root: Path) -> None:
        self._root = root
        root.mkdir()
        self._environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "", "NO_COLOR": "1"}

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        program = [
            sys.executable,
            "-c",
            "import sys; from cotenant_operator.cli import main; sys.exit(main())",
            "cache",
        ]
        return subprocess.run(
            [*program, *words, "--root", str(self._root)],
            env=self._environment,
            text=True,
            capture_output=True,
            timeout=100,
            check=False,
        )


@pytest.fixture
def cotenant_cache(hub: FakeHub, tmp_path: Path) -> Command:
    return Command(hub, tmp_path / "volume")


def test_a_model_is_fetched_listed_pinned_and_evicted_only_when_it_is_said_twice(
    hub: FakeHub, cotenant_cache: Command, tmp_path: Path
) -> None:
    commit = hub.put("org/a", model_files(200_000))
    fetched = cotenant_cache("ensure", "hf://org/a")
    assert (fetched.returncode, fetched.stdout.strip()) == (
        0,
        str(tmp_path / "volume" / "models--org--a" / "snapshots" / commit),
    )
    assert "hf://org/a@main: fetching" in fetched.stderr
    assert cotenant_cache("ls").stdout.splitlines()[1].split()[:2] == ["org/a", "main"]
    [model] = json.loads(cotenant_cache("ls", "-o", "json").stdout)
    assert (model["commit"], model["verified"]) == (commit, True)

    assert cotenant_cache("pin", "hf://org/a").returncode == 0
    refused = cotenant_cache("evict", "hf://org/a", "--yes")
    assert refused.returncode == 3
    assert "pinned" in refused.stderr
    assert cotenant_cache("unpin", "hf://org/a").returncode == 0

    planned = cotenant_cache("evict", "hf://org/a")
    assert "goes: hf://org/a@" in planned.stdout
    assert "to bring back" in planned.stdout
    assert "nothing was changed" in planned.stderr
    assert "org/a" in cotenant_cache("ls").stdout
    assert cotenant_cache("evict", "hf://org/a", "--yes").returncode == 0
    assert cotenant_cache("ls").stdout.split() == ["MODEL", "REVISION", "SIZE", "STATE", "USED", "KEPT"]


def test_a_plan_for_a_model_that_does_not_fit_says_the_arithmetic(hub: FakeHub, cotenant_cache: Command) -> None:
    hub.put("org/a", model_files(300_000))
    said = cotenant_cache("plan", "hf://org/a", "--budget", "100Ki")
    assert said.returncode == 3
    assert "of the budget of 100.0 KiB" in said.stderr
    assert cotenant_cache("plan", "hf://org/a", "--budget", "10Mi").stdout.splitlines()[-1] == "  nothing has to go"


def test_a_flipped_bit_is_found_and_named(hub: FakeHub, cotenant_cache: Command, tmp_path: Path) -> None:
    hub.put("org/a", model_files(200_000))
    cotenant_cache("ensure", "hf://org/a")
    assert cotenant_cache("verify").returncode == 0
    blobs = tmp_path / "volume" / "models--org--a" / "blobs"
    [large] = [path for path in blobs.iterdir() if path.stat().st_size > 100_000]
    content = bytearray(large.read_bytes())
    content[1234] ^= 4
    large.chmod(0o644)
    large.write_bytes(content)
    found = cotenant_cache("verify")
    assert found.returncode == 1
    assert f"file {large.name[:12]}… does not match its digest" in found.stderr
    assert cotenant_cache("ensure", "hf://org/a").returncode == 0
    assert cotenant_cache("verify", "hf://org/a").returncode == 0


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (("evict",), 2, "name models, or say how much room"),
        (("evict", "hf://org/a", "--bytes", "1Gi"), 2, "one of them"),
        (("evict", "--bytes", "much"), 2, "--bytes much"),
        (("evict", "--bytes", "1Gi"), 3, "1073741824 bytes cannot be let go: there is not that much"),
        (("ensure", "oci://registry/model"), 2, "not supported yet"),
        (("ensure", "hf://org/a/../b"), 2, "is no source of a model"),
        (("plan", "org/a"), 2, "is no source of a model"),
        (("ensure", "hf://org/missing"), 1, "no model org/missing"),
        (("pin", "hf://org/a"), 1, "`cotenant cache ls` lists what is"),
        (("verify", "file:///tmp"), 1, "is a folder of its own"),
    ],
)
def test_bad_input_ends_with_one_line_that_helps(
    cotenant_cache: Command, words: tuple[str, ...], exit_code: int, said: str
) -> None:
    ran = cotenant_cache(*words)
    assert ran.returncode == exit_code
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_volume_that_is_not_there_is_named(hub: FakeHub, tmp_path: Path) -> None:
    command = Command(hub, tmp_path / "volume")
    (tmp_path / "volume").rmdir()
    ran = command("ls")
    assert ran.returncode == 2
    assert f"{tmp_path}/volume: there is no such folder; make it, or check --root" in ran.stderr


def test_a_wait_ends_when_it_is_said_how_long_it_may_last(hub: FakeHub, cotenant_cache: Command) -> None:
    hub.put("org/a", model_files(200_000))
    hub.fault(Fault("stall", "model.safetensors", at=1000))
    late = cotenant_cache("ensure", "hf://org/a", "--timeout", "1.5")
    assert (late.returncode, late.stdout) == (1, "")
    assert (
        "hf://org/a@main: not here after 1.5 s; it was fetching model.safetensors; what arrived is kept"
        in late.stderr
    )
    assert cotenant_cache("ensure", "hf://org/a", "--timeout", "1000").returncode == 0


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_timeout_that_is_no_time_is_refused(cotenant_cache: Command, seconds: str) -> None:
    said = cotenant_cache("ensure", "hf://org/a", "--timeout", seconds)
    assert said.returncode == 2
    assert f"--timeout {seconds}: it must be above 0, in seconds; without it there is no limit" in said.stderr
