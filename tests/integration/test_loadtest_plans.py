"""Plans are the same in other processes, whatever the order of their sets, and in other Python versions."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
DRAW = """
import hashlib, json, sys
from types import SimpleNamespace as Given
from cotenant_loadtests.amounts import drawer, whole_drawer
from cotenant_loadtests.arrivals import arrival_times
from cotenant_loadtests.names import chooser
from cotenant_loadtests.seeded import Source
from cotenant_loadtests.words import segment_text

def sha256(values):
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()

source = Source(7, "stream", "chat")
processes = [
    Given(process="constant", rate_per_s=3.0),
    Given(process="poisson", rate_per_s=30.0),
    Given(process="gamma", rate_per_s=30.0, burstiness=0.3),
    Given(process="gamma", rate_per_s=30.0, burstiness=3.0),
    Given(process="on_off", rate_per_s=30.0, off_rate_per_s=1.0, on_s=1.3, off_s=2.1),
    Given(process="ramp", from_per_s=0.0, to_per_s=40.0),
    Given(process="steps", rates_per_s=(1.0, 9.0, 30.0), step_s=20.0),
]
amounts = [
    Given(distribution="lognormal", median=60.0, sigma=0.8, min=1, max=900),
    Given(distribution="exponential", mean=9.0, min=0, max=50),
    Given(distribution="uniform", min=2, max=99),
]
choose = chooser(["echo-{01..20}"], 1.1, source.child("model"))
times = [
    [round(at_s * 1_000_000) for at_s in arrival_times(given, source.child(given.process), 1.0, 101.0)]
    for given in processes
]
drawn = []
for given in amounts:
    tokens, wait_s = whole_drawer(given, source.child("tokens")), drawer(given, source.child("wait"))
    drawn.append([(tokens(), round(wait_s() * 1_000_000)) for _ in range(500)])
print(json.dumps({
    "version": list(sys.version_info[:2]),
    "times": sha256(times), "amounts": sha256(drawn), "names": sha256([choose() for _ in range(500)]),
    "words": sha256([segment_text(seed, 50) for seed in range(50)]),
}))
"""
PLAN = """
import sys
from pathlib import Path
from cotenant_loadtests.plan_file import plan_sha256
from cotenant_loadtests.reading import read_scenario
from cotenant_loadtests.workload import make_plan
path = Path(sys.argv[1])
print(plan_sha256(make_plan(read_scenario(path), path.parent)))
"""


def run(interpreter: str, script: str, *arguments: str, options: Sequence[str] = (), **environment: str) -> str:
    given = {"PYTHONPATH": str(ROOT / "loadtests"), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    command = [interpreter, *options, "-W", "error", "-c", script, *arguments]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def interpreter_of(version: str) -> str | None:
    """One of this machine that really starts: a shim of pyenv may not."""
    folders = sorted(Path(os.environ.get("HOME", "/")).glob(f".pyenv/versions/{version}.*/bin"))
    found = [str(folder / f"python{version}") for folder in folders] + [shutil.which(f"python{version}") or ""]
    return next((path for path in found if path and _starts(path)), None)


def _starts(path: str) -> bool:
    try:
        done = subprocess.run([path, "-c", ""], capture_output=True, timeout=30, check=False)
    except OSError:
        return False
    return done.returncode == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_another_python_draws_the_same_arrivals_lengths_names_and_words(version: str) -> None:
    if version == ".".join(map(str, sys.version_info[:2])):
        pytest.skip("that is the Python of these tests")
    if (interpreter := interpreter_of(version)) is None:
        pytest.skip(f"there is no python{version} on this machine")
    here, there = json.loads(run(sys.executable, DRAW)), json.loads(run(interpreter, DRAW))
    assert there.pop("version") == [int(part) for part in version.split(".")]
    here.pop("version")
    assert there == here


def test_drawing_needs_nothing_but_the_standard_library() -> None:
    """So that other Pythons can be asked, which have none of our packages."""
    assert run(sys.executable, DRAW, options=["-S"]) == run(sys.executable, DRAW)


@pytest.mark.parametrize("name", ["noisy-neighbour", "azure-replay", "conversations"])
def test_processes_with_another_order_of_sets_make_the_same_plan(name: str) -> None:
    path = str(ROOT / "loadtests" / "scenarios" / f"{name}.yaml")
    plans = {run(sys.executable, PLAN, path, PYTHONHASHSEED=seed) for seed in ("1", "2")}
    assert len(plans) == 1
