"""Foreign programs in front of the reference server, each from its own environment in `.peers` (`make peers`)."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.builders.ports import free_port

ROOT = Path(__file__).parents[2]
LITELLM_KEY = "sk-made-for-a-test-and-for-nothing-else"
MODEL = "reference"
START_S = 90.0


@contextmanager
def reference_server() -> Iterator[str]:
    """Its URL; a token each 2 ms."""
    command = [sys.executable, "-m", "tests.builders.reference_server", "--behaviour", '{"ttft_ms": 5, "itl_ms": 2}']
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


@contextmanager
def vllm_router(server: str, folder: Path) -> Iterator[str]:
    port = free_port()
    command = [program("vllm-router", "vllm-router"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-port", str(free_port()), "--worker-urls", server]
    with serving(command, f"http://127.0.0.1:{port}", "/health", folder / "vllm-router.log") as url:
        yield url


@contextmanager
def litellm(server: str, folder: Path) -> Iterator[str]:
    """Its proxy; tenants need LITELLM_KEY."""
    port = free_port()
    config = folder / "litellm.yaml"
    behind = {"model": f"openai/{MODEL}", "api_base": f"{server}/v1", "api_key": "none"}
    config.write_text(yaml.safe_dump({"model_list": [{"model_name": MODEL, "litellm_params": behind}]}))
    command = [program("litellm", "litellm"), "--host", "127.0.0.1", "--port", str(port), "--config", str(config)]
    command += ["--telemetry", "False"]
    env = {"LITELLM_MASTER_KEY": LITELLM_KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    log = folder / "litellm.log"
    with serving(command, f"http://127.0.0.1:{port}", "/health/liveliness", log, env) as url:
        yield url


def program(peer: str, name: str) -> str:
    """Its path. Skips the test where it is not installed."""
    path = ROOT / ".peers" / peer / "bin" / name
    if not os.access(path, os.X_OK):
        pytest.skip(f"{peer} is not installed; run: make peers PEERS={peer}")
    return str(path)


@contextmanager
def serving(
    command: Sequence[str], url: str, health: str, log: Path, env: dict[str, str] | None = None
) -> Iterator[str]:
    """A program that answers at `url` once its health page does; killed at the end."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, cwd=log.parent
        )
    try:
        deadline = time.monotonic() + START_S
        while not answers(url + health):
            said = log.read_text(errors="replace")[-3000:]
            assert process.poll() is None, f"{command[0]} ended: {said}"
            assert time.monotonic() < deadline, f"{command[0]} is not ready: {said}"
            time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
