"""The sides of `bench-gateway`: each a program started as its users start it, with all its processes on one core."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from benchmarks.gateway_backend import MODEL
from cotenant_operator.processes import free_port
from cotenant_serving.contract_gateway import GatewayConfig, GatewayModel, GatewayTenant, Limits

PEERS = Path(__file__).parents[1] / ".peers"
PROXY_CORE, LOAD_CORE = 0, 1
KEY = "sk-key-of-search-0123456789abcdef"
TENANT = "search"
STARTED_WITHIN_S = 120.0
NEVER_REFUSED = Limits(
    requests_per_minute=1_000_000_000, tokens_per_minute=1_000_000_000_000, concurrent_requests=100_000
)
"""All three limits are set, so all three are counted; none is ever reached."""


@dataclass(frozen=True)
class Side:
    """A proxy that serves."""

    name: str
    url: str
    model: str
    """What its clients ask for."""
    process: psutil.Process
    """The first one; the others descend from it."""
    log: Path
    state: Path | None = None
    """Of a gateway of ours."""

    def said(self) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-3000:]

    def processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system time of all its processes so far; of those that ended, too."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # it has just ended, and counts as its parent's child
                total += sum(process.cpu_times()[:4])
        return total

    def rss_bytes(self) -> int:
        """Resident memory of all its processes; what they share counts for each."""
        return sum(process.memory_info().rss for process in self.processes())

    def pss_bytes(self) -> int:
        """Resident memory of all its processes; what they share is divided among them."""
        return sum(process.memory_full_info().pss for process in self.processes())


@contextmanager
def backend(folder: Path) -> Iterator[str]:
    """The URL of the engine behind all sides, on the core of the load."""
    log = folder / "backend.log"
    with running([sys.executable, "-m", "benchmarks.gateway_backend"], LOAD_CORE, log) as process:
        wait_until(lambda: log.read_text().strip().isdecimal(), process, log)
        yield f"http://127.0.0.1:{int(log.read_text())}"


@contextmanager
def cotenant(name: str, folder: Path, backend_url: str, workers: int) -> Iterator[Side]:
    """The gateway as `cotenant up` starts it: supervisor and workers, everything counted and journalled."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    tenant = GatewayTenant(name=TENANT, key_sha256=(digest,), limits=NEVER_REFUSED, models=(MODEL,))
    config = GatewayConfig(
        generation=1,
        conductors=(backend_url,),
        pool_token_file=str(folder / "pool-token"),
        tenants=(tenant,),
        models=(GatewayModel(name=MODEL, task="echo", created=1_700_000_000),),
    )
    (folder / "pool-token").write_text("pool-token-of-the-benchmark\n")
    (folder / "gateway.json").write_bytes(msgspec.json.encode(config))
    command = [sys.executable, "-m", "cotenant_serving.gateway", "--config", str(folder / "gateway.json")]
    command += ["--state", str(folder / "state"), "--port", "0", "--workers", str(workers)]
    log = folder / "gateway.log"
    with running(command, PROXY_CORE, log) as process:
        wait_until(lambda: "listening on http" in log.read_text(), process, log)
        found = re.search(r"listening on (http://[^:]+:\d+)", log.read_text())
        assert found is not None
        yield Side(name, found[1], MODEL.partition("/")[2], process, log, folder / "state")


@contextmanager
def vllm_router(name: str, folder: Path, backend_url: str, peers: Path) -> Iterator[Side]:
    """vllm-router with its cheapest policy for one worker. It authenticates nobody and counts nothing per tenant."""
    port = free_port()
    command = [peer(peers, "vllm-router"), "--port", str(port), "--worker-urls", backend_url]
    command += ["--policy", "round_robin", "--prometheus-port", str(free_port()), "--log-level", "error"]
    with running(command, PROXY_CORE, folder / "router.log") as process:
        yield serving(Side(name, f"http://127.0.0.1:{port}", "reference", process, folder / "router.log"))


@contextmanager
def litellm(name: str, folder: Path, backend_url: str, peers: Path) -> Iterator[Side]:
    """LiteLLM's proxy with one worker and a master key; without a database, so it counts nothing per tenant."""
    port = free_port()
    parameters = {"model": "openai/reference", "api_base": f"{backend_url}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": "reference", "litellm_params": parameters}],
        "general_settings": {"master_key": KEY},
    }
    (folder / "litellm.json").write_bytes(msgspec.json.encode(config))  # JSON is YAML
    command = [peer(peers, "litellm"), "--config", str(folder / "litellm.json"), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    with running(command, PROXY_CORE, folder / "litellm.log", {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}) as process:
        yield serving(Side(name, f"http://127.0.0.1:{port}", "reference", process, folder / "litellm.log"))


@contextmanager
def ray_serve(name: str, folder: Path, backend_url: str) -> Iterator[Side]:
    """Plain Ray Serve, an app that asks the backend behind its default HTTP proxy; a Ray of its own."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.gateway_ray", "--port", str(port), "--backend", backend_url]
    command += ["--temp-dir", str(folder)]
    env = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with running(command, PROXY_CORE, folder / "ray.log", env) as process:
        yield serving(Side(name, f"http://127.0.0.1:{port}", "reference", process, folder / "ray.log"))


def peer(peers: Path, name: str) -> str:
    """The program's path. Raises RuntimeError: not installed."""
    path = peers / name / "bin" / name
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"{name} is not in {peers}; run: make peers PEERS={name}, or give --peers")
    return str(path)


def serving(side: Side) -> Side:
    """When it answers a chat; until then it may refuse connections, or know no backend yet."""
    wait_until(lambda: answers(side), side.process, side.log)
    return side


def answers(side: Side) -> bool:
    body = {"model": side.model, "messages": [{"role": "user", "content": "ready"}]}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(
        f"{side.url}/v1/chat/completions", data=msgspec.json.encode(body), headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def running(
    command: Sequence[str], core: int, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[psutil.Process]:
    """A program and all that it starts on one core. At the end it is asked to end, and what is left is killed."""
    with log.open("w") as out, on_core(core):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=out, env={**os.environ, **(env or {})}
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in psutil.wait_procs(family, timeout=3)[1]:
        left.kill()
    if process.stdin is not None:
        process.stdin.close()


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile stays on that core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def wait_until(ready: Callable[[], bool], process: psutil.Process, log: Path) -> None:
    """Raises RuntimeError with the end of its output."""
    deadline_s = time.monotonic() + STARTED_WITHIN_S
    while not ready():
        ended = not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        if ended or time.monotonic() > deadline_s:
            raise RuntimeError(f"it did not start: {log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def start(names: Sequence[str], folder: Path, backend_url: str, peers: Path, held: ExitStack) -> dict[str, Side]:
    """Starts the sides of these names one after the other; `held` ends them."""
    sides = {}
    for name in names:
        own = folder / name.replace(" ", "-")
        own.mkdir()
        sides[name] = held.enter_context(makers(peers)[name](name, own, backend_url))
    return sides


ONE, TWO, ROUTER, CONTROL, LITELLM, RAY = (
    "cotenant, 1 worker",
    "cotenant, 2 workers",
    "vllm-router",
    "vllm-router again",
    "LiteLLM",
    "Ray Serve",
)


def makers(peers: Path) -> Mapping[str, Callable[[str, Path, str], AbstractContextManager[Side]]]:
    return {
        ONE: lambda name, folder, url: cotenant(name, folder, url, 1),
        TWO: lambda name, folder, url: cotenant(name, folder, url, 2),
        ROUTER: lambda name, folder, url: vllm_router(name, folder, url, peers),
        CONTROL: lambda name, folder, url: vllm_router(name, folder, url, peers),
        LITELLM: lambda name, folder, url: litellm(name, folder, url, peers),
        RAY: ray_serve,
    }
