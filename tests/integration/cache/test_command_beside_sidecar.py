"""`cotenant cache …` in the container `cache`: the same budget, hub and token as the sidecar's there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.builders.cache_nodes import CacheNodes, CacheProgram, free_port
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.disk import Volume
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.render.cache_parts import HUB_TOKEN_FOLDER, sidecar
from cotenant_operator.spec import GPUPool

pytestmark = pytest.mark.integration

WORKER = {"name": "gpu", "device": "cuda", "memory": "80Gi"}


def command(program: CacheProgram, environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    run = [sys.executable, "-c", "import sys; from cotenant_operator.cli import main; sys.exit(main())", "cache"]
    foreign = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    return subprocess.run(
        [*run, *words, "--root", str(program.root)],
        env={**foreign, "NO_COLOR": "1", **environment},
        text=True,
        capture_output=True,
        timeout=100,
        check=False,
    )


def rendered(hub: FakeHub, secrets: Path) -> tuple[list[str], dict[str, str]]:
    """Words that the sidecar has for its hub, and the container's environment as far as it names the hub; the folder
    of the Secret is `secrets`."""
    cache = {"hub": {"endpoint": hub.url, "secretRef": {"name": "hub", "key": "token"}}}
    pool = GPUPool.model_validate({"metadata": {"name": "default"}, "spec": {"workers": [WORKER], "cache": cache}})
    made = sidecar(pool, OperatorSettings())
    here = lambda text: text.replace(HUB_TOKEN_FOLDER, str(secrets))  # noqa: E731
    words = [here(word) for word in made["command"] if word.startswith("--hub-")]
    return words, {item["name"]: here(item["value"]) for item in made["env"] if item["name"].startswith("HF_")}


def test_it_refuses_what_the_sidecar_refuses_and_says_the_sidecars_budget(hub: FakeHub, nodes: CacheNodes) -> None:
    hub.put("org/a", model_files(300_000))
    program = nodes.start("--budget", "100k")
    asking = {"HF_ENDPOINT": hub.url}
    assert json.loads(command(program, asking, "du", "-o", "json").stdout)["budget_bytes"] == 100_000
    planned = command(program, asking, "plan", "hf://org/a")
    assert (planned.returncode, "of the budget of 97.7 KiB" in planned.stderr) == (3, True), planned.stderr
    ensured = command(program, asking, "ensure", "hf://org/a")
    assert (ensured.returncode, "of the budget of 97.7 KiB" in ensured.stderr) == (1, True), ensured.stderr
    assert program.report()["usage"]["used_bytes"] == 0


def test_it_asks_the_pools_hub_with_the_pools_token(hub: FakeHub, nodes: CacheNodes, tmp_path: Path) -> None:
    commit = hub.put("org/private", model_files(200_000), private=True)
    secrets = tmp_path / "secret"
    secrets.mkdir()
    (secrets / "token").write_text(f"{hub.token}\n")
    words, environment = rendered(hub, secrets)
    program = nodes.start(*words)
    ensured = command(program, environment, "ensure", "hf://org/private")
    assert ensured.returncode == 0, ensured.stderr
    assert program.models()["org/private"]["commit"] == commit
    assert hub.token not in json.dumps(environment), "a path, not the secret"


def test_a_volume_has_the_budget_of_the_sidecar_that_opened_it_last_and_none_after_one_without(
    nodes: CacheNodes, tmp_path: Path
) -> None:
    root = tmp_path / "volume"
    first = nodes.start("--budget", "2M", root=root)
    assert Volume(root).budget() == 2_000_000
    second = nodes.start("--budget", "1M", root=root)
    assert Volume(root).budget() == 1_000_000
    budgets = [program.report()["usage"]["budget_bytes"] for program in (first, second)]
    assert budgets == [2_000_000, 1_000_000], "each keeps its own"
    folder = tmp_path / "without"
    folder.mkdir()
    unbounded = CacheProgram(folder, root, free_port(), {})
    try:
        unbounded.start()
        assert Volume(root).budget() is None, "the pool's size was taken away"
    finally:
        unbounded.stop()
